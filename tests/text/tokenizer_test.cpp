#include "text/tokenizer.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "formats/model_file.h"
#include "test_data.h"
#include "text/utf8.h"

namespace thimble {
namespace {

using nlohmann::json;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

Tokenizer from_json(const std::string& text) {
  Vocabulary vocabulary;
  vocabulary.tokenizer_json = text;
  return Tokenizer::from(vocabulary);
}

json golden_json(const std::string& name) {
  return json::parse(read_file(test::golden("text/tokenizer/" + name + ".json")));
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  StreamDecoder stream(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_valid_utf8(part)) << "a part ends inside a character";
    text += part;
  }
  return text + stream.flush();
}

// The golden's vocabulary as a GGUF file would hold it.
Vocabulary as_gguf(const json& golden, const std::string& model, const std::string& pre) {
  Vocabulary v;
  v.model = model;
  v.pre = pre;
  const json& vocab = golden["model"]["vocab"];
  v.tokens.resize(vocab.size());
  v.types.resize(vocab.size(), 1);
  for (const auto& [token, id] : vocab.items()) v.tokens[id.get<size_t>()] = token;
  for (const json& added : golden["added_tokens"]) {
    const size_t id = added["id"];
    if (id >= v.tokens.size()) {
      v.tokens.resize(id + 1);
      v.types.resize(id + 1);
    }
    v.tokens[id] = added["content"];
    v.types[id] = added["special"] ? 3 : 4;
  }
  for (const json& merge : golden["model"]["merges"])
    v.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return v;
}

class Golden : public testing::TestWithParam<const char*> {
 protected:
  std::vector<json> cases() const {
    std::ifstream file(test::golden(std::string("text/tokenizer/") + GetParam() + "_cases.jsonl"));
    std::vector<json> out;
    for (std::string line; std::getline(file, line);) out.push_back(json::parse(line));
    EXPECT_GE(out.size(), 300u);
    return out;
  }
};

TEST_P(Golden, EncodesAndDecodesAsHuggingFace) {
  const Tokenizer tokenizer = from_json(golden_json(GetParam()).dump());
  for (const json& c : cases()) {
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(from_hex(c["hex"]), {c["add_special"], c["parse_special"]}), ids) << c.dump();
    EXPECT_EQ(tokenizer.decode(ids, c["skip_special"]), c["text"].get<std::string>()) << c.dump();
    EXPECT_EQ(streamed(tokenizer, ids, c["skip_special"]), c["text"].get<std::string>()) << c.dump();
  }
}

TEST_P(Golden, GivesTheSameTokensOnManyThreads) {
  const Tokenizer tokenizer = from_json(golden_json(GetParam()).dump());
  const std::vector<json> all = cases();
  std::vector<size_t> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < wrong.size(); ++t)
      threads.emplace_back([&, t] {
        for (const json& c : all)
          wrong[t] += tokenizer.encode(from_hex(c["hex"]), {c["add_special"], c["parse_special"]}) !=
                      c["ids"].get<std::vector<int32_t>>();
      });
  }
  EXPECT_THAT(wrong, testing::Each(0u));
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, Golden, testing::Values("byte_level", "sentence_piece"));

TEST(Tokenizer, ReadsTheSameFromGgufArraysAsFromTokenizerJson) {
  const json golden = golden_json("byte_level");
  Vocabulary vocabulary = as_gguf(golden, "gpt2", "llama-bpe");
  vocabulary.bos = 600;
  const Tokenizer gguf = Tokenizer::from(vocabulary), reference = from_json(golden.dump());
  for (const char* text : {"", "I've 12345 apples", "def f(x):\n\treturn x  # ok", "😶‍🌫️ <|im_end|> 中文",
                           "a\xff"
                           "b"})
    EXPECT_EQ(gguf.encode(text, {true, true}), reference.encode(text, {true, true})) << text;
}

TEST(Tokenizer, KnowsLlamaCppsSplittingRules) {
  const json golden = golden_json("byte_level");
  for (const char* rule :
       {"", "default", "falcon", "smollm", "gpt-2", "olmo", "llama-bpe", "dbrx", "qwen2", "qwen35", "stablelm2",
        "tekken", "gpt-4o", "bloom", "viking", "seed-coder", "bailingmoe", "deepseek-coder", "deepseek-v3"}) {
    Vocabulary vocabulary = as_gguf(golden, "gpt2", rule);
    vocabulary.bos = 600;
    const Tokenizer tokenizer = Tokenizer::from(vocabulary);
    const std::string text = "It's 12345 x²\r\n\tcafé, 中文 \U00031350 😶‍🌫️!!  end ";
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << rule;
  }
}

