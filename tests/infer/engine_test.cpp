#include "infer/engine.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "calls/json.h"
#include "calls/tool.h"
#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "formats/merge.h"
#include "stories.h"
#include "tensor/quantize.h"

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

TokenTable table_of(const Engine& e) {
  TokenTable table;
  for (int32_t id = 0; id < e.tokenizer().vocab_size(); ++id) {
    table.bytes.push_back(e.tokenizer().token_bytes(id));
    table.special.push_back(e.tokenizer().is_special(id));
  }
  table.stop_ids = e.tokenizer().end_ids();
  return table;
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
  for (const KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8}) {
    std::vector<std::vector<int32_t>> alone;
    for (const std::string& text : texts) {
      Engine e = engine({.cache_tokens = 2048, .kv_type = type});
      alone.push_back(one(e, greedy(e, text, 40)).tokens);
    }
    for (const EngineOptions& options :
         {EngineOptions{.cache_tokens = 2048, .max_batch = 16, .chunk = 512, .kv_type = type},
          EngineOptions{.cache_tokens = 2048, .max_batch = 3, .chunk = 5, .kv_type = type}}) {
      for (const int thread_count : {1, 2}) {
        set_threads(thread_count);
        Engine e = engine(options);
        for (const char* state : {"cold", "warm"}) {
          std::vector<GenerateRequest> requests;
          for (const std::string& text : texts) requests.push_back(greedy(e, text, 40));
          const auto answers = e.run(std::move(requests));
          for (size_t i = 0; i < texts.size(); ++i)
            EXPECT_EQ(answers[i].tokens, alone[i]) << texts[i] << ", " << kv_type_name(type) << ", " << state
                                                   << ", chunk " << options.chunk << ", " << thread_count << " threads";
        }
      }
    }
  }
  set_threads(2);
}

// Keys and values that are kept in fewer bits must not say something else: logits of a whole text against f32.
TEST(Engine, StoredKeysAndValuesCostLittleOfTheDistribution) {
  THIMBLE_REQUIRE_STORIES();
  const auto logits = [](KvType type) {
    Engine e = engine({.cache_tokens = 512, .kv_type = type}, MatmulPrecision::kF32);
    const auto tokens = e.tokenizer().encode(
        "Once upon a time there was a little dog. His name was Max. Max liked to play in the park with Tom and Lily. "
        "One day, Max saw a big red ball in the tree. He wanted to play with it, but it was too high.",
        {.add_special = true});
    std::vector<float> all;
    const int vocab = e.model().model().config.vocab;
    e.logits(tokens, 0, [&](int64_t, int64_t rows, const float* values) {
      all.insert(all.end(), values, values + rows * vocab);
    });
    return std::pair(all, static_cast<size_t>(vocab));
  };
  const auto [exact, vocab] = logits(KvType::kF32);
  const auto log_probs = [vocab](const float* row) {
    double sum = 0;
    const double top = *std::max_element(row, row + vocab);
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(row[i] - top);
    std::vector<double> out(row, row + vocab);
    for (double& x : out) x -= top + std::log(sum);
    return out;
  };
  for (const auto& [type, bar] : {std::pair{KvType::kF16, 1e-6}, {KvType::kBF16, 1e-4}, {KvType::kQ8, 2e-3}}) {
    const auto stored = logits(type).first;
    double divergence = 0;
    for (size_t at = 0; at < exact.size(); at += vocab) {
      const auto p = log_probs(exact.data() + at), q = log_probs(stored.data() + at);
      for (size_t i = 0; i < vocab; ++i) divergence += std::exp(p[i]) * (p[i] - q[i]);
    }
    divergence /= static_cast<double>(exact.size() / vocab);
    EXPECT_LT(divergence, bar) << kv_type_name(type);
    EXPECT_GT(divergence, 0) << kv_type_name(type) << ": is it used at all?";
  }
}

TEST(Engine, CallsWhereACallIsAsLikelyAsTheThreshold) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const auto tools = parse_tools(R"([{"name": "stop"}])", "tools");
  const ConstraintSet constraint = ConstraintFactory(table_of(e)).compile(tools);
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

constexpr const char* kTools = R"([{"name": "open_the_door", "parameters": {"type": "object", "properties":
  {"animal": {"type": "string", "enum": ["big_red_dog", "small_cat"]}, "how_many": {"type": "integer"}},
  "required": ["animal", "how_many"], "additionalProperties": false}}, {"name": "stop"}])";

