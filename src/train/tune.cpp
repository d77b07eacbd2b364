#include "train/tune.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/random.h"
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
void weigh_text(const EncodedRow& row, double text_weight, std::vector<float>& weights) {
  const auto last = row.tokens.size() - 1 -
                    static_cast<size_t>(std::find(row.trained.rbegin(), row.trained.rend(), 1) - row.trained.rbegin());
  size_t trained = 0;
  for (size_t i = row.answer; i < last; ++i)
    if (row.trained[i] != 0 && trained++ > row.plan_tokens) weights[i] *= static_cast<float>(text_weight);
}

// What each token of a row counts: its message's weight, its row's, and that of text. Empty where all count 1.
std::vector<float> token_weights(const Row& row, const EncodedRow& encoded, double text_weight) {
  std::vector<float> weights = encoded.weights;
  const bool text = row.calls.empty() && text_weight < 1;
  if (weights.empty() && !text && row.weight == 1) return {};
  weights.resize(encoded.tokens.size(), 1.0f);
  if (text) weigh_text(encoded, text_weight, weights);
  for (float& weight : weights) weight *= static_cast<float>(row.weight);
  return weights;
}

// Rows of a job without [preference] have no verdicts, those of a job with it have the ones that its loss needs.
void check_verdicts(const Job& job, std::span<const Row> rows, const std::string& file, CheckReport& report) {
  for (const Row& row : rows) {
    const char* problem = nullptr;
    if (!job.preference && (row.rejected || row.label))
      problem = "it has a rejected answer or a label, but thimble.toml has no [preference] to say what to do with it";
    else if (job.preference && job.preference->loss == "kto" && !row.rejected && !row.label)
      problem = "it has neither a label nor a rejected answer, which the loss kto needs";
    else if (job.preference &&
             std::any_of(row.turns.begin(), row.turns.end(), [](const Turn& t) { return t.weight > 0; }))
      problem = "an earlier message has a weight, but preference tuning is of answers; leave it out";
    else if (job.preference && row.answer_weight != 1)
      problem = "its answer has a weight of its own, but preference tuning is of whole answers; give the row a weight";
    else if (job.preference && job.preference->loss != "kto" && !row.rejected)
      problem = "it has no rejected answer, which the loss needs; only kto learns from rows with a label";
    if (problem != nullptr) report.errors.push_back(fmt::format("{}: row {}: {}.", file, row.number, problem));
  }
}

