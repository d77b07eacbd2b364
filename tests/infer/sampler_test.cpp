#include "infer/sampler.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "calls/json.h"
#include "core/atomic_file.h"
#include "core/cpu.h"
#include "test_data.h"

namespace thimble {
namespace {

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, -1.0f, 2.0f};

class SamplerTest : public ::testing::Test {
 protected:
  void TearDown() override { force_cpu(cpu_detected()); }
};

std::vector<float> random_logits(size_t count, uint64_t seed, float spread = 2) {
  Random random(seed);
  std::vector<float> logits(count);
  for (float& v : logits) v = spread * random.normal();
  return logits;
}

// Every way through sample(): with and without filters, biases and penalties.
std::vector<SamplingOptions> ways() {
  return {
      {.temperature = 1},
      {.temperature = 1.7f},
      {.temperature = 0.4f, .top_k = 50},
      {.temperature = 1, .top_k = 500, .top_p = 0.8f, .min_p = 0.01f, .typical = 0.9f},
      {.temperature = 1.3f, .top_p = 0.6f},
      {.temperature = 1, .min_p = 0.02f},
      {.temperature = 0.8f, .typical = 0.7f},
      {.temperature = 1, .top_p = 0.9f, .repeat_penalty = 1.5f, .presence_penalty = 1, .frequency_penalty = 0.5f},
      {.temperature = 1, .dry_multiplier = 2, .dry_allowed_length = 1, .logit_bias = {{3, 5}, {800, 6}}},
  };
}

// --- What is drawn from, against transformers and plain references (tests/oracle/make_sampler_goldens.py)

SamplingOptions read_options(const Json& o) {
  SamplingOptions out{.temperature = 1};
  const std::map<std::string, float SamplingOptions::*> reals = {
      {"temperature", &SamplingOptions::temperature},
      {"top_p", &SamplingOptions::top_p},
      {"min_p", &SamplingOptions::min_p},
      {"typical", &SamplingOptions::typical},
      {"repeat_penalty", &SamplingOptions::repeat_penalty},
      {"presence_penalty", &SamplingOptions::presence_penalty},
      {"frequency_penalty", &SamplingOptions::frequency_penalty},
      {"dry_multiplier", &SamplingOptions::dry_multiplier},
      {"dry_base", &SamplingOptions::dry_base},
  };
  const std::map<std::string, int SamplingOptions::*> wholes = {
      {"top_k", &SamplingOptions::top_k},
      {"repeat_window", &SamplingOptions::repeat_window},
      {"dry_allowed_length", &SamplingOptions::dry_allowed_length},
      {"dry_window", &SamplingOptions::dry_window},
  };
  for (const auto& [key, value] : o.items()) {
    if (const auto real = reals.find(key); real != reals.end())
      out.*real->second = value.get<float>();
    else if (const auto whole = wholes.find(key); whole != wholes.end())
      out.*whole->second = value.get<int>();
    else if (key == "logit_bias")
      for (const auto& [token, bias] : value.items()) out.logit_bias.push_back({std::stoi(token), bias.get<float>()});
    else
      EXPECT_TRUE(key == "allowed" || key == "breakers") << key;
  }
  return out;
}

// The goldens' breakers are lists of tokens; token 12 is written "<12>".
SequenceBreakers read_breakers(const Json& o, size_t vocab) {
  auto bytes = std::make_shared<std::vector<std::string>>();
  for (size_t i = 0; i < vocab; ++i) bytes->push_back(fmt::format("<{}>", i));
  std::vector<std::string> texts;
  for (const Json& tokens : o.value("breakers", Json::array())) {
    texts.emplace_back();
    for (const size_t token : tokens) texts.back() += bytes->at(token);
  }
  return {[bytes](int32_t token) -> std::string_view { return bytes->at(static_cast<size_t>(token)); }, texts};
}

std::vector<uint32_t> mask_of(const Json& tokens, size_t vocab) {
  if (tokens.is_null()) return {};
  std::vector<uint32_t> mask((vocab + 31) / 32);
  for (const uint32_t token : tokens) mask[token / 32] |= 1u << (token % 32);
  return mask;
}

TEST_F(SamplerTest, DrawsFromTheDistributionsOfIndependentImplementations) {
  const Json golden = parse_json(read_file(test::golden("infer/sampler.json")), "sampler.json");
  ASSERT_GT(golden["cases"].size(), 200u);
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const Json& c : golden["cases"]) {
      SCOPED_TRACE(c["options"].dump() + ", row " + c["row"].dump() + ", history " + c["history"].dump());
      const std::vector<float> logits = golden["rows"][c["row"].get<size_t>()];
      const Json& history = golden["histories"][c["history"].get<size_t>()];
      const SamplingOptions options = read_options(c["options"]);
      Sampler sampler(options, read_breakers(c["options"], logits.size()));
      sampler.prime(history[0].get<std::vector<int32_t>>());
      for (const int32_t token : history[1]) sampler.accept(token);
      auto found = sampler.distribution(logits, mask_of(c["options"].value("allowed", Json()), logits.size()));
      std::sort(found.begin(), found.end(), [](const TokenProbability& a, const TokenProbability& b) {
        return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
      });
      double mean = 0;
      for (const TokenProbability& t : found) mean += t.token * t.probability;
      std::erase_if(found, [](const TokenProbability& t) { return t.probability <= 1e-9; });
      const Json& expected = c["expected"];
      // Adjusted logits are floats, so probabilities follow to about 1e-6, more at a low temperature.
      const double limit = 5e-6 / std::min(1.0f, options.temperature);
      EXPECT_EQ(found.size(), expected["tokens"].get<size_t>());
      EXPECT_NEAR(mean, expected["mean_id"].get<double>(), 100 * limit);
      ASSERT_GE(found.size(), expected["likeliest"].size());
      for (size_t i = 0; i < expected["likeliest"].size(); ++i) {
        EXPECT_EQ(found[i].token, expected["likeliest"][i][0].get<int32_t>()) << i;
        const double probability = expected["likeliest"][i][1];
        EXPECT_NEAR(found[i].probability, probability, limit * probability) << i;
      }
    }
  }
}