TEST(Engine, SaysTheSameWithAndWithoutSpeculation) {
  THIMBLE_REQUIRE_STORIES();
  const std::string twice = "Lily had a red ball. Tom had a red ball. Lily had a";
  Engine with = engine({.cache_tokens = 2048}), without = engine({.cache_tokens = 2048, .speculate = false});
  const auto tools = parse_tools(kTools, "tools");
  const ConstraintFactory factory(table_of(with));
  const ConstraintSet calls = factory.compile(tools, {.mode = CallMode::kRequired, .most_calls = 2});
  const ConstraintSet free_choice = factory.compile(tools);
  int accepted = 0, forced = 0;
  for (const bool company : {false, true}) {
    for (const float temperature : {0.0f, 0.8f}) {
      const auto requests = [&](const Engine& e) {
        std::vector<GenerateRequest> out;
        for (uint64_t seed = 0; seed < 4; ++seed)
          for (const ConstraintSet* constraint : {static_cast<const ConstraintSet*>(nullptr), &calls, &free_choice}) {
            out.push_back(greedy(e, twice, 60));
            out.back().sampling = {.temperature = temperature, .seed = seed};
            if (seed == 3) {  // what looks back on what was said
              out.back().sampling.repeat_penalty = 1.05f;
              out.back().sampling.frequency_penalty = 0.05f;
              out.back().sampling.dry_multiplier = 0.2f;
              out.back().min_tokens = 20;
            }
            out.back().constraint = constraint;
            out.back().log_probs = true;
            out.back().top_log_probs = 2;
          }
        return out;
      };
      std::vector<Answer> fast, slow;
      if (company) {
        fast = with.run(requests(with));
        slow = without.run(requests(without));
      } else {
        for (GenerateRequest& request : requests(with)) fast.push_back(one(with, std::move(request)));
        for (GenerateRequest& request : requests(without)) slow.push_back(one(without, std::move(request)));
      }
      for (size_t i = 0; i < fast.size(); ++i) {
        EXPECT_EQ(fast[i].tokens, slow[i].tokens) << i << ", temperature " << temperature;
        EXPECT_EQ(fast[i].text, slow[i].text);
        EXPECT_EQ(fast[i].log_probs, slow[i].log_probs);
        EXPECT_EQ(fast[i].top_log_probs, slow[i].top_log_probs);
        EXPECT_EQ(fast[i].top_log_probs.size(), fast[i].log_probs.size());
        EXPECT_EQ(fast[i].forced_tokens, slow[i].forced_tokens);
        EXPECT_EQ(slow[i].drafted_tokens, 0);
        accepted += fast[i].accepted_tokens;
        forced += fast[i].forced_tokens;
      }
    }
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(forced, 100);
  EXPECT_EQ(with.cache().held(), 0);
}

// A small adapter of every linear layer, with values from a seed.
LoraAdapter random_adapter(const Model& model, uint64_t seed, int rank) {
  LoraAdapter adapter;
  adapter.rank = rank;
  adapter.alpha = 2.0f * static_cast<float>(rank);
  Random random(seed);
  for (const Linear& layer : model.linears) {
    if (&layer == model.head) continue;
    LoraModule module{.in = layer.in(), .out = layer.out(), .a = {}, .b = {}};
    for (int64_t i = 0; i < rank * layer.in(); ++i)
      module.a.push_back(static_cast<float>(random.normal() / std::sqrt(static_cast<double>(layer.in()))));
    for (int64_t i = 0; i < rank * layer.out(); ++i) module.b.push_back(static_cast<float>(0.2 * random.normal()));
    adapter.modules.emplace(layer.name, std::move(module));
  }
  return adapter;
}

TEST(Engine, SaysTheSameWithADraftModel) {
  THIMBLE_REQUIRE_STORIES();
  auto small = std::make_shared<PreparedModel>(load_model(test::stories_model()));
  auto other = std::make_shared<PreparedModel>(load_model(test::stories_model()));
  other->add_adapter(random_adapter(other->model(), 3, 4));  // a model that agrees, and one that doesn't
  const Tokenizer tokenizer = Tokenizer::from(small->model().vocabulary);
  const auto answers = [&](std::shared_ptr<const PreparedModel> draft, float temperature) {
    Engine e(other, tokenizer, {.cache_tokens = 1024, .draft = std::move(draft)});
    std::vector<GenerateRequest> requests;
    for (int i = 0; i < 6; ++i) {
      requests.push_back(greedy(e, "Once upon a time, Tom", 30));
      requests.back().adapter = i % 2;
      requests.back().sampling = {.temperature = temperature, .seed = static_cast<uint64_t>(i)};
    }
    return e.run(std::move(requests));
  };
  for (const float temperature : {0.0f, 1.0f}) {
    const auto with = answers(small, temperature), without = answers(nullptr, temperature);
    int drafted = 0, accepted = 0;
    for (size_t i = 0; i < with.size(); ++i) {
      EXPECT_EQ(with[i].tokens, without[i].tokens) << i;
      drafted += with[i].drafted_tokens;
      accepted += with[i].accepted_tokens;
    }
    EXPECT_GT(accepted, 0);
    EXPECT_LT(accepted, drafted);
  }
}

TEST(Engine, RefusesADraftModelOfAnotherVocabulary) {
  THIMBLE_REQUIRE_STORIES();
  auto prepared = model();
  Vocabulary other;
  other.model = "llama";
  other.tokens = {"<unk>", "<s>", "</s>", "a"};
  other.scores = {0, 0, 0, 0};
  other.types = {2, 3, 3, 1};
  EXPECT_NO_THROW(DraftModel(prepared, Tokenizer::from(prepared->model().vocabulary), 64));
  EXPECT_THROW(DraftModel(prepared, Tokenizer::from(other), 64), Error);
}

TEST(Engine, WritesForcedTextInTheTokenizersOwnTokens) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const auto tools = parse_tools(R"([{"name": "stop", "parameters": {"type": "object", "properties": {},
                                      "additionalProperties": false}}])", "tools");
  const ConstraintSet set =
      ConstraintFactory(table_of(e)).compile(tools, {.mode = CallMode::kRequired, .most_calls = 1});
  GenerateRequest request = greedy(e, "Once upon a time", 100);
  request.constraint = &set;
  const Answer a = one(e, std::move(request));
  EXPECT_EQ(a.finish, FinishReason::kStop);
  EXPECT_TRUE(a.text.starts_with("<tool_call>\n{\"name\": \"stop\"")) << a.text;
  // The vocabulary puts a space in front of a text; in the middle of one there is none.
  const auto whole = e.tokenizer().encode("\n" + a.text);
  ASSERT_GE(whole.size(), a.tokens.size());
  EXPECT_TRUE(std::equal(a.tokens.begin(), a.tokens.begin() + 10, whole.end() - static_cast<int>(a.tokens.size())));
  EXPECT_GE(a.forced_tokens, static_cast<int>(a.tokens.size()) - 2);
}

