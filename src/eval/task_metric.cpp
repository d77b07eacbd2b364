#include "eval/task_metric.h"

#include <algorithm>

#include "eval/calibrate.h"
#include "eval/evaluate.h"
#include "infer/engine.h"

namespace thimble {
namespace {

struct Asked {
  std::shared_ptr<PreparedModel> prepared;
  int adapter;
  Engine engine;

  Asked(const std::shared_ptr<const Model>& model, const LoraAdapter* lora, const Tokenizer& tokenizer, int batch)
      : prepared(std::make_shared<PreparedModel>(model, MatmulPrecision::kFast)),
        adapter(lora == nullptr ? 0 : prepared->add_adapter(*lora)),
        engine(prepared, tokenizer,
               {.cache_tokens = std::min<int64_t>(model->config.context, 8192), .max_batch = batch}) {}
};

}  // namespace

TaskMetric::TaskMetric(std::shared_ptr<const Model> model, const PromptStyle& style, std::span<const Row> dev_rows,
                       int rows, int max_new_tokens, int batch)
    : model_(std::move(model)), style_(style), dev_rows_(dev_rows), max_new_tokens_(max_new_tokens), batch_(batch) {
  const size_t count = rows == 0 ? dev_rows.size() : std::min<size_t>(dev_rows.size(), static_cast<size_t>(rows));
  for (size_t i = 0; i < count; ++i) sample_.push_back(dev_rows[i * dev_rows.size() / count]);
}

Score TaskMetric::score(const LoraAdapter& adapter) const {
  Asked asked(model_, &adapter, style_.tokenizer(), batch_);
  EvaluateOptions how;
  how.adapter = asked.adapter;
  how.max_new_tokens = max_new_tokens_;
  return evaluate(asked.engine, style_, sample_, how).score;
}

std::optional<double> TaskMetric::call_threshold(const LoraAdapter& adapter,
                                                 std::shared_ptr<const Model> tuned) const {
  Asked asked(tuned ? tuned : model_, tuned ? nullptr : &adapter, style_.tokenizer(), batch_);
  return calibrate_calls(asked.engine, style_, dev_rows_, asked.adapter);
}

}  // namespace thimble
