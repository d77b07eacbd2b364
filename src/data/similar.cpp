#include "data/similar.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "data/fold.h"

namespace thimble {
namespace {

constexpr size_t kMostCandidates = 20'000;  // texts under one word pair; more are the same boilerplate

uint64_t hash(std::string_view text, uint64_t value = 0xcbf29ce484222325u) {  // FNV-1a
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {  // sorted by value
  size_t shared = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) {
      ++shared, ++i, ++j;
    } else {
      a[i] < b[j] ? ++i : ++j;
    }
  }
  return static_cast<double>(shared) / static_cast<double>(a.size() + b.size() - shared);
}

// Two sets of at least the threshold share one of the rarest members of each: it is enough to index and to ask for
// those.
std::vector<uint64_t> rarest(const std::vector<uint64_t>& set, const std::unordered_map<uint64_t, size_t>& counts,
                             double threshold) {
  const auto needed = static_cast<size_t>(std::ceil(threshold * static_cast<double>(set.size()) - 1e-9));
  const size_t length = std::min(set.size(), set.size() - needed + 1);
  std::vector<uint64_t> order = set;
  std::sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) {
    const size_t x = counts.at(a), y = counts.at(b);
    return x != y ? x < y : a < b;
  });
  order.resize(length);
  return order;
}

std::vector<SimilarPair> search(std::span<const std::string> left, std::span<const std::string> right, double threshold,
                                bool within) {
  std::vector<std::vector<uint64_t>> a, b;
  std::unordered_map<uint64_t, size_t> counts;
  for (const std::string& text : left) a.push_back(word_pairs(text));
  for (const std::string& text : right) b.push_back(word_pairs(text));
  for (const auto* sets : {&a, &b}) {
    for (const auto& set : *sets) {
      for (const uint64_t member : set) ++counts[member];
    }
  }
  std::unordered_map<uint64_t, std::vector<size_t>> index;
  for (size_t i = 0; i < a.size(); ++i) {
    for (const uint64_t member : rarest(a[i], counts, threshold)) index[member].push_back(i);
  }
  std::vector<SimilarPair> pairs;
  std::vector<size_t> last(a.size(), SIZE_MAX);  // the text of `right` that each of `left` was compared with last
  for (size_t j = 0; j < b.size(); ++j) {
    for (const uint64_t member : rarest(b[j], counts, threshold)) {
      const auto found = index.find(member);
      if (found == index.end() || found->second.size() > kMostCandidates) continue;
      for (const size_t i : found->second) {
        if (within && i >= j) break;  // in ascending order
        if (last[i] == j) continue;
        last[i] = j;
        const double similarity = jaccard(a[i], b[j]);
        if (similarity >= threshold) pairs.push_back({i, j, similarity});
      }
    }
  }
  return pairs;
}

}  // namespace

std::vector<uint64_t> word_pairs(std::string_view text) {
  const std::string folded = fold_words(text);
  std::vector<uint64_t> pairs;
  uint64_t before = hash("^");
  std::string_view rest = folded;
  while (!rest.empty()) {
    const size_t end = rest.find(' ');
    const std::string_view word = rest.substr(0, end);
    pairs.push_back(hash(word, before * 31));
    before = hash(word);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  pairs.push_back(hash("$", before * 31));
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  return pairs;
}

std::vector<SimilarPair> similar_between(std::span<const std::string> left, std::span<const std::string> right,
                                         double threshold) {
  return search(left, right, threshold, false);
}

std::vector<SimilarPair> similar_within(std::span<const std::string> texts, double threshold) {
  return search(texts, texts, threshold, true);
}

}  // namespace thimble
