#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/encode.h"
#include "data/row.h"
#include "eval/score.h"
#include "infer/engine.h"

namespace thimble {

struct EvaluateOptions {
  bool constrained = true;        // calls are held to the tools' schemas
  int adapter = 0;                // the engine's number; 0: the base model
  int max_new_tokens = 256;
  std::optional<double> call_threshold;  // as GenerateRequest has it
  bool log_probs = false;                // of every token, for predictions: a pass over the vocabulary each
  std::vector<Row> shots;         // examples in the prompt, before every request
};

// One row and what the model made of it.
struct AnsweredRow {
  const Row* row = nullptr;
  std::string output;  // as the model wrote it
  ParsedAnswer parsed;
  RowScore score;
  int prompt_tokens = 0;
  int cached_tokens = 0;
  int output_tokens = 0;
  std::optional<double> call_probability;  // of beginning with a call
  std::vector<float> log_probs;            // of the answer's tokens and its end
  double seconds = 0;   // from its submission to its end, beside the other rows of the batch
  bool cut = false;     // the answer ran into max_new_tokens
};

struct Evaluation {
  Score score;
  std::vector<AnsweredRow> rows;  // in the order given; `row` points into the caller's rows
  double seconds = 0;             // wall time of all
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  int64_t forced_tokens = 0;    // of the output: the constraint left no choice
  int64_t drafted_tokens = 0;   // guessed by look-up ...
  int64_t accepted_tokens = 0;  // ... and right
};

// Greedy answers to every row in batches, scored. The rows must outlive the result.
Evaluation evaluate(Engine& engine, const PromptStyle& style, std::span<const Row> rows, const EvaluateOptions& options,
                    const ProgressFn& progress = {});

// What grammars need to know of a tokenizer.
TokenTable token_table(const Tokenizer& tokenizer);

// One JSON line a row: id, row, and what a model is asked, as text and as tokens.
std::string prompts_to_jsonl(const PromptStyle& style, std::span<const Row> rows, std::span<const Row> shots);

// One JSON line a row: id, query, gold, predicted, output, exact, failure, details, call_probability and log
// probabilities.
std::string predictions_to_jsonl(const Evaluation& evaluation);

}  // namespace thimble