// Every token that the model chose is the likeliest of those that the constraint allows there, though the engine looked
// at all of those in few places only.
TEST(Engine, ChoosesWhatTheMaskAllowsAndSeldomMakesIt) {
  THIMBLE_REQUIRE_STORIES();
  const Json schema = parse_json(R"({"type": "object", "additionalProperties": false, "required": ["story", "names"],
    "properties": {"story": {"type": "string", "maxLength": 150},
                   "names": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 20}}}})",
                                 "schema");
  Engine e = engine();
  const int32_t vocab = e.model().model().config.vocab;
  const ConstraintSet set =
      ConstraintFactory(table_of(e)).compile({}, {.mode = CallMode::kForbidden, .text_schema = &schema});
  for (const bool log_probs : {false, true}) {
    GenerateRequest request = greedy(e, "Once upon a time", 160);
    request.constraint = &set;
    request.log_probs = log_probs;
    std::vector<int32_t> text = request.prompt;
    const Answer a = one(e, std::move(request));
    const auto constraint = set.start();
    std::vector<uint32_t> allowed((table_of(e).bytes.size() + 31) / 32);
    int chosen = 0, likeliest = 0;
    for (size_t i = 0; i < a.tokens.size(); ++i) {
      if (constraint->forced().empty()) {
        std::vector<float> row;
        e.logits(text, 0, [&](int64_t, int64_t, const float* values) { row.assign(values, values + vocab); },
                 static_cast<int64_t>(text.size()) - 1);
        constraint->mask(allowed);
        EXPECT_EQ(argmax(row, allowed), a.tokens[i]) << i << " of " << a.text;
        const float log_prob = row[static_cast<size_t>(a.tokens[i])] - log_sum_exp(row, allowed);
        if (log_probs) EXPECT_NEAR(a.log_probs[i], log_prob, 1e-4);
        ++chosen;
        likeliest += argmax(row) == a.tokens[i] ? 1 : 0;
      }
      ASSERT_TRUE(constraint->accept(a.tokens[i]));
      text.push_back(a.tokens[i]);
    }
    EXPECT_GT(chosen, 40) << a.text;
    EXPECT_LT(likeliest, chosen) << "the constraint forbade nothing";
    const int forced = static_cast<int>(a.tokens.size()) - chosen;
    if (log_probs) EXPECT_GE(a.masks, chosen);
    else EXPECT_LE(a.masks, chosen - likeliest + forced + 1) << a.text;
  }
}

