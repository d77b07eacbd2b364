#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace thimble {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

// SmolLM2-Instruct's: brings its own system message, knows no tools.
constexpr const char* kSmolLm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are "
    "a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

const ordered_json kChat = ordered_json::parse(R"([{"role": "user", "content": "Hi"},
  {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Ciao."}])");

std::string joined(const std::vector<MarkedPiece>& pieces, bool only_trained = false) {
  std::string text;
  for (const auto& piece : pieces) {
    if (piece.trained) {
      text += "[" + piece.text + "]";
    } else if (!only_trained) {
      text += piece.text;
    }
  }
  return text;
}

std::string plain(const std::vector<MarkedPiece>& pieces) {
  std::string text;
  for (const auto& piece : pieces) text += piece.text;
  return text;
}

std::string error_of(const std::string& source, const ordered_json& messages) {
  try {
    return "no error, but: " + joined(ChatTemplate(source, "<s>", "</s>").render_for_training(messages));
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatTemplate, WritesChatMlWhereTheModelHasNoTemplate) {
  const ChatTemplate chat("");
  EXPECT_TRUE(chat.is_builtin());
  EXPECT_EQ(chat.render(ordered_json::parse(R"([{"role": "user", "content": "Hi"}])"), true),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, TrainsAssistantTurnsWithTheirEndOfTurnToken) {
  const ChatTemplate chat(kSmolLm2, "<|im_start|>", "<|im_end|>");
  const auto pieces = chat.render_for_training(kChat);
  EXPECT_EQ(joined(pieces),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello!<|im_end|>]\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[Ciao.<|im_end|>]\n");
  EXPECT_EQ(plain(pieces), chat.render(kChat, false));
}

TEST(ChatTemplate, NamesTheRoleOfEveryPiece) {
  const ChatTemplate chat(kSmolLm2, "<|im_start|>", "<|im_end|>");
  std::vector<std::string> seen;
  for (const auto& piece : chat.render_for_training(kChat)) {
    seen.push_back(piece.role + (piece.trained ? "+" : "-") + std::to_string(piece.text.size()));
  }
  EXPECT_THAT(seen, testing::ElementsAre("system-98", "user-30", "assistant-22", "assistant+16", "assistant-1",
                                         "user-31", "assistant-22", "assistant+15", "assistant-1"));
}

TEST(ChatTemplate, CutsWhereThePromptEnds) {
  const ChatTemplate chat(kSmolLm2, "<|im_start|>", "<|im_end|>");
  const std::string asked = chat.render(ordered_json(kChat.begin(), kChat.begin() + 3), true);
  std::string text;
  for (const auto& piece : chat.render_for_training(kChat)) {
    if (text.size() < asked.size()) text += piece.text;
  }
  EXPECT_EQ(text, asked);
}

TEST(ChatTemplate, FollowsGenerationMarks) {
  const std::string marked =
      "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}</s>\n{% endgeneration %}"
      "{% else %}U:{{ m.content }}\n{% endif %}{% endfor %}";
  EXPECT_EQ(joined(ChatTemplate(marked, "", "</s>").render_for_training(kChat)),
            "U:Hi\nA:[Hello!</s>]\nU:Bye\nA:[Ciao.</s>]\n");
  const std::string without_end =
      "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}{% endgeneration %}</s>\n"
      "{% else %}U:{{ m.content }}\n{% endif %}{% endfor %}";
  EXPECT_EQ(joined(ChatTemplate(without_end, "", "</s>").render_for_training(kChat)),
            "U:Hi\nA:[Hello!</s>]\nU:Bye\nA:[Ciao.</s>]\n");
}

TEST(ChatTemplate, TrainsTurnsOfTemplatesWithoutAGenerationPrompt) {
  const std::string llama2 =
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} "
      "{{ m.content }} {{ eos_token }}{% endif %}{% endfor %}";
  EXPECT_EQ(joined(ChatTemplate(llama2, "<s>", "</s>").render_for_training(kChat), true),
            "[ Hello! </s>][ Ciao. </s>]");
}

TEST(ChatTemplate, RefusesTemplatesThatRewriteEarlierTurns) {
  const std::string drops_reasoning =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}"
      "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}</s>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  auto chat = kChat;
  EXPECT_THAT(error_of(drops_reasoning, chat), HasSubstr("[Hello!</s>]"));
  chat[1]["content"] = "<think>hm</think>Hello!";
  EXPECT_THAT(error_of(drops_reasoning, chat), HasSubstr("message 2 (an assistant turn)"));
}

TEST(ChatTemplate, RefusesTurnsThatNothingEnds) {
  EXPECT_THAT(error_of("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                       "{% if add_generation_prompt %}assistant: {% endif %}",
                       kChat),
              HasSubstr("never learn to stop"));
}

TEST(ChatTemplate, RefusesPromptsThatTheTurnDoesNotContinue) {
  EXPECT_THAT(error_of("{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
                       "{% if add_generation_prompt %}BOT:{% endif %}",
                       kChat),
              HasSubstr("message 2 (an assistant turn)"));
}

TEST(ChatTemplate, RefusesToDropTools) {
  const ChatTemplate chat(kSmolLm2);
  const auto tools = ordered_json::parse(R"([{"type": "function", "function": {"name": "f"}}])");
  EXPECT_FALSE(chat.knows_tools());
  EXPECT_THROW(chat.render(kChat, tools, true, nullptr), Error);
  EXPECT_NO_THROW(chat.render(kChat, ordered_json::array(), true, nullptr));
  auto messages = kChat;
  messages[1]["tool_calls"] = ordered_json::parse(R"([{"function": {"name": "f", "arguments": {}}}])");
  EXPECT_THROW(chat.render(messages, true), Error);
  const ChatTemplate with_tools("{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}");
  EXPECT_EQ(with_tools.render(kChat, tools, false, nullptr), R"([{"type": "function", "function": {"name": "f"}}]Hi)");
}

TEST(ChatTemplate, PassesTokensAndExtraVariables) {
  const ChatTemplate chat(
      "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token is defined }}{{ enable_thinking }}", "<s>", "</s>",
      {{"unk_token", "<unk>"}});
  EXPECT_EQ(chat.render(kChat, nullptr, false, {{"enable_thinking", false}}), "<s></s><unk>FalseFalse");
}

TEST(ChatTemplate, RefusesMessagesThatAreNone) {
  const ChatTemplate chat("");
  EXPECT_THROW(chat.render(ordered_json::object(), true), Error);
  EXPECT_THROW(chat.render(ordered_json::parse(R"([{"content": "x"}])"), true), Error);
  EXPECT_THROW(chat.render(ordered_json::parse(R"([{"role": "user", "content": null}])"), true), Error);
}

}  // namespace
}  // namespace thimble