std::string objective_of(const Job& job) {
  if (job.distill) {
    const DistillSettings& d = *job.distill;
    const std::string teacher = d.from.empty() ? d.teacher + (d.adapter.empty() ? "" : " with " + d.adapter) : d.from;
    if (d.sequence()) return fmt::format("cross-entropy of the answers of {}", teacher);
    std::string text = fmt::format("{} from {}",
                                   d.kind == "forward_kl"   ? "forward KL divergence"
                                   : d.kind == "reverse_kl" ? "reverse KL divergence"
                                                            : fmt::format("JSD with beta {:g}", d.beta),
                                   teacher);
    if (d.temperature != 1) text += fmt::format(" at temperature {:g}", d.temperature);
    if (d.on_policy > 0)
      text += fmt::format(", over the student's own answers in {:g} % of the rows (temperature {:g}, at most {} "
                          "tokens)",
                          100 * d.on_policy, d.sample_temperature, d.max_new_tokens);
    if (d.weight < 1) text += fmt::format(", weight {:g}, and the answers' cross-entropy", d.weight);
    return text;
  }
  if (!job.preference) return "cross-entropy of the answers' tokens";
  const PreferenceSettings& p = *job.preference;
  if (p.loss == "orpo")
    return fmt::format("ORPO: cross-entropy of right answers, odds ratio with lambda {:g}", p.lambda);
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

// Every row as it is learned; empty where nothing is rewritten.
std::vector<std::optional<Row>> rewritten_rows(std::span<const Row> rows, std::span<const size_t> train,
                                               const RewriteRows& rewrite) {
  if (!rewrite) return {};
  std::vector<Row> asked;
  for (const size_t i : train) asked.push_back(rows[i]);
  std::vector<std::optional<Row>> answers = rewrite(asked), out(rows.begin(), rows.end());
  for (size_t i = 0; i < train.size(); ++i) out[train[i]] = std::move(answers[i]);
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

// Rows of other jobs, as many as their weights say, drawn by the seed from their training parts alone.
void mix_in(const Job& job, const PromptStyle& style, TrainingData& out) {
  const size_t own = out.train.size();
  for (const MixSettings& mix : job.mix) {
    const Job other = load_job(job.folder / mix.job);
    const std::string file = other.train_file().string();
    const std::vector<Row> rows = read_rows(other.train_file());
    CheckReport report = check_rows(rows, other.tools, file);
    for (const Job* tested : {&job, &other}) {
      if (!std::filesystem::exists(tested->test_file())) continue;
      const CheckReport leaks =
          check_leaks(rows, read_rows(tested->test_file()), file, tested->test_file().string());
      report.errors.insert(report.errors.end(), leaks.errors.begin(), leaks.errors.end());
    }
    check_verdicts(Job{}, rows, file, report);
    report.throw_if_errors();
    std::vector<size_t> order = split_rows(rows, other.train.dev_share, other.train.seed).train;
    Random(job.train.seed).shuffle(order);
    const auto due = static_cast<size_t>(std::llround(mix.weight * static_cast<double>(own)));
    const PromptStyle asked = style.with(other.tools_in_prompt, other.plan, other.system, other.tools);
    size_t taken = 0, too_long = 0;
    for (const size_t i : order) {
      if (taken == due) break;
      EncodedRow encoded = asked.encode(rows[i]);
      if (static_cast<int64_t>(encoded.tokens.size()) > job.train.max_tokens) {
        ++too_long;
        continue;
      }
      TrainRow train{encoded.tokens, encoded.trained, rows[i].number,
                     token_weights(rows[i], encoded, other.train.text_weight)};
      for (const Role role : encoded.roles) ++out.card.tokens[static_cast<size_t>(role)];
      out.card.trained_tokens += trained_tokens(train);
      out.card.longest = std::max(out.card.longest, static_cast<int64_t>(train.tokens.size()));
      out.train.push_back(std::move(train));
      ++taken;
    }
    if (taken == 0) throw Error(fmt::format("{}: gives no row to mix in; take the [[mix]] out", file));
    out.card.train_rows += taken;
    out.card.mixed[other.name] += taken;
    if (taken < due)
      out.card.notes.push_back(fmt::format("{} of {} rows that the weight {:g} asks for: {} has no more{}", taken, due,
                                           mix.weight, file,
                                           too_long > 0 ? fmt::format(" ({} are too long)", too_long) : ""));
  }
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

TrainingData prepare_training(const Job& job, const PromptStyle& style, const RewriteRows& rewrite) {
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
  if (job.distill && job.distill->sequence() && !rewrite)
    throw Error("[distill] kind = \"sequence\": only `thimble tune` and `make` ask the teacher for its answers; choose "
                "another kind for this");
  size_t untaught = 0;
  const std::vector<std::optional<Row>> rewritten = rewritten_rows(out.rows, split.train, rewrite);
  for (size_t i = 0; i < out.rows.size(); ++i) {
    if (!rewritten.empty() && !rewritten[i]) {
      ++untaught;
      continue;
    }
    Row row = rewritten.empty() ? out.rows[i] : *rewritten[i];
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
    TrainRow train{encoded.tokens, encoded.trained, row.number, token_weights(row, encoded, job.train.text_weight)};
    train.weight = row.weight;
    train.answer = encoded.answer;
    if (trained_tokens(train) == 0)
      throw Error(
          fmt::format("{}: row {} would train on no token; give it calls or an answer", file.string(), row.number));
    train.wanted = row.label.value_or(true);
    std::optional<TrainRow> rejected;
    if (answers.rejected)
      rejected = {answers.rejected->tokens, answers.rejected->trained, row.number, {}, row.weight, false};
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
      out.example = std::move(encoded);
      out.rejected_example = std::move(answers.rejected);
    }
    ++(rejected ? out.card.pairs : train.wanted ? out.card.wanted : out.card.unwanted);
    out.train.push_back(std::move(train));
    if (rejected) out.train.push_back(std::move(*rejected));
    ++out.card.train_rows;
  }
  if (untaught > 0)
    out.card.notes.push_back(fmt::format("{} rows are left out: the teacher's answer can't be learned", untaught));
  if (out.card.dropped_rows > 0)
    out.card.notes.push_back(fmt::format("{} rows were longer than {} tokens and were dropped", out.card.dropped_rows,
                                         job.train.max_tokens));
  if (out.card.cut_rows > 0)
    out.card.notes.push_back(fmt::format("{} rows were longer than {} tokens: {} tokens of their earlier turns were "
                                         "cut, none of them trained",
                                         out.card.cut_rows, job.train.max_tokens, out.card.cut_tokens));
  if (!job.tools_in_prompt) note_own_tools(out);
  if (out.train.empty()) throw Error(fmt::format("{}: no row is left to train on", file.string()));
  mix_in(job, style, out);
  if (job.distill && !job.distill->from.empty()) {
    read_teacher(job.folder / job.distill->from, out.train, out.dev);
  } else if (job.distill && !job.distill->sequence()) {
    out.teacher = load_teacher(job, style.tokenizer());
  }
  return out;
}

std::shared_ptr<const Teacher> load_teacher(const Job& job, const Tokenizer& student) {
  const DistillSettings& d = *job.distill;
  if (d.teacher.empty()) throw Error("[distill] names no teacher; give one (teacher = a path or a pulled name)");
  auto teacher = std::make_shared<Teacher>();
  teacher->model = load_model(resolve_model(d.teacher));
  const Tokenizer theirs = Tokenizer::from(teacher->model->vocabulary);
  bool same = theirs.vocab_size() == student.vocab_size();
  for (int32_t id = 0; same && id < student.vocab_size(); ++id)
    same = theirs.token_bytes(id) == student.token_bytes(id);
  if (!same)
    throw Error(fmt::format("the teacher {} has another vocabulary than the student {}, so that their tokens can't be "
                            "compared; choose a teacher of the same family, or kind = \"sequence\"",
                            d.teacher, job.base));
  if (d.adapter.empty()) return teacher;
  const auto folder = job.folder / d.adapter;
  const LoraAdapter adapter = read_adapter(folder);
  if (!adapter.manifest.empty()) {
    const JobManifest manifest = parse_manifest(adapter.manifest, (folder / "thimble_job.json").string());
    if (manifest.base_fingerprint != teacher->model->fingerprint)
      throw Error(fmt::format("{}: the adapter belongs to another base model ('{}') than {}; name that one as teacher",
                              folder.string(), manifest.base, d.teacher));
    if (manifest.tools_in_prompt != job.tools_in_prompt || manifest.plan != job.plan || manifest.system != job.system)
      throw Error(fmt::format("{}: was taught with another system message, plan or place of the tools than this job's; "
                              "a teacher sees the student's own prompts, so they must be those that it knows",
                              folder.string()));
  }
  teacher->adapter = stored_lora(*teacher->model, adapter);
  return teacher;
}

TrainConfig train_config(const Job& job, const Teacher* teacher) {
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
  c.revisit = t.revisit;
  c.batch_rows = t.batch_rows;
  c.seed = t.seed;
  c.precision = t.precision == "f32" ? GemmPrecision::kF32 : GemmPrecision::kBF16;
  c.evaluations = t.evaluations;
  c.memory_limit = static_cast<size_t>(t.memory_mb) * 1'000'000;
  c.patience = t.patience;
  if (t.metric_rows > 0 && !c.weights.train)
    c.chosen_by = fmt::format("exact answers on up to {} dev rows", t.metric_rows);
  c.neftune = t.neftune;
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
  if (job.distill && !job.distill->sequence()) {
    const DistillSettings& d = *job.distill;
    DistillConfig& distill = c.distill.emplace();
    distill.divergence = d.kind == "reverse_kl" ? Divergence::kReverseKl
                         : d.kind == "jsd"      ? Divergence::kJsd
                                                : Divergence::kForwardKl;
    distill.beta = static_cast<float>(d.beta);
    distill.temperature = static_cast<float>(d.temperature);
    distill.weight = static_cast<float>(d.weight);
    distill.on_policy = {d.on_policy, static_cast<float>(d.sample_temperature), d.max_new_tokens};
    if (teacher != nullptr) {
      distill.teacher = teacher->model.get();
      distill.teacher_adapter = teacher->adapter.get();
    }
  }
  return c;
}

TunedRun tune_job(const Job& job, const Model& model, const TrainingData& data, TrainCallbacks callbacks,
                  const CalibrateCalls& calibrate, const RunChoice& choice) {
  TrainConfig config = train_config(job, data.teacher.get());
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