TEST(Engine, AnswersForSeveralAdaptersInOneBatch) {
  THIMBLE_REQUIRE_STORIES();
  auto prepared = std::make_shared<PreparedModel>(load_model(test::stories_model()));
  ASSERT_EQ(prepared->add_adapter(random_adapter(prepared->model(), 1, 4)), 1);
  ASSERT_EQ(prepared->add_adapter(random_adapter(prepared->model(), 2, 8)), 2);
  const Tokenizer tokenizer = Tokenizer::from(prepared->model().vocabulary);
  const auto request = [&](const Engine& e, int adapter) {
    GenerateRequest out = greedy(e, "Once upon a time, Tom", 24);
    out.adapter = adapter;
    return out;
  };
  std::vector<std::vector<int32_t>> alone;
  for (int adapter = 0; adapter < 3; ++adapter) {
    Engine e(prepared, tokenizer, {.cache_tokens = 1024});
    alone.push_back(one(e, request(e, adapter)).tokens);
  }
  EXPECT_NE(alone[0], alone[1]);
  EXPECT_NE(alone[1], alone[2]);
  Engine e(prepared, tokenizer, {.cache_tokens = 1024});
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 9; ++i) requests.push_back(request(e, (i * 2) % 3));
  const auto answers = e.run(std::move(requests));
  for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].tokens, alone[(i * 2) % 3]) << i;
}

// PEFT adapts the output head as any linear layer; a head that is tied to the embeddings is merged into its own copy.
TEST(Engine, AnswersWithAnAdaptedHeadAsTheMergedModelDoes) {
  THIMBLE_REQUIRE_STORIES();
  const ModelFile file = open_model(test::stories_model());
  const auto adapted = PreparedModel::taking(build_model(file), MatmulPrecision::kF32);
  const Linear& head = *adapted->model().head;
  LoraAdapter adapter{.rank = 2, .alpha = 4};
  LoraModule module{.in = head.in(), .out = head.out(), .a = {}, .b = {}};
  Random random(8);
  for (int64_t i = 0; i < 2 * head.in(); ++i) module.a.push_back(0.2f * static_cast<float>(random.normal()));
  for (int64_t i = 0; i < 2 * head.out(); ++i) module.b.push_back(static_cast<float>(random.normal()));
  adapter.modules.emplace("lm_head", std::move(module));
  const auto folder = std::filesystem::path(testing::TempDir()) / fmt::format("head_{}", ::getpid());
  merge_to_safetensors(file, adapter, folder, DType::kF32);
  const auto merged = std::make_shared<PreparedModel>(load_model(folder), MatmulPrecision::kF32);
  std::filesystem::remove_all(folder);
  ASSERT_EQ(adapted->add_adapter(adapter), 1);
  const Tokenizer tokenizer = Tokenizer::from(adapted->model().vocabulary);
  const auto answer = [&](const std::shared_ptr<const PreparedModel>& model, int number) {
    Engine e(model, tokenizer, {.cache_tokens = 1024});
    GenerateRequest request = greedy(e, "Once upon a time, Tom", 24);
    request.adapter = number;
    request.log_probs = true;
    return one(e, std::move(request));
  };
  const Answer expected = answer(merged, 0), got = answer(adapted, 1);
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_NE(got.tokens, answer(adapted, 0).tokens);
  ASSERT_EQ(got.log_probs.size(), expected.log_probs.size());
  for (size_t i = 0; i < got.log_probs.size(); ++i) EXPECT_NEAR(got.log_probs[i], expected.log_probs[i], 1e-4) << i;
}

