#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/jinja.h"

namespace thimble {

// A stretch of a rendered conversation.
struct MarkedPiece {
  std::string text;
  bool trained;      // the model learns to write it: an assistant turn's content with its end-of-turn token
  std::string role;  // whose message it belongs to: "system", "user", "assistant", "tool"
};

// A model's chat template: turns messages in the OpenAI form into the text that the model was trained on, as
// transformers' apply_chat_template does.
class ChatTemplate {
 public:
  // An empty source is ChatML. Empty tokens are left undefined in the template; more_tokens has "unk_token" and the
  // like. Throws Error, with the template's line, where it does not parse.
  explicit ChatTemplate(std::string source, std::string bos_token = "", std::string eos_token = "",
                        std::map<std::string, std::string> more_tokens = {});

  // messages: [{"role": ..., "content": ..., ...}]. tools: a list of OpenAI tool definitions, or null. extra: an
  // object of further variables (enable_thinking ...), or null. Throws Error where the template refuses the messages,
  // and where tools or tool calls are given to a template that has no place for them.
  std::string render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                     bool add_generation_prompt, const nlohmann::ordered_json& extra) const;
  std::string render(const nlohmann::ordered_json& messages, bool add_generation_prompt) const;

  // The whole conversation, cut where what is trained begins and ends and where messages end; the pieces' texts, put
  // together, are render(messages, tools, false, extra). What is trained comes from the template's {% generation %}
  // blocks, or else from comparing what the first n messages render to: an assistant turn is what
  // render(messages[:i + 1]) has beyond render(messages[:i], with the generation prompt). Text behind the
  // end-of-turn token is not trained. Throws Error, naming the turn, where a template rewrites earlier turns or
  // ends the assistant's turn with nothing that a model could learn to stop at.
  std::vector<MarkedPiece> render_for_training(const nlohmann::ordered_json& messages,
                                               const nlohmann::ordered_json& tools,
                                               const nlohmann::ordered_json& extra) const;
  std::vector<MarkedPiece> render_for_training(const nlohmann::ordered_json& messages) const;

  bool knows_tools() const { return template_.uses_variable("tools"); }
  bool knows_tool_calls() const { return knows_tool_calls_; }
  bool is_builtin() const { return builtin_; }  // ChatML, because the model has no template
  bool marks_generation() const { return template_.has_generation_blocks(); }

 private:
  nlohmann::ordered_json context(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                                 bool add_generation_prompt, const nlohmann::ordered_json& extra) const;

  jinja::Template template_;
  std::map<std::string, std::string> tokens_;
  bool builtin_;
  bool knows_tool_calls_;
};

}  // namespace thimble