TEST(Tokenizer, MergesByScoreAsByMerges) {
  const json golden = golden_json("sentence_piece");
  Vocabulary vocabulary = as_gguf(golden, "llama", "default");
  vocabulary.merges.clear();
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  vocabulary.add_eos = true;
  vocabulary.unk = 0;
  for (size_t id = 3; id < 259; ++id) vocabulary.types[id] = 6;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) vocabulary.scores.push_back(-static_cast<float>(id));
  const Tokenizer gguf = Tokenizer::from(vocabulary), reference = from_json(golden.dump());
  for (const char* text :
       {"", " ", "   a  b", "I've 12345 apples", "def f(x):\n\treturn x", "😶‍🌫️ </s> 中文", "x<s> y"})
    EXPECT_EQ(gguf.encode(text, {true, true}), reference.encode(text, {true, true})) << text;
}

class LlamaCppVectors : public testing::TestWithParam<const char*> {};

TEST_P(LlamaCppVectors, AreAllRight) {
  const std::filesystem::path path = test::data(std::string("tokenizers/ggml-vocab-") + GetParam() + ".gguf");
  THIMBLE_REQUIRE_DATA(path);
  const Tokenizer tokenizer = Tokenizer::from(open_vocabulary(path));
  const std::string inputs = read_file(path.string() + ".inp"), mark = "\n__ggml_vocab_test__\n";
  std::ifstream outputs(path.string() + ".out");
  size_t count = 0;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + mark.size(), ++count) {
    end = inputs.find(mark, begin);
    const std::string text = inputs.substr(begin, end == std::string::npos ? end : end - begin);
    std::string line;  // none for the empty text at the end
    std::getline(outputs, line);
    std::istringstream numbers(line);
    const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_EQ(streamed(tokenizer, ids, false), text);
  }
  EXPECT_EQ(count, 47u);
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, LlamaCppVectors, testing::Values("gpt-2", "falcon", "llama-spm", "phi-3"));

TEST(Tokenizer, SaysThatBertIsNotSupported) {
  const std::filesystem::path path = test::data("tokenizers/ggml-vocab-bert-bge.gguf");
  THIMBLE_REQUIRE_DATA(path);
  try {
    Tokenizer::from(open_vocabulary(path));
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("'bert'"));
  }
}

TEST(Tokenizer, TakesControlTokensInTextOnlyWhereAsked) {
  const Tokenizer tokenizer = from_json(golden_json("byte_level").dump());
  const int32_t end = *tokenizer.id_of("<|im_end|>");
  EXPECT_THAT(tokenizer.encode("a<|im_end|>", {false, true}), testing::Contains(end));
  EXPECT_THAT(tokenizer.encode("a<|im_end|>"), testing::Not(testing::Contains(end)));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a<|im_end|>")), "a<|im_end|>");
  // Added tokens that are no control tokens are always found.
  EXPECT_THAT(tokenizer.encode("a<tool_call>"), testing::Contains(*tokenizer.id_of("<tool_call>")));
}

TEST(Tokenizer, KnowsTheBytesOfEveryToken) {
  for (const char* name : {"byte_level", "sentence_piece"}) {
    const Tokenizer tokenizer = from_json(golden_json(name).dump());
    const std::string text = "Please reset ½ of 12 passwords 😶‍🌫️ at 5\tp.m. ok\n";
    std::string bytes;
    for (const int32_t id : tokenizer.encode(text)) bytes += tokenizer.token_bytes(id);
    EXPECT_EQ(bytes, name == std::string("byte_level") ? text : " " + text);
    EXPECT_EQ(tokenizer.token_bytes(-1), "");
    EXPECT_EQ(tokenizer.token_bytes(tokenizer.vocab_size()), "");
  }
}

TEST(Tokenizer, FindsWhereAnswersEnd) {
  json golden = golden_json("byte_level");
  Vocabulary vocabulary;
  vocabulary.tokenizer_json = golden.dump();
  vocabulary.tokenizer_config_json =
      R"({"bos_token": {"content": "<|begin|>"}, "eos_token": "<|im_start|>", "pad_token": null})";
  const Tokenizer tokenizer = Tokenizer::from(vocabulary);
  EXPECT_EQ(tokenizer.bos(), tokenizer.id_of("<|begin|>"));
  EXPECT_EQ(tokenizer.eos(), tokenizer.id_of("<|im_start|>"));
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
  EXPECT_THAT(tokenizer.end_ids(),
              testing::ElementsAre(*tokenizer.id_of("<|im_start|>"), *tokenizer.id_of("<|im_end|>")));
  EXPECT_TRUE(tokenizer.ends_answer(*tokenizer.id_of("<|im_end|>")));
  EXPECT_FALSE(tokenizer.ends_answer(*tokenizer.id_of("<|begin|>")));
  EXPECT_TRUE(tokenizer.is_special(*tokenizer.id_of("<|begin|>")));
  EXPECT_FALSE(tokenizer.is_special(*tokenizer.id_of("<tool_call>")));
}

