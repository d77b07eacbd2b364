#include "infer/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/random.h"

namespace thimble {
namespace {

KvCache small(int64_t capacity = 64) {
  return KvCache({.layers = 1, .kv_heads = 1, .head_dim = 2, .capacity = capacity, .type = KvType::kF32});
}

std::vector<int32_t> iota(int32_t first, int32_t count) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), first);
  return out;
}

// Slots of a sequence's whole past, read off the plan of its last token.
std::vector<int32_t> path(const KvCache& cache, KvCache::Sequence s) {
  std::vector<AttentionSegment> segments;
  cache.plan(s, 1, 0, segments);
  std::vector<int32_t> out;
  for (const KeyRange& r : segments.back().ancestors)
    for (int32_t i = 0; i < r.count; ++i) out.push_back(r.first + i);
  out.push_back(segments.back().key_first);
  return out;
}

TEST(KvCache, SharesTheBeginningOfASecondSequence) {
  KvCache cache = small();
  const auto tokens = iota(0, 20);
  const auto a = cache.open(0, tokens);
  EXPECT_EQ(cache.length(a), 0);
  ASSERT_TRUE(cache.append(a, tokens));
  auto other = iota(0, 10);
  other.push_back(99);
  other.push_back(98);
  const auto b = cache.open(0, other);
  EXPECT_EQ(cache.length(b), 10);
  ASSERT_TRUE(cache.append(b, std::span(other).subspan(10)));
  EXPECT_EQ(cache.used(), 22);
  const auto pa = path(cache, a), pb = path(cache, b);
  EXPECT_TRUE(std::equal(pa.begin(), pa.begin() + 10, pb.begin()));
  EXPECT_NE(pa[10], pb[10]);
}

TEST(KvCache, KnowsASequencesSlotsAfterAnotherCutItsNode) {
  KvCache cache = small();
  const auto tokens = iota(0, 20);
  const auto a = cache.open(0, tokens);
  cache.append(a, tokens);
  const auto before = path(cache, a);
  auto other = iota(0, 6);
  other.push_back(99);
  cache.open(0, other);
  std::vector<int32_t> slots = {-1};
  cache.slots(a, 20, slots);
  EXPECT_EQ(std::vector<int32_t>(slots.begin() + 1, slots.end()), before);
}

TEST(KvCache, GivesSequencesThatGrowSideBySideSlotsThatFollowEachOther) {
  KvCache cache = small(4096);
  std::vector<KvCache::Sequence> sequences;
  for (int32_t s = 0; s < 8; ++s) {
    sequences.push_back(cache.open(0, iota(100 * s, 30)));
    ASSERT_TRUE(cache.append(sequences.back(), iota(100 * s, 30)));
  }
  for (int32_t i = 0; i < 200; ++i)
    for (const auto s : sequences) ASSERT_TRUE(cache.append(s, iota(i, 1)));
  for (const auto s : sequences) {
    std::vector<AttentionSegment> segments;
    cache.plan(s, 1, 0, segments);
    EXPECT_LE(segments.back().ancestors.size(), 5u);  // 230 tokens
  }
}

// With a fifth more than they need, 16 sequences hardly get into each other's way, also where the cache is full of what
// others left behind; with what they need, everything is still stored.
TEST(KvCache, SequencesFindRoomToGrowInATightCache) {
  for (const int64_t capacity : {1424, 1152}) {
    KvCache cache = small(capacity);
    for (int32_t round = 0; round < 5; ++round) {
      std::vector<KvCache::Sequence> sequences;
      for (int32_t i = 0; i < 16; ++i) {
        const auto prompt = iota(1000 * (16 * round + i), 8);
        sequences.push_back(cache.open(0, prompt));
        ASSERT_TRUE(cache.append(sequences.back(), prompt));
      }
      for (int32_t t = 0; t < 64; ++t)
        for (const auto s : sequences) ASSERT_TRUE(cache.append(s, iota(t, 1)));
      int runs = 0;
      std::vector<int> used(static_cast<size_t>(capacity));
      for (const auto s : sequences) {
        const auto slots = path(cache, s);
        ASSERT_EQ(slots.size(), 72u);
        for (size_t i = 0; i < slots.size(); ++i) {
          ++used[static_cast<size_t>(slots[i])];
          runs += i == 0 || slots[i] != slots[i - 1] + 1;
        }
      }
      EXPECT_EQ(*std::max_element(used.begin(), used.end()), 1);
      if (capacity == 1424) EXPECT_LE(runs, 48) << "three a sequence, in round " << round;
      for (const auto s : sequences) cache.close(s);
    }
  }
}

TEST(KvCache, TellsItsBytes) {
  for (const auto& [type, bytes] : {std::pair{KvType::kF32, 4 * 64}, {KvType::kF16, 2 * 64}, {KvType::kQ8, 64 + 4}}) {
    const KvCache cache({.layers = 5, .kv_heads = 3, .head_dim = 64, .capacity = 1000, .type = type});
    EXPECT_EQ(cache.bytes(), 2u * 5 * 1024 * 3 * static_cast<size_t>(bytes)) << kv_type_name(type);
  }
}