// --- That it is drawn from

TEST_F(SamplerTest, DrawsAsOftenAsTheDistributionSays) {
  const std::vector<float> logits = random_logits(1000, 5, 1.5f);
  for (const CpuLevel level : {CpuLevel::kPlain, cpu_detected()}) {
    force_cpu(level);
    for (const SamplingOptions& options : ways()) {
      for (const bool masked : {false, true}) {
        SamplingOptions seeded = options;
        seeded.seed = 4;
        Sampler sampler(seeded);
        sampler.prime(std::vector<int32_t>{1, 2, 3, 4, 1, 2});
        for (const int32_t token : {3, 4, 1, 2}) sampler.accept(token);
        const std::vector<uint32_t> mask = masked ? std::vector<uint32_t>(32, 0x5b5b5b5bu) : std::vector<uint32_t>{};
        const auto expected = sampler.distribution(logits, mask);
        std::map<int32_t, int> counts;
        constexpr int kDraws = 5000;
        for (int i = 0; i < kDraws; ++i) ++counts[sampler.sample(logits, mask)];
        // Pearson's chi-squared; what is rare goes into one cell.
        double chi = 0, rare = 0;
        int cells = 0, rare_count = 0, seen = 0;
        for (const TokenProbability& t : expected) {
          const double wanted = t.probability * kDraws;
          const int count = counts.contains(t.token) ? counts[t.token] : 0;
          seen += count;
          if (wanted < 5) {
            rare += wanted;
            rare_count += count;
            continue;
          }
          chi += (count - wanted) * (count - wanted) / wanted;
          ++cells;
        }
        if (rare > 5) chi += (rare_count - rare) * (rare_count - rare) / rare, ++cells;
        EXPECT_EQ(seen, kDraws) << "a token outside the distribution was drawn";
        ASSERT_GT(cells, 5);
        // Four standard deviations above the mean: p about 1e-4 for each, and the seed is fixed.
        EXPECT_LT(chi, cells - 1 + 4 * std::sqrt(2.0 * (cells - 1)))
            << "temperature " << options.temperature << ", " << cells << " cells, masked " << masked;
      }
    }
  }
}

// --- Where the mask is made only if need be

std::function<bool(int32_t)> asks(const std::vector<uint32_t>& mask) {
  return [&mask](int32_t token) { return is_allowed(mask, token); };
}

