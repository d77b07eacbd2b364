#include "train/tune.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/check.h"
#include "data/cut.h"
#include "data/read.h"
#include "data/split.h"
#include "formats/adapter.h"
#include "formats/merge.h"
#include "formats/pull.h"
#include "train/checkpoint.h"

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

// Rows of a job without [preference] have no verdicts, those of a job with it have the ones that its loss needs.
void check_verdicts(const Job& job, std::span<const Row> rows, const std::string& file, CheckReport& report) {
  for (const Row& row : rows) {
    const char* problem = nullptr;
    if (!job.preference && (row.rejected || row.label))
      problem = "it has a rejected answer or a label, but thimble.toml has no [preference] that says what to do with it";
    else if (job.preference && job.preference->loss == "kto" && !row.rejected && !row.label)
      problem = "it has neither a label nor a rejected answer, which the loss kto needs";
    else if (job.preference && job.preference->loss != "kto" && !row.rejected)
      problem = "it has no rejected answer, which the loss needs; only kto learns from rows with a label";
    if (problem != nullptr) report.errors.push_back(fmt::format("{}: row {}: {}.", file, row.number, problem));
  }
}

std::string objective_of(const Job& job) {
  if (!job.preference) return "cross-entropy of the answers' tokens";
  const PreferenceSettings& p = *job.preference;
  if (p.loss == "orpo") return fmt::format("ORPO: cross-entropy of right answers, odds ratio with lambda {:g}", p.lambda);
  std::string text =
      fmt::format("{}, beta {:g}, against the model as it is before the first step",
                  p.loss == "dpo" ? "DPO" : p.loss == "ipo" ? "IPO" : "KTO", p.beta);
  if (p.label_smoothing > 0) text += fmt::format(", label smoothing {:g}", p.label_smoothing);
  if (p.sft_weight > 0) text += fmt::format(", and {:g} of the right answers' cross-entropy", p.sft_weight);
  if (p.loss == "kto") text += fmt::format(", weights {:g} and {:g}", p.desirable_weight, p.undesirable_weight);
  return text;
}

// A row's own answer and its rejected one, as the model sees them; the second only where the row has it.
struct EncodedAnswers {
  EncodedRow own;
  std::optional<EncodedRow> rejected;
  int64_t length() const {
    return static_cast<int64_t>(std::max(own.tokens.size(), rejected ? rejected->tokens.size() : 0));
  }
};
EncodedAnswers encode_answers(const PromptStyle& style, const Row& row, const std::string& file) {
  EncodedAnswers out{style.encode(row), {}};
  if (!row.rejected) return out;
  out.rejected = style.encode_rejected(row);
  if (out.rejected->tokens == out.own.tokens)
    throw Error(fmt::format("{}: row {}: the right and the rejected answer are the same to the model, token by token",
                            file, row.number));
  return out;
}

Json history_to_json(const TrainResult& result, const std::string& chosen_by) {
  Json points = Json::array();
  for (const HistoryPoint& p : result.history) points.push_back(point_to_json(p));
  return {{"chosen_by", chosen_by},
          {"best_step", result.best_step},
          {"steps", result.steps},
          {"planned_steps", result.planned_steps},
          {"tokens", result.tokens},
          {"trained_tokens", result.trained_tokens},
          {"seconds", result.seconds},
          {"history", points}};
}

JobManifest manifest_of(const Job& job, const Model& model) {
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
  return manifest;
}

// An adapter as the folder `place`; weights as a model of the base's form, `place`.gguf or the folder `place`.
std::filesystem::path write_trained(const Job& job, const Trainable& trained, const JobManifest& manifest,
                                    const std::filesystem::path& place) {
  if (trained.weights == nullptr) {
    LoraAdapter adapter = to_adapter(*trained.lora, job.base);
    adapter.manifest = manifest_to_text(manifest);
    write_adapter(place, adapter);
    return place;
  }
  LoraAdapter only_manifest;
  only_manifest.manifest = manifest_to_text(manifest);
  const ModelFile model = with_weights(open_model(resolve_model(job.base)), *trained.weights);
  if (model.format == "gguf") {
    const std::filesystem::path file = place.string() + ".gguf";
    merge_to_gguf(model, only_manifest, file, DType::kBF16);
    return file;
  }
  std::filesystem::remove_all(place);  // of this run before it was interrupted
  merge_to_safetensors(model, only_manifest, place, DType::kBF16);
  return place;
}

