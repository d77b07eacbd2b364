#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "core/cpu.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/kv_store.h"
#include "kernels/rotate_heads.h"
#include "tensor/half.h"

namespace thimble {
namespace {

std::vector<float> normals(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = random.normal();
  return values;
}

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8};

// What a head's elements are after they were stored. Keys of 8 bits are rounded while they are turned.
std::vector<float> rounded(KvType type, const float* x, int head_dim, bool key) {
  std::vector<float> out(x, x + head_dim);
  if (key && type == KvType::kQ8) rotate_heads(out.data(), 1, head_dim);
  float largest = 0;
  for (const float v : out) largest = std::max(largest, std::abs(v));
  for (float& v : out) {
    if (type == KvType::kF16) v = f16_to_f32(f32_to_f16(v));
    if (type == KvType::kBF16) v = bf16_to_f32(f32_to_bf16(v));
    if (type == KvType::kQ8) v = largest == 0 ? 0 : std::nearbyint(v * (127 / largest)) * (largest / 127);
  }
  if (key && type == KvType::kQ8) rotate_heads(out.data(), 1, head_dim);
  return out;
}

// Random keys and values of `positions` positions, kept in slots that slot_of names, and what they are after rounding.
struct Storage {
  KvLayout layout;
  std::vector<float> keys, values;  // [positions][width]
  std::vector<std::byte> key_bytes, value_bytes;