TEST_F(SamplerTest, ChoosesAsWithTheMaskAndMakesItWhereItMust) {
  const std::vector<float> logits = random_logits(1000, 5, 1.5f);
  std::vector<float> broken(1000, NAN);
  const std::vector<uint32_t> mask(32, 0x5b5b5b5au), none(32, 0u);
  std::vector<SamplingOptions> all = ways();
  all.push_back({});
  all.push_back({.repeat_penalty = 1.5f, .logit_bias = {{7, 4}, {9, 5}}});
  for (SamplingOptions options : all) {
    SCOPED_TRACE(options.temperature);
    options.seed = 8;
    Sampler sampler(options);
    sampler.prime(std::vector<int32_t>{1, 2, 3, 4, 1, 2});
    const auto expected = sampler.distribution(logits, mask);
    std::map<int32_t, int> counts;
    int made = 0;
    constexpr int kDraws = 5000;
    for (int i = 0; i < kDraws; ++i)
      ++counts[sampler.sample(logits, asks(mask), [&] { return ++made, std::span<const uint32_t>(mask); })];
    double chi = 0, rare = 0;
    int cells = 0, rare_count = 0, seen = 0;
    for (const TokenProbability& t : expected) {
      const double wanted = t.probability * kDraws;
      seen += counts[t.token];
      if (wanted < 5) rare += wanted, rare_count += counts[t.token];
      else chi += (counts[t.token] - wanted) * (counts[t.token] - wanted) / wanted, ++cells;
    }
    if (rare > 5) chi += (rare_count - rare) * (rare_count - rare) / rare, ++cells;
    EXPECT_EQ(seen, kDraws) << "a token that is not allowed";
    EXPECT_LE(chi, cells - 1 + 4 * std::sqrt(2.0 * (cells - 1))) << cells << " cells";
    if (options.temperature > 0 && options.filters()) EXPECT_EQ(made, kDraws);
    else EXPECT_LT(made, kDraws / 2);
    EXPECT_TRUE(is_allowed(mask, sampler.sample(broken, asks(mask), [&] { return std::span<const uint32_t>(mask); })));
    EXPECT_EQ(sampler.sample(logits, asks(none), [&] { return std::span<const uint32_t>(none); }), -1);
  }
}

TEST_F(SamplerTest, GreedyNeedsNoMaskWhereALikelyTokenIsAllowed) {
  const std::vector<uint32_t> first = {0b00010u}, second = {0b10000u};
  int made = 0;
  const auto ask = [&](const std::vector<uint32_t>& mask) {
    return Sampler({}).sample(kLogits, asks(mask), [&] { return ++made, std::span<const uint32_t>(mask); });
  };
  EXPECT_EQ(ask(first), 1);
  EXPECT_EQ(ask(second), 4);
  EXPECT_EQ(made, 0);
  std::vector<float> falling(1000);
  for (size_t i = 0; i < falling.size(); ++i) falling[i] = -static_cast<float>(i);
  std::vector<uint32_t> late(32);
  late[5] = late[7] = 1;
  EXPECT_EQ(Sampler({}).sample(falling, asks(late), [&] { return ++made, std::span<const uint32_t>(late); }), 160);
  EXPECT_EQ(made, 1);
}

TEST_F(SamplerTest, DrawsOneNumberATokenAndNoneWhenGreedy) {
  const std::vector<float> flat(700, 0.5f), broken(700, NAN), logits = random_logits(700, 1);
  std::vector<uint32_t> single(22);
  single[3] = 1;
  std::vector<SamplingOptions> all = ways();
  all.push_back({.temperature = 1, .top_k = 1});
  for (SamplingOptions options : all) {
    for (const float temperature : {options.temperature, 0.0f}) {
      options.temperature = temperature;
      options.logit_bias.clear();  // of tokens that these rows lack
      options.seed = 21;
      Sampler sampler(options);
      Random expected(21);
      for (const auto* row : {&flat, &broken, &logits, &logits}) {
        for (const auto& mask : {std::vector<uint32_t>{}, single}) {
          const int32_t token = sampler.sample(*row, mask);
          EXPECT_TRUE(mask.empty() || token == 96) << token;
          sampler.accept(token);
          if (temperature > 0) expected.uniform();
          EXPECT_EQ(sampler.random().state(), expected.state());
        }
      }
      sampler.take_back(3);
      sampler.distribution(logits, {});
      EXPECT_EQ(sampler.random().state(), expected.state());
    }
  }
}

TEST_F(SamplerTest, SaysTheSameAfterTokensWereTakenBack) {
  const std::vector<float> logits = random_logits(900, 8);
  for (SamplingOptions options : ways()) {
    options.seed = 3;
    Sampler straight(options), detour(options);
    for (int i = 0; i < 60; ++i) {
      detour.accept(5);
      detour.accept(i % 900);
      detour.take_back(2);
      const int32_t token = straight.sample(logits, {});
      EXPECT_EQ(detour.sample(logits, {}), token);
      straight.accept(token);
      detour.accept(token);
    }
  }
}

