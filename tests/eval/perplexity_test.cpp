#include "eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/thread_pool.h"
#include "formats/temporary_folder.h"
#include "formats/tiny_model.h"
#include "stories.h"

namespace thimble {
namespace {

using test::error_of;
using ::testing::HasSubstr;

Engine engine(MatmulPrecision precision = MatmulPrecision::kF32, int64_t cache = 64) {
  auto prepared = std::make_shared<PreparedModel>(load_model(test::stories_model()), precision);
  return Engine(prepared, Tokenizer::from(prepared->model().vocabulary), {.cache_tokens = cache});
}

std::string story() {
  std::string text;
  for (const char* who : {"Lily", "Tom", "the big dog", "her mom", "a little bird"})
    text += std::string("Once upon a time, there was ") + who + ". One day they went to the park and saw a red ball. " +
            "\"Look,\" said " + who + ", \"what a nice day!\" They played until it was dark, and then all went home.\n";
  return text;
}

// What llama-perplexity does, position by position.
double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return std::log(sum) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

TEST(Perplexity, ScoresTheSecondHalfOfEveryChunkBehindBos) {
  THIMBLE_REQUIRE_STORIES();
  for (const int64_t context : {16, 33}) {
    Engine e = engine();
    const auto tokens = e.tokenizer().encode(story(), {.add_special = true});
    ASSERT_EQ(tokens.front(), *e.tokenizer().bos());
    double sum = 0, squares = 0;
    int count = 0;
    const auto n = static_cast<int64_t>(tokens.size()) / context;
    ASSERT_GE(n, 3);
    for (int64_t c = 0; c < n; ++c) {
      std::vector<int32_t> chunk(tokens.begin() + c * context, tokens.begin() + (c + 1) * context);
      chunk[0] = *e.tokenizer().bos();
      std::vector<float> all;
      e.logits(chunk, 0, [&](int64_t, int64_t rows, const float* logits) {
        all.insert(all.end(), logits, logits + rows * 512);
      });
      for (int64_t i = context / 2; i + 1 < context; ++i, ++count) {
        const double nll = negative_log_likelihood(std::span(all).subspan(static_cast<size_t>(i * 512), 512),
                                                   chunk[static_cast<size_t>(i + 1)]);
        sum += nll;
        squares += nll * nll;
      }
    }
    const double mean = sum / count, value = std::exp(mean);
    const double error = std::sqrt((squares / count - mean * mean) / (count - 1)) * value;
    const Perplexity found = measure_perplexity(e, 0, story(), {.context = context});
    EXPECT_EQ(found.scored, count);
    EXPECT_EQ(found.chunks, n);
    EXPECT_NEAR(found.perplexity.value, value, 1e-4 * value);
    EXPECT_NEAR(found.perplexity.error, error, 1e-4 * error);
    EXPECT_GT(value, 1.5);
    EXPECT_LT(value, 20) << "the model knows such stories";
  }
}

TEST(Perplexity, IsTheSameOnAnyNumberOfThreads) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine(MatmulPrecision::kFast);
  set_threads(1);
  const Perplexity one = measure_perplexity(e, 0, story(), {.context = 32});
  set_threads(2);
  EXPECT_EQ(measure_perplexity(e, 0, story(), {.context = 32}).perplexity.value, one.perplexity.value);
}

TEST(Perplexity, CutsTextIntoWholeChunksAndReadsControlTokensAsText) {
  THIMBLE_REQUIRE_STORIES();
  const Engine e = engine();
  const auto cut = [&](const std::string& text, int64_t context, int64_t chunks = 0) {
    return chunk_text(e.tokenizer(), 64, text, {.context = context, .chunks = chunks});
  };
  const TextChunks all = cut(story(), 20);
  EXPECT_EQ(all.text_chunks, all.text_tokens / 20);
  EXPECT_EQ(all.count(), all.text_chunks);
  for (int64_t i = 0; i < all.count(); ++i) EXPECT_EQ(all.chunk(i)[0], *e.tokenizer().bos());
  EXPECT_EQ(all.scored_in_chunk(), 9);
  EXPECT_EQ(cut(story(), 20, 3).count(), 3);
  EXPECT_EQ(cut(story(), 20, 3).text_chunks, all.text_chunks);
  EXPECT_EQ(cut(story(), 20, 1000).count(), all.count());
  EXPECT_EQ(cut(story() + "\n", 20).text_tokens, all.text_tokens + 1) << "one newline at the end goes, not two";
  const TextChunks control = cut("<s>" + story(), 20);
  for (int64_t i = 0; i < control.count(); ++i)
    for (size_t k = 1; k < 20; ++k) EXPECT_NE(control.chunk(i)[k], *e.tokenizer().bos());
}

TEST(Perplexity, RefusesShortTextsAndLongChunks) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  EXPECT_THAT(error_of([&] { measure_perplexity(e, 0, "Once upon a time", {.context = 16}); }),
              HasSubstr("two chunks of 16 need 32"));
  EXPECT_THAT(error_of([&] { measure_perplexity(e, 0, "", {.context = 16}); }), HasSubstr("two chunks of 16 need 32"));
  EXPECT_THAT(error_of([&] { measure_perplexity(e, 0, story(), {.context = 65}); }), HasSubstr("context is 64"));
  EXPECT_THAT(error_of([&] { measure_perplexity(e, 0, story(), {.context = 3}); }), HasSubstr("the least is 4"));
}

