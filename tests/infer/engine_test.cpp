#include "infer/engine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "calls/tool.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "stories.h"

namespace thimble {
namespace {

// The real 260 K-parameter model: small enough that every test may load it.
std::shared_ptr<const PreparedModel> model(MatmulPrecision precision = MatmulPrecision::kFast) {
  return std::make_shared<PreparedModel>(load_model(test::stories_model()), precision);
}

Engine engine(const EngineOptions& options = {.cache_tokens = 2048},
              MatmulPrecision precision = MatmulPrecision::kFast) {
  auto prepared = model(precision);
  return Engine(prepared, Tokenizer::from(prepared->model().vocabulary), options);
}

GenerateRequest greedy(const Engine& e, const std::string& text, int tokens) {
  GenerateRequest request;
  request.prompt = e.tokenizer().encode(text, {.add_special = true});
  request.max_tokens = tokens;
  return request;
}

Answer one(Engine& e, GenerateRequest request) {
  std::vector<GenerateRequest> requests;
  requests.push_back(std::move(request));
  return std::move(e.run(std::move(requests)).front());
}

TEST(Engine, WritesTheDocumentedStory) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 512}, MatmulPrecision::kF32);
  const Answer a = one(e, greedy(e, "", 60));
  EXPECT_EQ(a.text.substr(0, a.text.find(". One day") + 1),
            "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
}

// Decision 7: the same request gives the same answer, alone or in company, cold or warm, in one chunk or many, with
// one thread or two.
TEST(Engine, AnswersTheSameAloneAndInCompany) {
  THIMBLE_REQUIRE_STORIES();
  const std::vector<std::string> texts = {"Once upon a time", "Once upon a time there was a dog", "Lily", "The big",
                                          "One day, Tom went to the park with his mom and saw a red ball. He"};
  std::vector<std::vector<int32_t>> alone;
  for (const std::string& text : texts) {
    Engine e = engine();
    alone.push_back(one(e, greedy(e, text, 40)).tokens);
  }
  for (const EngineOptions& options : {EngineOptions{.cache_tokens = 2048, .max_batch = 16, .chunk = 512},
                                       EngineOptions{.cache_tokens = 2048, .max_batch = 3, .chunk = 5}}) {
    for (const int thread_count : {1, 2}) {
      set_threads(thread_count);
      Engine e = engine(options);
      for (const char* state : {"cold", "warm"}) {
        std::vector<GenerateRequest> requests;
        for (const std::string& text : texts) requests.push_back(greedy(e, text, 40));
        const auto answers = e.run(std::move(requests));
        for (size_t i = 0; i < texts.size(); ++i)
          EXPECT_EQ(answers[i].tokens, alone[i])
              << texts[i] << ", " << state << ", chunk " << options.chunk << ", " << thread_count << " threads";
      }
    }
  }
  set_threads(2);
}

TEST(Engine, CallsWhereACallIsAsLikelyAsTheThreshold) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  TokenTable table;
  for (int32_t id = 0; id < e.tokenizer().vocab_size(); ++id) table.bytes.push_back(e.tokenizer().token_bytes(id));
  table.stop_ids = e.tokenizer().end_ids();
  const auto tools = parse_tools(R"([{"name": "stop"}])", "tools");
  const ConstraintSet constraint = ConstraintFactory(table).compile(tools);
  const auto ask = [&](std::optional<double> threshold) {
    GenerateRequest request = greedy(e, "Once upon a time", 24);
    request.constraint = &constraint;
    request.call_threshold = threshold;
    request.log_probs = true;
    return one(e, std::move(request));
  };
  const Answer free = ask(std::nullopt);
  ASSERT_TRUE(free.call_probability);
  const double p = *free.call_probability;
  EXPECT_GT(p, 0);
  EXPECT_LT(p, 0.5);  // it was taught stories
  EXPECT_NE(free.text.front(), '<');
  EXPECT_EQ(ask(p * 0.99).text.front(), '<');  // how it goes on is the model's choice, and text may begin so too
  EXPECT_EQ(ask(0).text.front(), '<');
  EXPECT_EQ(ask(p * 1.01).text, free.text);
  const Answer forced = ask(0);
  ASSERT_GE(forced.log_probs.size(), forced.tokens.size());
  for (const float log_prob : forced.log_probs) EXPECT_LE(log_prob, 1e-6f);
  EXPECT_EQ(ask(2).text, free.text);
}

TEST(Engine, ReadsASharedBeginningOnce) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const std::string shared = "One day, Tom went to the park with his mom and saw a red ball. He wanted to play";
  const Answer first = one(e, greedy(e, shared + " with it", 4));
  const Answer second = one(e, greedy(e, shared + " in the sun", 4));
  EXPECT_EQ(first.cached_tokens, 0);
  EXPECT_GT(second.cached_tokens, second.prompt_tokens / 2);
}

TEST(Engine, EndsBeforeAStopStringThatSpansTokens) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const std::string whole = one(e, greedy(e, "Once upon a time", 60)).text;
  const std::string stop = whole.substr(20, 9);
  GenerateRequest request = greedy(e, "Once upon a time", 60);
  request.stop = {"never said", stop};
  std::string streamed;
  request.on_text = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  const Answer a = one(e, std::move(request));
  EXPECT_EQ(a.text, whole.substr(0, whole.find(stop)));
  EXPECT_EQ(streamed, a.text);
  EXPECT_EQ(a.finish, FinishReason::kStop);
}

TEST(Engine, StopsWhenTheListenerHasHeardEnough) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  GenerateRequest request = greedy(e, "Once upon a time", 60);
  int pieces = 0;
  request.on_text = [&](std::string_view) { return ++pieces < 3; };
  EXPECT_EQ(one(e, std::move(request)).finish, FinishReason::kCancelled);
  EXPECT_EQ(pieces, 3);
}

TEST(Engine, KeepsAnswersInsideTheCacheAndQueuesTheRest) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 64, .max_batch = 8, .chunk = 16});
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) requests.push_back(greedy(e, "Tom number " + std::to_string(i), 20));
  const auto answers = e.run(std::move(requests));
  ASSERT_EQ(answers.size(), 12u);
  for (const Answer& a : answers) EXPECT_FALSE(a.tokens.empty());
  EXPECT_LE(e.cache().used(), 64);
}

TEST(Engine, RefusesAPromptThatDoesNotFitWithBothNumbers) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 32});
  GenerateRequest request;
  request.prompt.assign(40, 5);
  try {
    e.submit(std::move(request));
    FAIL() << "was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("40"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("31"), std::string::npos) << error.what();
  }
  EXPECT_THROW(e.submit(GenerateRequest{}), Error);
}

TEST(Engine, LogitsOfAllPositionsDecideWhatGreedySays) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const Answer a = one(e, greedy(e, "Once upon a time", 12));
  auto tokens = e.tokenizer().encode("Once upon a time", {.add_special = true});
  const size_t prompt = tokens.size();
  tokens.insert(tokens.end(), a.tokens.begin(), a.tokens.end());
  std::vector<int32_t> best;
  const int vocab = e.model().model().config.vocab;
  e.logits(tokens, 0, [&](int64_t, int64_t rows, const float* values) {
    for (int64_t r = 0; r < rows; ++r)
      best.push_back(
          static_cast<int32_t>(std::max_element(values + r * vocab, values + (r + 1) * vocab) - (values + r * vocab)));
  });
  ASSERT_EQ(best.size(), tokens.size());
  for (size_t i = 0; i < a.tokens.size(); ++i) EXPECT_EQ(best[prompt + i - 1], a.tokens[i]) << i;
}

}  // namespace
}  // namespace thimble
