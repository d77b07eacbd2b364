#pragma once

#include <optional>
#include <span>

#include "data/encode.h"
#include "infer/engine.h"

namespace thimble {

// One row of the dev part: how likely the model is to begin its answer with a call, and whether one is due.
struct CallDecision {
  double probability = 0;
  bool due = false;
};

// The threshold on that probability with the most right decisions, each row counted in proportion to how clearly it
// stands on its side (a logistic of half a unit of log-odds), so that single rows don't move it. Nothing where fewer
// than ten rows are due a call or fewer than ten are not: too few to choose by.
std::optional<double> choose_call_threshold(std::span<const CallDecision> decisions);

// The same for a model, asked for the first token of every row's answer. Rows with tools of their own are left out.
// Nothing for a model that plans: it decides later.
std::optional<double> calibrate_calls(Engine& engine, const PromptStyle& style, std::span<const Row> rows, int adapter);

}  // namespace thimble