// DoRA's magnitudes, applied beside the packed weights, against weights that they were merged into.
TEST(Engine, AnswersWithDoraAsTheMergedModelDoes) {
  THIMBLE_REQUIRE_STORIES();
  const ModelFile file = open_model(test::stories_model());
  LoraAdapter dora = random_adapter(*build_model(file), 4, 4);
  dora.dora = true;
  Random random(5);
  for (auto& [name, module] : dora.modules) {
    const Buffer<float> weight = dequantize(file.tensors.at(name + ".weight"));
    for (int64_t o = 0; o < module.out; ++o) {
      double square = 0;
      for (int64_t i = 0; i < module.in; ++i)
        square += std::pow(static_cast<double>(weight[static_cast<size_t>(o * module.in + i)]), 2);
      module.magnitude.push_back(static_cast<float>(std::sqrt(square) * (1 + 0.3 * random.normal())));
    }
  }
  const auto folder = std::filesystem::path(testing::TempDir()) / fmt::format("dora_{}", ::getpid());
  merge_to_safetensors(file, dora, folder, DType::kF32);
  const auto merged = std::make_shared<PreparedModel>(load_model(folder), MatmulPrecision::kF32);
  std::filesystem::remove_all(folder);
  const auto adapted = PreparedModel::taking(build_model(file), MatmulPrecision::kF32);
  adapted->add_adapter(random_adapter(adapted->model(), 1, 4));
  adapted->add_adapter(dora);

  const Tokenizer tokenizer = Tokenizer::from(merged->model().vocabulary);
  Engine expected(merged, tokenizer, {.cache_tokens = 1024}), e(adapted, tokenizer, {.cache_tokens = 1024});
  const Answer want = one(expected, greedy(expected, "Once upon a time, Tom", 32));
  std::vector<GenerateRequest> requests;
  for (const int adapter : {0, 2, 1, 2}) {
    requests.push_back(greedy(e, "Once upon a time, Tom", 32));
    requests.back().adapter = adapter;
  }
  const auto answers = e.run(std::move(requests));
  EXPECT_EQ(answers[1].tokens, want.tokens);
  EXPECT_EQ(answers[3].tokens, want.tokens);
  EXPECT_NE(answers[0].tokens, want.tokens);
  EXPECT_NE(answers[2].tokens, want.tokens);
}

TEST(Engine, ComputesThePromptOfSeveralAnswersOnce) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  GenerateRequest request = greedy(e, "One day, Tom went to the park with his mom and saw a red ball. He", 12);
  request.sampling = {.temperature = 1, .seed = 7};
  const auto ids = e.submit(request, 4);
  while (e.step()) {
  }
  std::vector<Answer> answers;
  for (const auto id : ids) answers.push_back(*e.take(id));
  EXPECT_EQ(answers[0].cached_tokens, 0);
  for (size_t i = 1; i < answers.size(); ++i) EXPECT_EQ(answers[i].cached_tokens, answers[i].prompt_tokens - 1);
  EXPECT_NE(answers[0].tokens, answers[1].tokens);
  request.sampling.seed = 9;
  EXPECT_EQ(one(e, request).tokens, answers[2].tokens);
}

TEST(Engine, LetsClientsTakeTurns) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 2048, .max_batch = 2});
  std::vector<Engine::Id> greedy_client;
  for (int i = 0; i < 10; ++i) {
    greedy_client.push_back(e.submit(greedy(e, "Tom number " + std::to_string(i), 8)));
  }
  GenerateRequest request = greedy(e, "Lily", 8);
  request.client = 1;
  const auto other = e.submit(std::move(request));
  int done_before = 0;
  while (e.step()) {
    if (e.take(other)) break;
    for (const auto id : greedy_client) done_before += e.take(id) ? 1 : 0;
  }
  EXPECT_LE(done_before, 2);  // those that ran when it came
}

TEST(Engine, AnswersAShortPromptBesideALongOne) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 2048, .max_batch = 4, .chunk = 32, .busy_chunk = 16, .speculate = false});
  std::string story;
  for (int i = 0; i < 30; ++i) story += " Tom saw a red ball and a dog number " + std::to_string(i) + ".";
  GenerateRequest long_request = greedy(e, story, 4);
  ASSERT_GT(long_request.prompt.size(), 300u);
  long_request.prompt.resize(300);
  const auto slow = e.submit(std::move(long_request));
  e.step();
  const auto quick = e.submit(greedy(e, "Lily", 4));
  for (int steps = 0; steps < 6; ++steps) e.step();
  EXPECT_TRUE(e.take(quick));
  EXPECT_FALSE(e.take(slow));
}