// A row that is too long loses its earlier turns, where the job says so and that suffices; else it is refused.
void shorten(const Job& job, const PromptStyle& style, Row& row, EncodedAnswers& answers, DataCard& card) {
  const std::string file = job.tuning_file().string();
  const std::string place = fmt::format("{}: row {} has {} tokens, but train.max_tokens is {}", file, row.number,
                                        answers.length(), job.train.max_tokens);
  if (job.train.too_long != "cut")
    throw Error(place + "; raise it, shorten the row, or set train.too_long = \"drop\" or \"cut\"");
  const auto trained = [](const EncodedAnswers& e) {
    const auto count = [](const EncodedRow& r) { return std::count(r.trained.begin(), r.trained.end(), 1); };
    return count(e.own) + (e.rejected ? count(*e.rejected) : 0);
  };
  EncodedAnswers cut;
  const bool fits = cut_earlier_turns(row, [&](const Row& shorter) {
    cut = encode_answers(style, shorter, file);
    return cut.length() <= job.train.max_tokens;
  });
  if (!fits)
    throw Error(place + " and what is left without its earlier turns can't be cut; raise it, shorten the row, or set "
                        "train.too_long = \"drop\"");
  if (trained(cut) != trained(answers))
    throw Error(fmt::format("{}: row {}: the model's chat template renders the answer otherwise without the earlier "
                            "turns, so they can't be cut; shorten the row by hand",
                            file, row.number));
  ++card.cut_rows;
  card.cut_tokens += answers.length() - cut.length();
  answers = std::move(cut);
}

void note_own_tools(TrainingData& data) {
  size_t count = 0;
  int first = 0;
  for (const Row& row : data.rows)
    if (row.tools && ++count == 1) first = row.number;
  if (count > 0)
    data.card.notes.push_back(fmt::format("{} rows (the first is row {}) have tools of their own, which the model "
                                          "can't see with tools_in_prompt = false",
                                          count, first));
}

}  // namespace

Json point_to_json(const HistoryPoint& p) {
  Json point{{"step", p.step},
             {"tokens", p.tokens},
             {"loss", p.loss},
             {"smoothed_loss", p.smoothed_loss},
             {"learning_rate", p.learning_rate},
             {"gradient_norm", p.gradient_norm},
             {"tokens_per_second", p.tokens_per_second},
             {"seconds", p.seconds}};
  if (p.step > 0) point["seconds_left"] = p.seconds_left;
  if (p.peak_share) point["peak_share"] = *p.peak_share;
  if (p.dev_loss) point["dev_loss"] = *p.dev_loss;
  if (p.metric) point["metric"] = *p.metric;
  if (p.dev_accuracy) point["dev_reward_accuracy"] = *p.dev_accuracy;
  if (p.dev_margin) point["dev_reward_margin"] = *p.dev_margin;
  return point;
}

TrainingData prepare_training(const Job& job, const PromptStyle& style) {
  TrainingData out;
  const auto file = job.tuning_file();
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
  check_verdicts(job, out.rows, file.string(), report);
  report.throw_if_errors();
  out.card.notes = report.notes;
  out.card.objective = objective_of(job);

  const Split split = split_rows(out.rows, job.train.dev_share, job.train.seed);
  std::vector<uint8_t> in_dev(out.rows.size());
  for (const size_t i : split.dev) in_dev[i] = 1;
  for (size_t i = 0; i < out.rows.size(); ++i) {
    Row row = out.rows[i];
    EncodedAnswers answers = encode_answers(style, row, file.string());
    if (answers.length() > job.train.max_tokens) {
      if (job.train.too_long == "drop") {
        ++out.card.dropped_rows;
        continue;
      }
      shorten(job, style, row, answers, out.card);
    }
    const auto length = answers.length();
    EncodedRow& encoded = answers.own;
    TrainRow train{std::move(encoded.tokens), std::move(encoded.trained), row.number, {}};
    if (trained_tokens(train) == 0)
      throw Error(
          fmt::format("{}: row {} would train on no token; give it calls or an answer", file.string(), row.number));
    if (row.calls.empty() && job.train.text_weight < 1)
      train.weights = text_weights(train, encoded.plan_tokens, job.train.text_weight);
    train.wanted = row.label.value_or(true);
    std::optional<TrainRow> rejected;
    if (answers.rejected)
      rejected = {std::move(answers.rejected->tokens), std::move(answers.rejected->trained), row.number, {}, false};
    if (in_dev[i] != 0) {
      if (train.wanted) out.dev_rows.push_back(row);
      out.dev.push_back(std::move(train));
      if (rejected) out.dev.push_back(std::move(*rejected));
      ++out.card.dev_rows;
      continue;
    }
    for (const Role role : encoded.roles) ++out.card.tokens[static_cast<size_t>(role)];
    if (answers.rejected)
      for (const Role role : answers.rejected->roles) ++out.card.tokens[static_cast<size_t>(role)];
    out.card.trained_tokens += trained_tokens(train) + (rejected ? trained_tokens(*rejected) : 0);
    out.card.longest = std::max(out.card.longest, length);
    ++out.card.kinds[kind_of(row)];
    for (const Call& call : row.calls) ++out.card.tools[call.name];
    if (out.train.empty()) {
      out.example = {train.tokens, train.trained, std::move(encoded.roles), row.number};
      if (rejected)
        out.rejected_example = {rejected->tokens, rejected->trained, std::move(answers.rejected->roles), row.number};
    }
    ++(rejected ? out.card.pairs : train.wanted ? out.card.wanted : out.card.unwanted);
    out.train.push_back(std::move(train));
    if (rejected) out.train.push_back(std::move(*rejected));
    ++out.card.train_rows;
  }
  if (out.card.dropped_rows > 0)
    out.card.notes.push_back(fmt::format("{} rows were longer than {} tokens and were dropped", out.card.dropped_rows,
                                         job.train.max_tokens));
  if (out.card.cut_rows > 0)
    out.card.notes.push_back(fmt::format("{} rows were longer than {} tokens: {} tokens of their earlier turns were "
                                         "cut, none of them trained",
                                         out.card.cut_rows, job.train.max_tokens, out.card.cut_tokens));
  if (!job.tools_in_prompt) note_own_tools(out);
  if (out.train.empty()) throw Error(fmt::format("{}: no row is left to train on", file.string()));
  return out;
}

