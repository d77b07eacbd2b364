#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calls/tool.h"
#include "data/row.h"

namespace thimble {

// What was found in rows. Errors keep them from being used; notes are for the data card.
struct CheckReport {
  std::vector<std::string> errors;  // each names file and row
  std::vector<std::string> notes;

  // Throws one Error with the first errors and the number of the others.
  void throw_if_errors() const;
};

// Rows to train on. Errors: a row without calls and without answer text, which would train on nothing; calls beside
// answer text, which no constrained answer can be; two turns in a row of one speaker, or a tool's that nobody called;
// unknown tools; arguments that the tool's schema rejects or does not list; a `missing` argument beside calls; tools
// that can't be held to while decoding; a rejected answer that is empty or the right one. Notes: requests that stand
// several times, with the same calls or with others, and near duplicates; tools whose arguments most requests name in
// another order than their schema. A row's own tools replace `tools`. Answers that are not wanted (rejected, or label
// false) may break every schema.
CheckReport check_rows(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where);

// Test rows need no answer text and may be alike; their calls are checked in the same way. Their answer is the right
// one: a label false is refused.
CheckReport check_test_rows(std::span<const Row> rows, std::span<const Tool> tools, std::string_view where);

// Test rows that were trained on. Errors: the same request up to case, punctuation and space. Notes: requests that
// share most of their word pairs.
CheckReport check_leaks(std::span<const Row> train, std::span<const Row> test, std::string_view train_where,
                        std::string_view test_where);

}  // namespace thimble