TEST_F(SamplerTest, TheSameSeedGivesTheSameTokens) {
  Sampler a({.temperature = 1, .seed = 11}), b({.temperature = 1, .seed = 11}), c({.temperature = 1, .seed = 12});
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t token = a.sample(kLogits, {});
    EXPECT_EQ(token, b.sample(kLogits, {}));
    different += token != c.sample(kLogits, {});
  }
  EXPECT_GT(different, 0);
}

// --- Greedy

TEST_F(SamplerTest, GreedyTakesTheFirstOfTheMostLikely) { EXPECT_EQ(Sampler({}).sample(kLogits, {}), 1); }

TEST_F(SamplerTest, GreedyObeysTheMask) {
  const std::vector<uint32_t> allowed = {0b01101u};
  EXPECT_EQ(Sampler({}).sample(kLogits, allowed), 2);
}

TEST_F(SamplerTest, GreedyIsBiasedAndPenalized) {
  EXPECT_EQ(Sampler({.logit_bias = {{3, 3.5f}}}).sample(kLogits, {}), 3);
  EXPECT_EQ(Sampler({.logit_bias = {{1, -100}}}).sample(kLogits, {}), 4);
  for (const SamplingOptions& options : {SamplingOptions{.repeat_penalty = 2.5f},
                                         {.presence_penalty = 1.5f},
                                         {.frequency_penalty = 0.8f},
                                         {.dry_multiplier = 1, .dry_allowed_length = 1}}) {
    Sampler sampler(options);
    sampler.prime(std::vector<int32_t>{1, 4, 1});
    for (const int32_t token : {4, 1, 4, 1, 4}) sampler.accept(token);
    const int32_t next = sampler.sample(kLogits, {});
    // DRY minds only the 1, which would go on with 1 4 1 4.
    EXPECT_EQ(next, options.dry_multiplier > 0 ? 4 : 2);
  }
}

TEST_F(SamplerTest, GreedyIgnoresFilters) {
  EXPECT_EQ(Sampler({.top_k = 1, .top_p = 0.1f, .min_p = 1, .typical = 0.01f}).sample(kLogits, {}), 1);
}

TEST_F(SamplerTest, PresenceAndFrequencyCountTheAnswerAlone) {
  Sampler sampler({.presence_penalty = 2, .frequency_penalty = 2});
  sampler.prime(std::vector<int32_t>{1, 1, 1, 4});
  EXPECT_EQ(sampler.sample(kLogits, {}), 1);
  sampler.accept(1);
  EXPECT_EQ(sampler.sample(kLogits, {}), 4);
  sampler.take_back(1);
  EXPECT_EQ(sampler.sample(kLogits, {}), 1);
}

// --- Corners

TEST_F(SamplerTest, SurvivesBrokenAndExtremeLogits) {
  std::vector<float> infinite = random_logits(600, 2), sparse(600, -INFINITY), huge = random_logits(600, 3, 1e30f);
  infinite[300] = INFINITY;
  sparse[555] = -3;
  const std::vector<float> broken(600, NAN), nothing(600, -INFINITY);
  for (SamplingOptions options : ways()) {
    options.logit_bias.clear();
    Sampler sampler(options);
    EXPECT_EQ(sampler.sample(infinite, {}), 300);
    EXPECT_EQ(sampler.sample(sparse, {}), 555);
    EXPECT_EQ(sampler.sample(broken, {}), 0);
    EXPECT_EQ(sampler.sample(nothing, {}), 0);
    EXPECT_EQ(sampler.sample(huge, {}), std::max_element(huge.begin(), huge.end()) - huge.begin());
  }
  for (const float temperature : {1e-40f, 1e-20f, 1e-3f})
    EXPECT_EQ(Sampler({.temperature = temperature}).sample({sparse.data() + 1, 599}, {}), 554);
}

TEST_F(SamplerTest, ForbidLeavesAtLeastOneToken) {
  const std::vector<int32_t> ends = {0, 33, 34};
  std::vector<uint32_t> mask;
  forbid(mask, 35, ends);
  EXPECT_EQ(mask, (std::vector<uint32_t>{~1u, 1u}));
  mask = {1u, 2u};
  forbid(mask, 35, ends);
  EXPECT_EQ(mask, (std::vector<uint32_t>{1u, 2u})) << "an answer that must end may end";
  mask = {3u, 0xfffffff8u};  // bits past the vocabulary are no tokens
  forbid(mask, 35, ends);
  EXPECT_EQ(mask[0], 2u);
}

}  // namespace
}  // namespace thimble