  Storage(KvType type, int64_t positions, const AttentionShape& shape,
          const std::function<int32_t(int32_t)>& slot_of = [](int32_t p) { return p; }, int64_t slots = 0)
      : layout{type, shape.kv_heads, shape.head_dim} {
    const int64_t width = this->width();
    keys = normals(positions * width, 1);
    values = normals(positions * width, 2);
    std::vector<int32_t> order;
    for (int32_t p = 0; p < positions; ++p) order.push_back(slot_of(p));
    const size_t bytes = layout.bytes(std::max(slots, positions));
    key_bytes.resize(bytes, std::byte{0xff});  // NaN, but of q8: nobody may use what was never stored
    value_bytes.resize(bytes, std::byte{0xff});
    store_keys(layout, keys.data(), positions, order.data(), key_bytes.data());
    store_values(layout, values.data(), positions, order.data(), value_bytes.data());
    for (auto* list : {&keys, &values})
      for (size_t at = 0; at < list->size(); at += static_cast<size_t>(shape.head_dim)) {
        const auto stored = rounded(type, list->data() + at, shape.head_dim, list == &keys);
        std::copy(stored.begin(), stored.end(), list->begin() + static_cast<std::ptrdiff_t>(at));
      }
  }
  int64_t width() const { return int64_t{layout.kv_heads} * layout.head_dim; }
  KeyValueView view() const { return KeyValueCache{layout, key_bytes.data(), value_bytes.data()}; }
  KeyValueView rows() const { return KeyValueRows{keys.data(), values.data(), width()}; }
};

struct Result {
  std::vector<float> out, lse;
};

Result run(const std::vector<float>& q, const KeyValueView& kv, const AttentionPlan& plan,
           const AttentionShape& shape) {
  Result result{std::vector<float>(static_cast<size_t>(plan.rows() * shape.heads * shape.head_dim), NAN),
                std::vector<float>(static_cast<size_t>(plan.rows() * shape.heads), NAN)};
  attention_forward(q.data(), kv, plan, shape, result.out.data(), result.lse.data());
  return result;
}

// By the definition, in double precision.
Result reference(const std::vector<float>& q, const Storage& kv, const AttentionPlan& plan,
                 const AttentionShape& shape) {
  Result result{std::vector<float>(q.size()), std::vector<float>(static_cast<size_t>(plan.rows() * shape.heads))};
  const int64_t dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  for (const AttentionSegment& segment : plan.segments) {
    std::vector<int32_t> slots;
    for (const KeyRange& range : segment.ancestors)
      for (int32_t i = 0; i < range.count; ++i) slots.push_back(range.first + i);
    EXPECT_EQ(static_cast<int32_t>(slots.size()), segment.position);
    for (int32_t i = 0; i < segment.query_count; ++i) {
      slots.push_back(segment.key_first + i);
      const size_t first =
          plan.window > 0 ? static_cast<size_t>(std::max(0, segment.position + i - plan.window + 1)) : 0;
      for (int h = 0; h < shape.heads; ++h) {
        const int64_t head = (segment.query_first + i) * shape.heads + h;
        std::vector<double> weights(slots.size());
        double top = -1e300, total = 0;
        for (size_t s = first; s < slots.size(); ++s) {
          double dot = 0;
          for (int64_t d = 0; d < dim; ++d)
            dot += static_cast<double>(q[static_cast<size_t>(head * dim + d)]) *
                   kv.keys[static_cast<size_t>(slots[s] * kv.width() + h / group * dim + d)];
          weights[s] = dot * shape.scale;
          top = std::max(top, weights[s]);
        }
        for (size_t s = first; s < slots.size(); ++s) total += weights[s] = std::exp(weights[s] - top);
        result.lse[static_cast<size_t>(head)] = static_cast<float>(top + std::log(total));
        for (int64_t d = 0; d < dim; ++d) {
          double sum = 0;
          for (size_t s = first; s < slots.size(); ++s)
            sum += weights[s] * kv.values[static_cast<size_t>(slots[s] * kv.width() + h / group * dim + d)];
          result.out[static_cast<size_t>(head * dim + d)] = static_cast<float>(sum / total);
        }
      }
    }
  }
  return result;
}

void expect_near(const Result& result, const Result& expected, const std::string& what) {
  const auto near = [&](const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
    for (size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << what << " element " << i;
  };
  near(result.lse, expected.lse, 1e-4);
  near(result.out, expected.out, 2e-5);
}

AttentionShape shape_of(int heads, int kv_heads, int head_dim) {
  return {heads, kv_heads, head_dim, 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

// A prompt whose start two branches share, a packed row on its own, and a row that decodes after a chunk: slots in no
// particular place.
AttentionPlan tree_plan() {
  AttentionPlan plan;
  plan.segments.push_back({0, 70, 300, 0, {}});
  plan.segments.push_back({70, 33, 10, 70, {{300, 70}}});
  plan.segments.push_back({103, 1, 60, 70, {{300, 70}}});
  plan.segments.push_back({104, 5, 80, 103, {{300, 70}, {10, 33}}});
  plan.segments.push_back({109, 21, 500, 0, {}});
  plan.segments.push_back({130, 1, 200, 91, {{300, 70}, {500, 21}}});
  return plan;
}

class AttentionTest : public ::testing::Test {
 protected:
  void TearDown() override { force_cpu(cpu_detected()); }
};

std::string described(const AttentionShape& shape, KvType type, int window) {
  return std::string(cpu_level_name(cpu_level())) + " " + std::string(kv_type_name(type)) + " heads " +
         std::to_string(shape.heads) + "/" + std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim) +
         " window " + std::to_string(window);
}

TEST_F(AttentionTest, MatchesReferenceForTreesWindowsAndShapes) {
  for (const auto& [heads, kv_heads, head_dim] :
       {std::array{9, 3, 64}, {4, 4, 8}, {2, 1, 40}, {8, 2, 128}, {2, 2, 256}, {3, 1, 16}, {5, 1, 6}, {7, 1, 80}}) {
    for (const int window : {0, 50}) {
      for (const KvType type : kTypes) {
        AttentionPlan plan = tree_plan();
        plan.window = window;
        const AttentionShape shape = shape_of(heads, kv_heads, head_dim);
        const Storage kv(type, 530, shape);
        const std::vector<float> q = normals(plan.rows() * heads * head_dim, 3);
        const Result expected = reference(q, kv, plan, shape);
        for (const CpuLevel level : cpu_levels()) {
          force_cpu(level);
          expect_near(run(q, kv.view(), plan, shape), expected, described(shape, type, window));
          if (type == KvType::kF32) expect_near(run(q, kv.rows(), plan, shape), expected, "rows");
        }
      }
    }
  }
}

TEST_F(AttentionTest, MatchesReferenceWhenThreadsShareALongPast) {
  for (const KvType type : kTypes) {
    const AttentionShape shape = shape_of(3, 1, 64);
    const Storage kv(type, 6001, shape);
    const std::vector<float> q = normals(3 * 64, 3);
    const AttentionPlan plan{{{0, 1, 6000, 6000, {{0, 700}, {700, 5300}}}}, 0};
    const Result expected = reference(q, kv, plan, shape);
    for (const CpuLevel level : cpu_levels()) {
      force_cpu(level);
      expect_near(run(q, kv.view(), plan, shape), expected, described(shape, type, 0));
    }
  }
}

// A row's bits must not depend on how its prompt was cut, where its keys lie, what runs beside it, or on how many
// threads: greedy answers would change with the cache.
TEST_F(AttentionTest, RowsAreBitIdenticalWhateverTheChunksSlotsAndThreads) {
  const int pool = threads().size();
  const int32_t length = 700;
  const auto slot_of = [](int32_t position) { return position < 333 ? position + 900 : position - 300; };
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const auto& [shape, window] : {std::pair{shape_of(6, 2, 64), 0},
                                        {shape_of(6, 2, 64), 300},
                                        {shape_of(5, 1, 40), 0},
                                        {shape_of(2, 2, 80), 0}}) {
      const int64_t row = int64_t{shape.heads} * shape.head_dim;
      const std::vector<float> q = normals(length * row, 3);
      for (const KvType type : kTypes) {
        const Storage kv(type, length, shape);
        const AttentionPlan whole{{{0, length, 0, 0, {}}}, window};
        const Result expected = run(q, kv.view(), whole, shape);
        if (type == KvType::kF32) {
          const Result rows = run(q, kv.rows(), whole, shape);
          ASSERT_EQ(std::memcmp(rows.out.data(), expected.out.data(), rows.out.size() * sizeof(float)), 0)
              << described(shape, type, window);
        }
        const Storage moved(type, length, shape, slot_of, 1240);  // the same keys in another place, cut in two
        for (const int count : {1, 3}) {
          if (count > 1 && shape.head_dim != 64) continue;
          set_threads(count);
          for (const int32_t chunk : {1, 2, 7, 64, 333, 700}) {
            for (int32_t first = 0; first < length; first += chunk) {
              if (chunk < 64 && first % 150 > chunk && first < 690) continue;  // a sample of the small ones
              const int32_t rows = std::min(chunk, length - first);
              if (first < 333 && first + rows > 333) continue;  // its own keys must follow each other
              AttentionSegment segment{0, rows, slot_of(first), first, {}};
              if (first > 0) segment.ancestors.push_back({900, std::min(first, 333)});
              if (first > 333) segment.ancestors.push_back({33, first - 333});
              const AttentionPlan plan{{segment}, window};
              const std::vector<float> part(q.begin() + first * row, q.begin() + (first + rows) * row);
              const Result result = run(part, moved.view(), plan, shape);
              ASSERT_EQ(std::memcmp(result.out.data(), expected.out.data() + first * row,
                                    result.out.size() * sizeof(float)),
                        0)
                  << described(shape, type, window) << " rows " << first << " + " << rows << " threads " << count;
            }
          }
        }
        set_threads(pool);
      }
    }
  }
}

// Keys of sequences that grow side by side may lie in single slots among each other.
TEST_F(AttentionTest, RowsAreBitIdenticalWhereSlotsAreScattered) {
  const AttentionShape shape = shape_of(6, 2, 64);
  const int32_t length = 300;
  const int64_t row = int64_t{shape.heads} * shape.head_dim;
  const std::vector<float> q = normals(row, 3);
  const auto slot_of = [](int32_t p) { return p * 7 % 601; };
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const KvType type : kTypes) {
      const Storage kv(type, length, shape), scattered(type, length, shape, slot_of, 601);
      const Result expected = run(q, kv.view(), {{{0, 1, length - 1, length - 1, {{0, length - 1}}}}, 0}, shape);
      AttentionPlan plan{{{0, 1, slot_of(length - 1), length - 1, {}}}, 0};
      for (int32_t p = 0; p < length - 1; ++p) plan.segments.front().ancestors.push_back({slot_of(p), 1});
      const Result result = run(q, scattered.view(), plan, shape);
      EXPECT_EQ(std::memcmp(result.out.data(), expected.out.data(), result.out.size() * sizeof(float)), 0)
          << described(shape, type, 0);
    }
  }
}