TEST(Engine, LosesNothingWhereThousandsAreQueuedAndCancelled) {
  THIMBLE_REQUIRE_STORIES();
  const char* asked = std::getenv("THIMBLE_STRESS_REQUESTS");
  const int count = asked == nullptr ? 500 : std::atoi(asked);
  Engine e = engine({.cache_tokens = 256, .max_batch = 8, .chunk = 32, .busy_chunk = 16});
  const auto tools = parse_tools(kTools, "tools");
  const ConstraintSet calls = ConstraintFactory(table_of(e)).compile(tools);
  const std::vector<std::string> beginnings = {"Once upon a time", "Once upon a time there was a dog", "Lily", "The"};
  Random random(11);
  std::vector<Engine::Id> open;
  std::map<Engine::Id, int> finished;
  for (int submitted = 0; submitted < count || !open.empty();) {
    for (uint64_t i = random.below(8); i > 0 && submitted < count; --i, ++submitted) {
      GenerateRequest request = greedy(e, beginnings[random.below(4)], 1 + static_cast<int>(random.below(24)));
      request.sampling = {.temperature = random.below(2) == 0 ? 0.0f : 1.0f, .seed = random.next()};
      request.client = static_cast<int64_t>(random.below(3));
      if (random.below(4) == 0) request.constraint = &calls;
      if (random.below(8) == 0) request.on_text = [](std::string_view, const Answer&) { return false; };
      open.push_back(e.submit(std::move(request)));
    }
    for (uint64_t i = random.below(3); i > 0 && !open.empty(); --i) e.cancel(open[random.below(open.size())]);
    e.step();
    std::erase_if(open, [&](const auto id) {
      const bool done = e.take(id).has_value();
      if (done) ++finished[id];
      return done;
    });
  }
  EXPECT_EQ(finished.size(), static_cast<size_t>(count));
  EXPECT_EQ(e.cache().held(), 0);
  EXPECT_LE(e.cache().used(), 256);
  EXPECT_FALSE(e.step());
}

TEST(Engine, SamplesTheSameForTheSameSeedAloneAndInCompany) {
  THIMBLE_REQUIRE_STORIES();
  const auto request = [](const Engine& e, uint64_t seed) {
    GenerateRequest r = greedy(e, "Once upon a time", 40);
    r.sampling = {.temperature = 1, .top_k = 100, .top_p = 0.95f, .repeat_penalty = 1.1f, .dry_multiplier = 0.8f};
    r.sampling.seed = seed;
    return r;
  };
  Engine e = engine();
  std::vector<GenerateRequest> requests;
  for (const uint64_t seed : {1, 2, 1}) requests.push_back(request(e, seed));
  const auto answers = e.run(std::move(requests));
  EXPECT_EQ(answers[0].tokens, answers[2].tokens);
  EXPECT_NE(answers[0].tokens, answers[1].tokens);
  EXPECT_EQ(one(e, request(e, 1)).tokens, answers[0].tokens);
}

TEST(Engine, PenaltiesLookBackOnPromptAndAnswer) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  const Answer free = one(e, greedy(e, "Once upon a time", 60));
  GenerateRequest request = greedy(e, "Once upon a time", 60);
  // Any token but those that prompt and answer hold: none comes twice.
  request.sampling.repeat_penalty = 100;
  request.sampling.repeat_window = 0;
  std::vector<int32_t> tokens = request.prompt;
  const Answer varied = one(e, std::move(request));
  const auto twice = [](std::vector<int32_t> t) {
    std::sort(t.begin(), t.end());
    return std::adjacent_find(t.begin(), t.end()) != t.end();
  };
  EXPECT_TRUE(twice(free.tokens));
  tokens.insert(tokens.end(), varied.tokens.begin(), varied.tokens.end());
  EXPECT_FALSE(twice(tokens)) << varied.text;
}

