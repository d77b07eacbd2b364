#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "data/encode.h"
#include "eval/score.h"
#include "formats/adapter.h"
#include "models/model.h"

namespace thimble {

// What a training is for, measured while it goes on: the score of an adapter on a sample of the dev part, answered by
// the engine as `eval` does, but without a threshold for calling. The packed model is made for each call and let go
// after it, so that it takes no memory from the training between them.
class TaskMetric {
 public:
  // `rows` of the dev part, evenly spread over it (0: all of them).
  TaskMetric(std::shared_ptr<const Model> model, const PromptStyle& style, std::span<const Row> dev_rows, int rows,
             int max_new_tokens, int batch);

  size_t rows() const { return sample_.size(); }
  Score score(const LoraAdapter& adapter) const;  // Throws Error as the engine does
  // JobManifest::call_threshold by all of the dev part (calibrate.h); of a whole tuned model where there is one.
  std::optional<double> call_threshold(const LoraAdapter& adapter, std::shared_ptr<const Model> tuned = nullptr) const;

 private:
  std::shared_ptr<const Model> model_;
  const PromptStyle& style_;
  std::span<const Row> dev_rows_;
  std::vector<Row> sample_;
  int max_new_tokens_, batch_;
};

}  // namespace thimble
