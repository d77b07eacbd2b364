#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// A text as the sorted set of its word pairs, with its beginning and end, after fold_words.
std::vector<uint64_t> word_pairs(std::string_view text);

struct SimilarPair {
  size_t a, b;        // indices into the two lists
  double similarity;  // Jaccard: shared word pairs over all word pairs of both
};
// All pairs of a text of `left` with one of `right` whose similarity is at least `threshold` (above 0). Exact, by the
// prefix filter of AllPairs (Bayardo, Ma and Srikant, 2007); near linear for texts that mostly differ.
std::vector<SimilarPair> similar_between(std::span<const std::string> left, std::span<const std::string> right,
                                         double threshold);
// The same within one list; a < b.
std::vector<SimilarPair> similar_within(std::span<const std::string> texts, double threshold);

}  // namespace thimble