TEST(Engine, EndsNotBeforeTheFewestTokens) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  GenerateRequest request = greedy(e, "Once upon a time", 30);
  for (const int32_t end : e.tokenizer().end_ids()) request.sampling.logit_bias.push_back({end, 100});
  EXPECT_TRUE(one(e, request).tokens.empty());
  request.min_tokens = 12;
  const Answer a = one(e, request);
  EXPECT_EQ(a.tokens.size(), 12u);
  EXPECT_EQ(a.finish, FinishReason::kStop);
  request.min_tokens = 31;
  EXPECT_THROW(e.submit(request), Error);
}

TEST(Engine, GivesTheLikeliestTokensOfEachPlace) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine();
  GenerateRequest request = greedy(e, "Once upon a time", 8);
  request.top_log_probs = 5;
  const Answer a = one(e, request);
  ASSERT_EQ(a.log_probs.size(), a.tokens.size());
  ASSERT_EQ(a.top_log_probs.size(), a.tokens.size());
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    ASSERT_EQ(a.top_log_probs[i].size(), 5u);
    EXPECT_EQ(a.top_log_probs[i].front().token, a.tokens[i]);
    EXPECT_EQ(a.top_log_probs[i].front().log_prob, a.log_probs[i]);
  }
  // A bias changes what is said, not what the model thinks of it.
  request.max_tokens = 1;
  const int32_t second = a.top_log_probs[0][1].token;
  request.sampling.logit_bias = {{second, 50}};
  const Answer biased = one(e, request);
  EXPECT_EQ(biased.tokens.front(), second);
  EXPECT_NEAR(biased.log_probs.front(), a.top_log_probs[0][1].log_prob, 1e-6);
  request.top_log_probs = 21;
  EXPECT_THROW(e.submit(request), Error);
  request.top_log_probs = 0;
  request.sampling.logit_bias = {{e.model().model().config.vocab, 1}};
  EXPECT_THROW(e.submit(request), Error);
}

TEST(Engine, NeedsItsFileNoMoreOnceItIsLoaded) {
  THIMBLE_REQUIRE_STORIES();
  namespace fs = std::filesystem;
  const fs::path copy = fs::temp_directory_path() / fmt::format("thimble_engine_test_{}", ::getpid());
  fs::copy(test::stories_model(), copy, fs::copy_options::recursive);
  auto prepared = PreparedModel::taking(load_model(copy));
  for (const auto& file : fs::directory_iterator(copy)) fs::resize_file(file, 0);
  Engine e(prepared, Tokenizer::from(prepared->model().vocabulary), {.cache_tokens = 512});
  Engine other = engine();
  EXPECT_EQ(one(e, greedy(e, "Once upon a time", 40)).tokens, one(other, greedy(other, "Once upon a time", 40)).tokens);
  fs::remove_all(copy);
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
  request.on_text = [&](std::string_view piece, const Answer&) {
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
  request.on_text = [&](std::string_view, const Answer&) { return ++pieces < 3; };
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

TEST(Engine, CutsAPromptThatIsTooLongOnTheSideThatIsNamed) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine({.cache_tokens = 32});
  GenerateRequest request = greedy(e, "", 8);
  for (int32_t i = 0; i < 40; ++i) request.prompt.push_back(300 + i);
  const std::vector<int32_t> whole = request.prompt;  // 41, the first one begins a text
  ASSERT_EQ(e.tokenizer().bos(), whole.front());
  EXPECT_THROW(e.submit(request), Error);
  const auto answer_to = [&](Overlong overlong) {
    GenerateRequest cut = request;
    cut.overlong = overlong;
    return one(e, std::move(cut));
  };
  std::vector<int32_t> start = {whole.front()}, end(whole.begin(), whole.begin() + 24);
  start.insert(start.end(), whole.end() - 23, whole.end());
  for (const auto& [overlong, kept] : {std::pair{Overlong::kCutStart, start}, std::pair{Overlong::kCutEnd, end}}) {
    const Answer a = answer_to(overlong);
    EXPECT_EQ(a.prompt_tokens, 24);
    EXPECT_EQ(a.cut_tokens, 17);
    GenerateRequest plain = request;
    plain.prompt = kept;
    EXPECT_EQ(a.tokens, one(e, std::move(plain)).tokens);
  }
  GenerateRequest fits = greedy(e, "Lily", 8);
  fits.overlong = Overlong::kCutStart;
  EXPECT_EQ(one(e, std::move(fits)).cut_tokens, 0);
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