TrainConfig train_config(const Job& job) {
  const TrainSettings& t = job.train;
  TrainConfig c;
  c.lora.rank = t.rank;
  c.lora.alpha = static_cast<float>(t.alpha);
  c.lora.dropout = static_cast<float>(t.dropout);
  c.lora.rslora = t.rslora;
  c.lora.dora = t.method == "dora";
  c.lora.targets = t.targets;
  c.lora.layers = t.layers;
  c.lora.plus = static_cast<float>(t.lora_plus);
  c.weights.train = t.method == "full";
  if (!t.continue_from.empty()) {
    if (c.weights.train)
      throw Error("train.continue_from: names an adapter, but train.method is \"full\"; leave one of them out");
    c.start = std::make_shared<LoraAdapter>(read_adapter(job.folder / t.continue_from));
  }
  c.weights.master = t.master;
  c.optimizer.eight_bit = t.optimizer == "adamw8bit";
  c.optimizer.rounding_seed = t.seed;
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
  c.memory_limit = static_cast<size_t>(t.memory_mb) * 1'000'000;
  c.patience = t.patience;
  if (t.metric_rows > 0 && !c.weights.train)
    c.chosen_by = fmt::format("exact answers on up to {} dev rows", t.metric_rows);
  c.checkpoint_seconds = 60 * t.checkpoint_minutes;
  if (job.preference) {
    const PreferenceSettings& p = *job.preference;
    c.preference = {.loss = p.loss == "ipo"    ? PreferenceLoss::kIpo
                            : p.loss == "orpo" ? PreferenceLoss::kOrpo
                            : p.loss == "kto"  ? PreferenceLoss::kKto
                                               : PreferenceLoss::kDpo,
                    .beta = p.beta,
                    .label_smoothing = p.label_smoothing,
                    .sft_weight = p.sft_weight,
                    .lambda = p.lambda,
                    .desirable_weight = p.desirable_weight,
                    .undesirable_weight = p.undesirable_weight};
  }
  return c;
}

TunedRun tune_job(const Job& job, const Model& model, const TrainingData& data, TrainCallbacks callbacks,
                  const CalibrateCalls& calibrate, const RunChoice& choice) {
  TrainConfig config = train_config(job);
  TunedRun run;
  const FolderLock lock = choose_run(job, choice, run_identity(model, config, data.train, data.dev), run.folder);
  config.checkpoint = checkpoint_file(run.folder);
  JobManifest manifest = manifest_of(job, model);
  callbacks.keep_last_good = [&](const Trainable& best, int64_t step) -> std::string {
    give_up(run.folder, "the training diverged");
    if (step == 0) return "";
    const auto kept = write_trained(job, best, manifest, run.folder / "last_good");
    return fmt::format("the {} of step {} is {}", best.weights == nullptr ? "adapter" : "model", step, kept.string());
  };
  run.result = train(model, config, data.train, data.dev, callbacks);
  write_file(run.folder / "history.json", history_to_json(run.result, config.chosen_by).dump(1) + "\n");
  if (run.result.cancelled) return run;

  const Trainable& trained = run.result.trained;
  if (calibrate && trained.weights != nullptr) {
    manifest.call_threshold =
        calibrate({}, build_model(with_weights(open_model(resolve_model(job.base)), *trained.weights)));
  } else if (calibrate) {
    manifest.call_threshold = calibrate(to_adapter(*trained.lora, job.base), nullptr);
  }
  run.call_threshold = manifest.call_threshold;
  write_trained(job, trained, manifest, trained.weights == nullptr ? run.adapter() : run.folder / "model");
  mark_finished(run.folder);
  std::error_code ignored;  // of use only while the run was not finished
  std::filesystem::remove(config.checkpoint, ignored);
  return run;
}

}  // namespace thimble
