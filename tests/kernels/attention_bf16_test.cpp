#include "kernels/attention_bf16.h"

#include <gtest/gtest.h>

#include "attention_reference.h"
#include "core/thread_pool.h"
#include "kernels/unpack_bf16.h"
#include "tensor/half.h"

namespace thimble {
namespace {

using test::relative_difference;

std::vector<uint16_t> rounded(std::span<const float> values) {
  std::vector<uint16_t> out(values.size());
  round_bf16(values.data(), static_cast<int64_t>(values.size()), 1, out.data());
  return out;
}
float as_bf16(float x) { return bf16_to_f32(rounded({&x, 1})[0]); }

struct Result {
  std::vector<float> out, lse, dq, dk, dv;
  bool operator==(const Result&) const = default;
};
Result run(const test::AttentionCase& c, const std::vector<float>& q, const std::vector<float>& k,
           const std::vector<float>& v, const std::vector<float>& dout) {
  const AttentionTiles tiles(c.plan, static_cast<int64_t>(k.size()) / (c.shape.kv_heads * c.shape.head_dim));
  const auto q16 = rounded(q), k16 = rounded(k), v16 = rounded(v);
  const AttentionInputs in{q16.data(), k16.data(), v16.data()};
  Result r{std::vector<float>(q.size(), 1.0f), std::vector<float>(q.size() / static_cast<size_t>(c.shape.head_dim)),
           std::vector<float>(q.size(), 1.0f), std::vector<float>(k.size(), 1.0f), std::vector<float>(k.size(), 1.0f)};
  attention_bf16_forward(tiles, in, c.shape, r.out.data(), r.lse.data());
  attention_bf16_backward(tiles, in, c.shape, r.out.data(), r.lse.data(), dout.data(), r.dq.data(), r.dk.data(),
                          r.dv.data());
  return r;
}

bool here() { return has_attention_bf16({.heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 1}); }

TEST(AttentionBf16, MatchesTheDefinitionForEveryKindOfPlan) {
  if (!here()) GTEST_SKIP() << "this machine has no AVX-512 BF16";
  Random random(6);
  for (const test::AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    const test::AttentionReference ref(c, random, as_bf16);
    const Result r = run(c, ref.q, ref.k, ref.v, ref.dout);
    const auto difference = [](const std::vector<float>& a, const std::vector<float>& b) {
      return relative_difference(a.data(), b.data(), static_cast<int64_t>(a.size()));
    };
    EXPECT_LT(difference(r.lse, ref.lse), 1e-5);
    EXPECT_LT(difference(r.out, ref.out), 3e-3);  // probabilities of 8 bits
    EXPECT_LT(difference(r.dq, ref.dq), 6e-3);
    EXPECT_LT(difference(r.dk, ref.dk), 6e-3);
    EXPECT_LT(difference(r.dv, ref.dv), 4e-3);
  }
}

TEST(AttentionBf16, ThreadsChangeNothing) {
  if (!here()) GTEST_SKIP() << "this machine has no AVX-512 BF16";
  Random random(7);
  const int before = threads().size();
  for (const test::AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    const test::AttentionReference ref(c, random);
    set_threads(1);
    const Result one = run(c, ref.q, ref.k, ref.v, ref.dout);
    for (const int count : {2, 3}) {
      set_threads(count);
      EXPECT_TRUE(run(c, ref.q, ref.k, ref.v, ref.dout) == one);
    }
  }
  set_threads(before);
}

// A row's result, and so its loss, doesn't depend on what is packed before it.
TEST(AttentionBf16, RowsBesideARowChangeNothing) {
  if (!here()) GTEST_SKIP() << "this machine has no AVX-512 BF16";
  Random random(8);
  const auto alone = test::make_case("Alone", {test::rows(101)}, 4, 2, 32);
  const test::AttentionReference ref(alone, random);
  const Result expected = run(alone, ref.q, ref.k, ref.v, ref.dout);
  for (const int32_t others : {1, 30, 77}) {
    const auto packed = test::make_case("Packed", {test::rows(others), test::rows(101)}, 4, 2, 32);
    test::AttentionReference both(packed, random);
    const auto put = [](const std::vector<float>& from, std::vector<float>& to) {
      std::copy(from.begin(), from.end(), to.end() - static_cast<int64_t>(from.size()));
    };
    put(ref.q, both.q), put(ref.k, both.k), put(ref.v, both.v), put(ref.dout, both.dout);
    const Result r = run(packed, both.q, both.k, both.v, both.dout);
    const auto last = [&](const std::vector<float>& of, size_t count) {
      return std::vector<float>(of.end() - static_cast<int64_t>(count), of.end());
    };
    EXPECT_TRUE(last(r.out, expected.out.size()) == expected.out);
    EXPECT_TRUE(last(r.lse, expected.lse.size()) == expected.lse);
    EXPECT_TRUE(last(r.dq, expected.dq.size()) == expected.dq);
  }
}

// Every pair that the plan names is in one tile, and nothing else is.
TEST(AttentionTiles, HoldEveryPairOnce) {
  for (const test::AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    const int64_t rows = c.plan.rows();
    std::vector<int> expected(static_cast<size_t>(rows * rows)), found(expected.size());
    test::for_pairs(c.plan, [&](int64_t q, int64_t k) { ++expected[static_cast<size_t>(q * rows + k)]; });
    const AttentionTiles tiles(c.plan, rows);
    for (const AttentionTiles::Tile& tile : tiles.tiles)
      for (int half = 0; half < 2; ++half)
        for (int key = tile.key_first[half]; key < tile.key_last[half]; ++key)
          for (int lane = half * 32; lane < half * 32 + 32; ++lane) {
            if (tile.masks >= 0 &&
                (tiles.masks[static_cast<size_t>(tile.masks)][static_cast<size_t>(key)] >> lane & 1) == 0)
              continue;
            const int64_t q = tile.query_block * 64 + lane;
            const int64_t k = tiles.key_blocks[static_cast<size_t>(tile.key_block)].first + key;
            ASSERT_LT(key, tiles.key_blocks[static_cast<size_t>(tile.key_block)].count);
            ASSERT_LT(q, rows);
            ++found[static_cast<size_t>(q * rows + k)];
          }
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace thimble
