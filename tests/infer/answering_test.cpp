#include "infer/answering.h"

#include <gtest/gtest.h>

#include "calls/json.h"
#include "models/model.h"
#include "stories.h"

namespace thimble {
namespace {

TokenTable table_of(const Tokenizer& tokenizer) {
  TokenTable table;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    table.bytes.push_back(tokenizer.token_bytes(id));
    table.special.push_back(tokenizer.is_special(id));
  }
  table.stop_ids = tokenizer.end_ids();
  return table;
}

TEST(Answering, GuessesTheTokenWithWhichForcedTextEnds) {
  THIMBLE_REQUIRE_STORIES();
  const auto model = load_model(test::stories_model());
  const Tokenizer tokenizer = Tokenizer::from(model->vocabulary);
  const Json schema = parse_json(R"({"type": "object", "additionalProperties": false, "required": ["size"],
                                     "properties": {"size": {"enum": ["big", "small"]}}})",
                                 "schema");
  const ConstraintSet set =
      ConstraintFactory(table_of(tokenizer)).compile({}, {.mode = CallMode::kForbidden, .text_schema = &schema});
  const auto begun = [&](const ConstraintSet* constraint, int max_tokens) {
    GenerateRequest request;
    request.prompt = tokenizer.encode("Lily had a", {.add_special = true});
    request.constraint = constraint;
    request.max_tokens = max_tokens;
    auto answering = std::make_unique<Answering>(std::move(request), tokenizer, model->config.vocab);
    answering->begin();
    return answering;
  };
  SpeculationOdds odds;
  const auto answering = begun(&set, 40);
  const auto guess = answering->go_on(odds, 1);
  ASSERT_EQ(guess.tokens.size(), 1u);
  EXPECT_EQ(guess.source, SpeculationOdds::kForcedText);
  EXPECT_EQ(answering->answer().text + std::string(tokenizer.token_bytes(guess.tokens[0])), R"({"size": ")");
  EXPECT_EQ(answering->look_up(odds, 1).tokens, guess.tokens);

  // The model chooses it: then comes its own choice, of which there is nothing to guess.
  std::vector<float> logits(static_cast<size_t>(model->config.vocab));
  logits[static_cast<size_t>(guess.tokens[0])] = 9;
  answering->decide(logits);
  EXPECT_EQ(answering->answer().text, R"({"size": ")");
  EXPECT_TRUE(answering->go_on(odds, 1).tokens.empty());

  EXPECT_TRUE(begun(nullptr, 40)->go_on(odds, 1).tokens.empty());
  const int said = static_cast<int>(begun(&set, 40)->answer().tokens.size());
  EXPECT_TRUE(begun(&set, said + 1)->go_on(odds, 1).tokens.empty()) << "the last token is decided, not guessed";
  for (int i = 0; i < 30; ++i) odds.learn(SpeculationOdds::kForcedText, 1, 0);
  EXPECT_TRUE(begun(&set, 40)->go_on(odds, 1).tokens.empty()) << "it was always wrong";
}

}  // namespace
}  // namespace thimble