TEST(KvCache, NeverHandsOutTheLastTokenOfAPrompt) {
  KvCache cache = small();
  const auto tokens = iota(0, 8);
  const auto a = cache.open(0, tokens);
  cache.append(a, tokens);
  cache.close(a);
  const auto b = cache.open(0, tokens);
  EXPECT_EQ(cache.length(b), 7);
}

TEST(KvCache, KeepsAdaptersApart) {
  KvCache cache = small();
  const auto tokens = iota(0, 8);
  const auto a = cache.open(0, tokens);
  cache.append(a, tokens);
  EXPECT_EQ(cache.length(cache.open(1, tokens)), 0);
}

TEST(KvCache, EvictsTheLeastRecentlyUsedAndRefusesWhenAllIsHeld) {
  KvCache cache = small(32);
  const auto first = iota(0, 12), second = iota(100, 12), third = iota(200, 12), fourth = iota(300, 12);
  const auto a = cache.open(0, first);
  cache.append(a, first);
  cache.close(a);
  const auto b = cache.open(0, second);
  cache.append(b, second);
  const auto c = cache.open(0, third);
  ASSERT_TRUE(cache.append(c, third)) << "the first sequence's space is free to take";
  EXPECT_EQ(cache.held(), 24);
  const auto d = cache.open(0, fourth);
  EXPECT_FALSE(cache.append(d, fourth)) << "the others are in use";
  cache.close(b);
  EXPECT_TRUE(cache.append(d, fourth));
  EXPECT_EQ(cache.length(cache.open(0, first)), 0);
}

TEST(KvCache, RollsBackToASnapshotEvenWhereTheTailWasShared) {
  KvCache cache = small();
  const auto tokens = iota(0, 10);
  const auto a = cache.open(0, tokens);
  cache.append(a, tokens);
  const auto snapshot = cache.snapshot(a);
  const auto draft = iota(50, 6);
  cache.append(a, draft);
  auto longer = tokens;
  longer.insert(longer.end(), draft.begin(), draft.end());
  const auto b = cache.open(0, longer);
  EXPECT_EQ(cache.length(b), 15);
  cache.roll_back(snapshot);
  EXPECT_EQ(cache.length(a), 10);
  EXPECT_EQ(path(cache, a).size(), 10u);
  EXPECT_TRUE(cache.append(b, std::span(longer).last(1)));
  EXPECT_EQ(path(cache, b).size(), 16u);
}

// A model of the cache: every open sequence's slots must hold its own tokens, whatever the others do.
TEST(KvCache, KeepsEverySequencesTokensThroughRandomUse) {
  KvCache cache = small(256);
  Random random(7);
  struct Live {
    std::vector<int32_t> tokens;
    std::vector<int32_t> slots;
  };
  std::map<KvCache::Sequence, Live> live;
  std::vector<int32_t> content(256, -1);
  for (int round = 0; round < 4000; ++round) {
    const auto action = random.below(10);
    if (action < 3 && live.size() < 6) {
      std::vector<int32_t> prompt;
      for (uint64_t n = 1 + random.below(24); n > 0; --n) prompt.push_back(static_cast<int32_t>(random.below(2)));
      const auto s = cache.open(0, prompt);
      const auto known = static_cast<size_t>(cache.length(s));
      if (!cache.append(s, std::span(prompt).subspan(known))) {
        cache.close(s);
        continue;
      }
      Live l{prompt, path(cache, s)};
      ASSERT_EQ(l.slots.size(), prompt.size());
      for (size_t i = 0; i < known; ++i) ASSERT_EQ(content[static_cast<size_t>(l.slots[i])], prompt[i]);
      for (size_t i = known; i < prompt.size(); ++i) content[static_cast<size_t>(l.slots[i])] = prompt[i];
      live[s] = std::move(l);
    } else if (!live.empty()) {
      auto at = live.begin();
      std::advance(at, static_cast<int64_t>(random.below(live.size())));
      auto& [s, l] = *at;
      if (action < 7) {
        const int32_t token = static_cast<int32_t>(random.below(2));
        if (!cache.append(s, std::span(&token, 1))) continue;
        l.tokens.push_back(token);
        l.slots = path(cache, s);
        content[static_cast<size_t>(l.slots.back())] = token;
      } else if (action < 8 && l.tokens.size() > 1) {
        const auto keep = static_cast<int32_t>(1 + random.below(l.tokens.size() - 1));
        cache.roll_back({s, keep});
        l.tokens.resize(static_cast<size_t>(keep));
      } else {
        cache.close(s);
        live.erase(at);
      }
    }
    for (const auto& [s, l] : live) {
      const auto slots = path(cache, s);
      ASSERT_EQ(slots.size(), l.tokens.size());
      for (size_t i = 0; i < slots.size(); ++i) ASSERT_EQ(content[static_cast<size_t>(slots[i])], l.tokens[i]);
    }
  }
}

}  // namespace
}  // namespace thimble
