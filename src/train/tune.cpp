#include "train/tune.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/check.h"
#include "data/read.h"
#include "data/split.h"
#include "formats/adapter.h"

namespace thimble {
namespace {

std::string kind_of(const Row& row) {
  if (!row.kind.empty()) return row.kind;
  return row.calls.empty() ? "no call" : row.calls.size() == 1 ? "one call" : "several calls";
}

// The words of an answer in text count less; its plan, its first token and its last, which ends it, count whole.
std::vector<float> text_weights(const TrainRow& row, size_t plan_tokens, double text_weight) {
  std::vector<float> weights(row.tokens.size(), 1.0f);
  const auto last = row.tokens.size() - 1 -
                    static_cast<size_t>(std::find(row.trained.rbegin(), row.trained.rend(), 1) - row.trained.rbegin());
  size_t trained = 0;
  for (size_t i = 0; i < last; ++i)
    if (row.trained[i] != 0 && trained++ > plan_tokens) weights[i] = static_cast<float>(text_weight);
  return weights;
}

Json history_to_json(const TrainResult& result) {
  Json points = Json::array();
  for (const HistoryPoint& p : result.history) {
    Json point{{"step", p.step},
               {"tokens", p.tokens},
               {"loss", p.loss},
               {"learning_rate", p.learning_rate},
               {"gradient_norm", p.gradient_norm},
               {"tokens_per_second", p.tokens_per_second},
               {"seconds", p.seconds}};
    if (p.dev_loss) point["dev_loss"] = *p.dev_loss;
    if (p.metric) point["metric"] = *p.metric;
    points.push_back(std::move(point));
  }
  return {{"best_step", result.best_step},
          {"steps", result.steps},
          {"planned_steps", result.planned_steps},
          {"tokens", result.tokens},
          {"trained_tokens", result.trained_tokens},
          {"seconds", result.seconds},
          {"history", points}};
}

}  // namespace

TrainingData prepare_training(const Job& job, const PromptStyle& style) {
  TrainingData out;
  const auto file = job.train_file();
  out.rows = read_rows(file);
  if (out.rows.empty()) throw Error(fmt::format("{}: holds no rows to train on", file.string()));
  CheckReport report = check_rows(out.rows, job.tools, file.string());
  // The one look into the test set that training takes: to refuse rows that stand in both.
  if (std::filesystem::exists(job.test_file())) {
    const CheckReport leaks =
        check_leaks(out.rows, read_rows(job.test_file()), file.string(), job.test_file().string());
    report.errors.insert(report.errors.end(), leaks.errors.begin(), leaks.errors.end());
    report.notes.insert(report.notes.end(), leaks.notes.begin(), leaks.notes.end());
  }
  report.throw_if_errors();
  out.card.notes = report.notes;

  const Split split = split_rows(out.rows, job.train.dev_share, job.train.seed);
  std::vector<uint8_t> in_dev(out.rows.size());
  for (const size_t i : split.dev) in_dev[i] = 1;
  for (size_t i = 0; i < out.rows.size(); ++i) {
    const Row& row = out.rows[i];
    EncodedRow encoded = style.encode(row);
    const auto length = static_cast<int64_t>(encoded.tokens.size());
    if (length > job.train.max_tokens) {
      if (job.train.too_long == "refuse")
        throw Error(
            fmt::format("{}: row {} has {} tokens, but train.max_tokens is {}; raise it, shorten the row, or set "
                        "train.too_long = \"drop\"",
                        file.string(), row.number, length, job.train.max_tokens));
      ++out.card.dropped_rows;
      continue;
    }
    TrainRow train{std::move(encoded.tokens), std::move(encoded.trained), row.number, {}};
    if (trained_tokens(train) == 0)
      throw Error(
          fmt::format("{}: row {} would train on no token; give it calls or an answer", file.string(), row.number));
    if (row.calls.empty() && job.train.text_weight < 1)
      train.weights = text_weights(train, encoded.plan_tokens, job.train.text_weight);
    if (in_dev[i] != 0) {
      out.dev.push_back(std::move(train));
      out.dev_rows.push_back(row);
      continue;
    }
    for (const Role role : encoded.roles) ++out.card.tokens[static_cast<size_t>(role)];
    out.card.trained_tokens += trained_tokens(train);
    out.card.longest = std::max(out.card.longest, length);
    ++out.card.kinds[kind_of(row)];
    for (const Call& call : row.calls) ++out.card.tools[call.name];
    if (out.train.empty()) out.example = {train.tokens, train.trained, std::move(encoded.roles), row.number};
    out.train.push_back(std::move(train));
  }
  out.card.train_rows = out.train.size();
  out.card.dev_rows = out.dev.size();
  if (out.card.dropped_rows > 0)
    out.card.notes.push_back(fmt::format("{} rows were longer than {} tokens and were dropped", out.card.dropped_rows,
                                         job.train.max_tokens));
  if (out.train.empty()) throw Error(fmt::format("{}: no row is left to train on", file.string()));
  return out;
}

TrainConfig train_config(const Job& job) {
  const TrainSettings& t = job.train;
  TrainConfig c;
  c.lora.rank = t.rank;
  c.lora.alpha = static_cast<float>(t.alpha);
  c.lora.dropout = static_cast<float>(t.dropout);
  c.lora.targets = t.targets;
  c.optimizer.weight_decay = static_cast<float>(t.weight_decay);
  c.optimizer.clip = static_cast<float>(t.clip);
  c.learning_rate = t.learning_rate;
  c.decay = t.schedule == "linear" ? Decay::kLinear : t.schedule == "constant" ? Decay::kConstant : Decay::kCosine;
  c.warmup_share = t.warmup;
  c.epochs = t.epochs;
  c.batch_rows = t.batch_rows;
  c.seed = t.seed;
  c.precision = t.precision == "f32" ? GemmPrecision::kF32 : GemmPrecision::kBF16;
  c.evaluations = t.evaluations;
  return c;
}

TunedRun tune_job(const Job& job, const Model& model, const TrainingData& data, const TrainCallbacks& callbacks,
                  const CalibrateCalls& calibrate, const std::filesystem::path& resume) {
  TunedRun run;
  if (!resume.empty() && !std::filesystem::is_directory(resume))
    throw Error(
        fmt::format("{}: is not a run's folder; runs stand in {}", resume.string(), job.runs_folder().string()));
  run.folder = resume.empty() ? new_run(job) : resume;
  TrainConfig config = train_config(job);
  config.checkpoint = run.folder / "checkpoint.safetensors";
  run.result = train(model, config, data.train, data.dev, callbacks);
  write_file(run.folder / "history.json", history_to_json(run.result).dump(1) + "\n");
  if (run.result.cancelled) return run;

  LoraAdapter adapter = to_adapter(*run.result.trained.lora, job.base);
  JobManifest manifest;
  manifest.job = job.name;
  manifest.description = job.description;
  manifest.base = job.base;
  manifest.base_fingerprint = model.fingerprint;
  manifest.tools_in_prompt = job.tools_in_prompt;
  manifest.plan = job.plan;
  manifest.system = job.system;
  manifest.chat_template = model.vocabulary.chat_template;
  manifest.tools = job.tools;
  if (calibrate) run.call_threshold = manifest.call_threshold = calibrate(adapter);
  adapter.manifest = manifest_to_text(manifest);
  write_adapter(run.adapter(), adapter);
  mark_finished(run.folder);
  std::error_code ignored;  // of use only while the run was not finished
  std::filesystem::remove(config.checkpoint, ignored);
  return run;
}

}  // namespace thimble
