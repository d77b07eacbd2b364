#include "infer/benchmark.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "stories.h"

namespace thimble {
namespace {

Engine engine(int64_t cache_tokens, int batch) {
  auto prepared = std::make_shared<PreparedModel>(load_model(test::stories_model()));
  return Engine(prepared, Tokenizer::from(prepared->model().vocabulary),
                {.cache_tokens = cache_tokens, .max_batch = batch});
}

TEST(ModelWork, CountsWhatATokenReadsAndMultiplies) {
  THIMBLE_REQUIRE_STORIES();
  const PreparedModel model(load_model(test::stories_model()));
  const ModelConfig& c = model.model().config;
  const ModelWork work = work_of(model, 100);
  const double q = double{1} * c.heads * c.head_dim, kv = double{1} * c.kv_heads * c.head_dim;
  EXPECT_EQ(work.layer_parameters, c.layers * (2 * c.hidden * q + 2 * c.hidden * kv + 3.0 * c.hidden * c.ffn));
  EXPECT_EQ(work.head_parameters, double{1} * c.vocab * c.hidden);
  EXPECT_GE(work.weight_bytes, 2 * (work.layer_parameters + work.head_parameters));  // f16 at least

  EXPECT_EQ(prefill_work(work, 10).operations, 2 * (10 * work.layer_parameters + work.head_parameters));
  // Two steps after 5 positions see 6 and 7.
  const Work decode = decode_work(work, 3, 5, 2);
  EXPECT_EQ(decode.bytes, 2 * work.weight_bytes + 3 * 13 * 100);
  EXPECT_EQ(decode.operations, 2 * 3 * 2 * (work.layer_parameters + work.head_parameters));
}

TEST(Benchmark, SharesAreOfTheNarrowerLimit) {
  BenchmarkResult result{{BenchmarkKind::kDecode, 11, 0, 1}, {5, 10, 20}, {1e9, 2e9}, 10};  // one second at the median
  const MachinePeaks peaks{.int8_gops = 10, .bf16_gops = 2, .f32_gops = 1, .read_gbytes = 4};
  EXPECT_EQ(share_of_limit(result, Arithmetic::kInt8, peaks).limit, "read bandwidth");
  EXPECT_DOUBLE_EQ(share_of_limit(result, Arithmetic::kInt8, peaks).share, 0.5);
  result.work.bytes = 0;
  EXPECT_EQ(share_of_limit(result, Arithmetic::kBF16, peaks).limit, "bf16");
  EXPECT_DOUBLE_EQ(share_of_limit(result, Arithmetic::kBF16, peaks).share, 0.5);
}

TEST(Benchmark, MedianIsTheMiddle) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(median({7}), 7);
}

TEST(Benchmark, MeasuresEveryTestOnceARound) {
  THIMBLE_REQUIRE_STORIES();
  const std::vector<BenchmarkTest> tests = {{BenchmarkKind::kPrefill, 40, 0, 1},
                                            {BenchmarkKind::kDecode, 5, 0, 1},
                                            {BenchmarkKind::kDepth, 5, 60, 1},
                                            {BenchmarkKind::kBatch, 5, 0, 4}};
  EXPECT_EQ(benchmark_context(tests), 66);
  Engine e = engine(benchmark_room(tests), 4);
  Benchmark benchmark(e, 0, tests);
  benchmark.warm_up();
  for (int round = 0; round < 3; ++round) benchmark.run_tests();
  ASSERT_EQ(benchmark.results().size(), tests.size());
  for (const BenchmarkResult& result : benchmark.results()) {
    EXPECT_EQ(result.rates.size(), 3u);
    for (const double rate : result.rates) EXPECT_GT(rate, 0) << benchmark_name(result.test.kind);
  }
  EXPECT_EQ(benchmark.limits().int8_gops, 0) << "not measured yet";
}

TEST(Benchmark, RefusesWhatIsLongerThanTheContext) {
  THIMBLE_REQUIRE_STORIES();
  Engine e = engine(100000, 1);
  EXPECT_THROW(Benchmark(e, 0, {{BenchmarkKind::kDepth, 8, 50000, 1}}), Error);
  EXPECT_THROW(Benchmark(e, 0, {{BenchmarkKind::kPrefill, 50000, 0, 1}}), Error);
}

}  // namespace
}  // namespace thimble