// Requests that share a system prompt read its keys together; each must get what it gets alone.
TEST_F(AttentionTest, RowsThatShareAPrefixAreBitIdenticalToRowsAlone) {
  const AttentionShape shape = shape_of(6, 2, 64);
  const int64_t row = int64_t{shape.heads} * shape.head_dim;
  for (const CpuLevel level : cpu_levels()) {
    force_cpu(level);
    for (const auto& [type, window] : {std::pair{KvType::kF16, 0}, {KvType::kF16, 700}, {KvType::kQ8, 0}}) {
      const Storage kv(type, 3000, shape);
      AttentionPlan plan;
      plan.window = window;
      int32_t rows = 0;
      const auto add = [&](int32_t count, std::vector<KeyRange> ancestors, int32_t key_first) {
        AttentionSegment segment{rows, count, key_first, 0, std::move(ancestors)};
        for (const KeyRange& range : segment.ancestors) segment.position += range.count;
        plan.segments.push_back(segment);
        rows += count;
      };
      for (int32_t i = 0; i < 12; ++i) add(1, {{100, 600}, {1000 + 40 * i, 5 + i}}, 1000 + 40 * i + 5 + i);
      add(7, {{100, 600}, {1500, 300}}, 1800);  // a chunk of a prompt, deeper along a branch
      add(1, {{100, 600}, {1500, 300}}, 1900);
      add(1, {{100, 600}, {1500, 290}}, 1790);
      add(1, {{2000, 700}}, 2700);   // another prompt
      add(200, {{100, 600}}, 2720);  // too many rows to gain from sharing
      add(3, {}, 50);                // no past at all
      const std::vector<float> q = normals(rows * row, 3);
      const Result together = run(q, kv.view(), plan, shape);
      expect_near(together, reference(q, kv, plan, shape), described(shape, type, window));
      for (const AttentionSegment& segment : plan.segments) {
        AttentionSegment own = segment;
        own.query_first = 0;
        const std::vector<float> part(q.begin() + segment.query_first * row,
                                      q.begin() + (segment.query_first + segment.query_count) * row);
        const Result alone = run(part, kv.view(), {{own}, window}, shape);
        ASSERT_EQ(std::memcmp(alone.out.data(), together.out.data() + segment.query_first * row,
                              alone.out.size() * sizeof(float)),
                  0)
            << described(shape, type, window) << " segment at row " << segment.query_first;
      }
    }
  }
}

}  // namespace
}  // namespace thimble