TEST(Tokenizer, PassesOverIdsThatAreNoToken) {
  const Tokenizer tokenizer = from_json(golden_json("byte_level").dump());
  std::vector<int32_t> ids = tokenizer.encode("fox");
  ids.insert(ids.begin(), {-1, 100000});
  EXPECT_EQ(tokenizer.decode(ids), "fox");
}

TEST(Tokenizer, StreamsStartOverAfterAFlush) {
  const Tokenizer tokenizer = from_json(golden_json("sentence_piece").dump());
  StreamDecoder stream(tokenizer);
  for (int round = 0; round < 2; ++round) {
    std::string text;
    for (const int32_t id : tokenizer.encode("fox €")) text += stream.push(id);
    EXPECT_EQ(text + stream.flush(), "fox €");
  }
}

TEST(Tokenizer, TokenizesAMillionEqualBytesInReasonableTime) {
  for (const char* name : {"byte_level", "sentence_piece"}) {
    const Tokenizer tokenizer = from_json(golden_json(name).dump());
    for (const char c : {'a', ' ', '\n', '='}) {
      const std::string text(1 << 20, c);
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    }
  }
}

struct Refusal {
  const char* path;   // JSON pointer into the byte-level golden
  const char* value;  // JSON to put there
  const char* names;  // what the message must name
};

class RefusedTokenizer : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedTokenizer, IsNamed) {
  json golden = golden_json("byte_level");
  golden[json::json_pointer(GetParam().path)] = json::parse(GetParam().value);
  try {
    from_json(golden.dump());
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(GetParam().names));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Tokenizer, RefusedTokenizer,
    testing::Values(
        Refusal{"/model/type", R"("Unigram")", "'Unigram'"}, Refusal{"/model/type", R"("WordPiece")", "'WordPiece'"},
        Refusal{"/normalizer", R"({"type":"Nmt"})", "'Nmt'"},
        Refusal{"/normalizer", R"({"type":"Sequence","normalizers":[{"type":"Precompiled"}]})", "'Precompiled'"},
        Refusal{"/pre_tokenizer", R"({"type":"UnicodeScripts"})", "'UnicodeScripts'"},
        Refusal{"/pre_tokenizer", R"({"type":"Digits","surprise":1})", "'surprise'"},
        Refusal{"/pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})", "'('"},
        Refusal{"/pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Odd"})", "'Odd'"},
        Refusal{"/decoder", R"({"type":"CTC"})", "'CTC'"}, Refusal{"/post_processor", R"({"type":"Magic"})", "'Magic'"},
        Refusal{"/post_processor/processors/1/special_tokens/<|begin|>/ids", "[9999]", "9999"},
        Refusal{"/surprise", "1", "'surprise'"}, Refusal{"/model/surprise", "1", "'surprise'"},
        Refusal{"/model/dropout", "0.1", "dropout"}, Refusal{"/model/merges/0", R"(["q","nope"])", "'nope'"},
        Refusal{"/model/merges/0", R"("abc")", "'abc'"}, Refusal{"/model/vocab/!", "-1", "'!'"},
        Refusal{"/model/vocab/!", "999999999999", "'!'"}, Refusal{"/model/vocab/!", "5", "id 5"},
        Refusal{"/model/unk_token", R"("nope")", "'nope'"}, Refusal{"/added_tokens/0/id", R"("x")", "'id'"},
        Refusal{"/model", "null", "'model'"}));

TEST(Tokenizer, RefusesDamagedGgufVocabularies) {
  const Vocabulary good = as_gguf(golden_json("byte_level"), "gpt2", "smollm");
  ASSERT_NO_THROW(Tokenizer::from(good));
  const auto refused = [&](auto&& damage, const char* names) {
    Vocabulary vocabulary = good;
    damage(vocabulary);
    try {
      Tokenizer::from(vocabulary);
      ADD_FAILURE() << "was accepted: " << names;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(names));
    }
  };
  refused([](Vocabulary& v) { v.pre = "no-such-rule"; }, "'no-such-rule'");
  refused([](Vocabulary& v) { v.model = "rwkv"; }, "'rwkv'");
  refused([](Vocabulary& v) { v.types.pop_back(); }, "token_type");
  refused([](Vocabulary& v) { v.types[3] = 9; }, "type 9");
  refused([](Vocabulary& v) { v.merges.clear(); }, "merges");
  refused([](Vocabulary& v) { v.merges[0] = "zz9 q"; }, "'zz9'");
  refused([](Vocabulary& v) { v.tokens[5] = "\xff"; }, "token 5");
  refused([](Vocabulary& v) { v.eos = 1000000; }, "eos");
  refused([](Vocabulary& v) { v.add_bos = true; }, "bos_token_id");
  refused([](Vocabulary& v) { v.model = "llama"; }, "scores");
  refused([](Vocabulary& v) { v.tokens.clear(); }, "no tokenizer");
}

}  // namespace
}  // namespace thimble