TEST(Divergence, IsTheFormulasForKnownLogits) {
  const std::vector<float> p = {0.0f, std::log(3.0f)}, q = {2.0f, 2.0f};
  const TokenComparison c = compare_token(p, q, 1);
  EXPECT_NEAR(c.kl, 0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75), 1e-6);
  EXPECT_NEAR(c.model.nll, -std::log(0.75), 1e-6);
  EXPECT_NEAR(c.reference.nll, -std::log(0.5), 1e-6);
  EXPECT_EQ(c.model.top, 1);
  EXPECT_EQ(c.reference.top, 0);
  const std::vector<float> sure = {0.0f, 300.0f, -300.0f};
  EXPECT_EQ(compare_token(sure, sure, 1).kl, 0);
  EXPECT_NEAR(score_token(sure, 0).nll, 300, 1e-4);
}

TEST(Divergence, EstimatesCarryTheirStandardErrors) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(mean(values).value, 2.5);
  EXPECT_DOUBLE_EQ(mean(values).error, std::sqrt(1.25 / 3));
  EXPECT_DOUBLE_EQ(exp_of_mean(values).value, std::exp(2.5));
  EXPECT_DOUBLE_EQ(exp_of_mean(values).error, std::exp(2.5) * std::sqrt(1.25 / 3));
}

TEST(Divergence, OfAModelFromItselfIsNothing) {
  THIMBLE_REQUIRE_STORIES();
  Engine a = engine(), b = engine();
  const Divergence d = measure_divergence(a, 0, b, story(), {.context = 32});
  EXPECT_EQ(d.kl.value, 0);
  EXPECT_EQ(d.kl.error, 0);
  EXPECT_EQ(d.same_top.value, 1);
  EXPECT_EQ(d.ratio.value, 1);
  EXPECT_EQ(d.ratio.error, 0);
  EXPECT_EQ(d.model.perplexity.value, measure_perplexity(a, 0, story(), {.context = 32}).perplexity.value);
}

TEST(Divergence, OfTheFastPathIsSmallAndSeen) {
  THIMBLE_REQUIRE_STORIES();
  Engine fast = engine(MatmulPrecision::kFast), exact = engine(MatmulPrecision::kF32);
  const Divergence d = measure_divergence(fast, 0, exact, story(), {.context = 32});
  EXPECT_GT(d.kl.value, 0);
  EXPECT_LT(d.kl.value, 0.01);
  EXPECT_GT(d.kl.error, 0);
  EXPECT_GT(d.same_top.value, 0.9);
  EXPECT_NEAR(d.ratio.value, d.model.perplexity.value / d.reference.perplexity.value, 1e-9);
  EXPECT_LT(d.ratio.error, d.model.perplexity.error) << "both read the same text";
}

TEST(Divergence, RefusesModelsWithOtherTokens) {
  THIMBLE_REQUIRE_STORIES();
  Engine stories = engine();
  const Tokenizer tokenizer = stories.tokenizer();

  const test::TemporaryFolder folder;
  test::write_tiny_folder(folder / "tiny");
  Engine small(std::make_shared<PreparedModel>(load_model(folder / "tiny")), tokenizer, {.cache_tokens = 64});
  EXPECT_THAT(error_of([&] { measure_divergence(stories, 0, small, story(), {.context = 32}); }),
              HasSubstr("a vocabulary of 512 tokens, the reference one of 40"));

  Vocabulary letters;
  letters.model = "gpt2";
  letters.pre = "smollm";
  letters.tokens = {"a", "b", "ab"};
  letters.types = {1, 1, 1};
  letters.merges = {"a b"};
  Engine other(std::make_shared<PreparedModel>(load_model(test::stories_model())), Tokenizer::from(letters),
               {.cache_tokens = 64});
  std::string text;
  for (int i = 0; i < 200; ++i) text += "ab";
  EXPECT_THAT(error_of([&] { measure_divergence(stories, 0, other, text, {.context = 32}); }),
              HasSubstr("cut the text into tokens differently"));
}

TEST(Perplexity, RefusesModelsWhoseLogitsAreNotFinite) {
  THIMBLE_REQUIRE_STORIES();
  const Engine stories = engine();
  const test::TemporaryFolder folder;
  auto weights = test::tiny_weights();
  for (TensorSource& weight : weights)
    if (weight.name == "model.norm.weight")
      weight.produce = [](const WriteBytes& write) {
        const std::vector<float> values(64, std::numeric_limits<float>::quiet_NaN());
        write(values.data(), values.size() * sizeof(float));
      };
  std::string config = test::kTinyConfig;
  config.replace(config.find("\"vocab_size\": 40"), 16, "\"vocab_size\": 512");
  for (TensorSource& weight : weights) {
    if (weight.name != "model.embed_tokens.weight") continue;
    weight.shape = {512, 64};
    weight.produce = [](const WriteBytes& write) {
      const std::vector<float> values(512 * 64, 0.1f);
      write(values.data(), values.size() * sizeof(float));
    };
  }
  std::filesystem::create_directories(folder / "broken");
  write_file(folder / "broken" / "config.json", config);
  write_safetensors(folder / "broken" / "model.safetensors", weights);
  Engine broken(std::make_shared<PreparedModel>(load_model(folder / "broken")), stories.tokenizer(),
                {.cache_tokens = 64});
  EXPECT_THAT(error_of([&] { measure_perplexity(broken, 0, story(), {.context = 32}); }),
              HasSubstr("not finite in chunk 1"));
}

}  // namespace
}  // namespace thimble
