#include "train/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/cpu.h"
#include "core/error.h"
#include "data/job.h"
#include "train/checkpoint.h"
#include "train/divergence.h"
#include "train/finite_weights.h"
#include "train/on_policy.h"
#include "train/preference.h"
#include "train/smoothed.h"
#include "train/train_ops.h"
#include "train/train_work.h"

namespace thimble {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check_preference(const PreferenceConfig& c, std::span<const TrainRow> rows) {
  if (!(c.beta > 0) || !std::isfinite(c.beta))
    throw Error(fmt::format("training settings: beta is {}; it must be above 0", c.beta));
  if (!c.pairs()) return;
  if (rows.size() % 2 != 0) throw Error("preference tuning: a right or a wrong answer has no partner");
  for (size_t i = 0; i < rows.size(); i += 2)
    if (!rows[i].wanted || rows[i + 1].wanted)
      throw Error(fmt::format("row {}: a pair is a right answer and, after it, a wrong one", rows[i].row));
}

void check_on_policy(const TrainConfig& config, std::span<const TrainRow> rows) {
  const DistillConfig& c = *config.distill;
  const OnPolicyConfig& own = c.on_policy;
  const auto refuse = [](const std::string& what) { throw Error("training settings: " + what); };
  if (!(own.share >= 0) || own.share > 1)
    refuse(fmt::format("the share of the student's own answers is {}; it must be from 0 to 1", own.share));
  if (own.share == 0) return;
  if (!(own.temperature >= 0) || !std::isfinite(own.temperature))
    refuse(fmt::format("the temperature of the student's answers is {}; it must be 0 or more", own.temperature));
  if (own.max_new_tokens < 1)
    refuse(fmt::format("the student's answers have at most {} tokens; it must be 1 or more", own.max_new_tokens));
  if (c.teacher == nullptr) refuse("the student's own answers need a teacher that runs beside, no saved tokens");
  if (c.weight != 1)
    refuse(fmt::format("the teacher's weight is {}, but the student's own answers have no right tokens for the rest; "
                       "set it to 1",
                       c.weight));
  if (config.weights.train)
    refuse("the student's own answers need an adapter: all weights would have to be packed anew for every step");
  for (const TrainRow& row : rows)
    if (row.answer == 0 || row.answer >= row.tokens.size())
      throw Error(fmt::format("row {}: it has no prompt that the student could answer", row.row));
}

void check_distill(const DistillConfig& c, const Model& model, std::span<const TrainRow> rows) {
  const auto refuse = [](const char* what, float value, const char* range) {
    throw Error(fmt::format("training settings: {} is {}; it must be {}", what, value, range));
  };
  if (!(c.temperature > 0) || !std::isfinite(c.temperature)) refuse("temperature", c.temperature, "above 0");
  if (!(c.weight > 0) || c.weight > 1) refuse("the teacher's weight", c.weight, "above 0, at most 1");
  if (c.divergence == Divergence::kJsd && !(c.beta > 0 && c.beta < 1)) refuse("beta", c.beta, "between 0 and 1");
  if (c.teacher == nullptr) {
    if (c.temperature != 1) refuse("temperature", c.temperature, "1, which a teacher's tokens were saved at");
    for (const TrainRow& row : rows) {
      if (row.teacher.size() != static_cast<size_t>(trained_tokens(row)))
        throw Error(fmt::format("row {}: there is no teacher for its tokens", row.row));
      for (const auto& top : row.teacher)
        for (const TeacherToken& t : top)
          if (t.token < 0 || t.token >= model.head->out())
            throw Error(fmt::format("row {}: its teacher knows token {}, but the model predicts {}", row.row, t.token,
                                    model.head->out()));
    }
  } else if (c.teacher->head->out() != model.head->out()) {
    throw Error(fmt::format("the teacher predicts {} tokens and the student {}; distillation needs one vocabulary",
                            c.teacher->head->out(), model.head->out()));
  }
}

void check(const Model& model, const TrainConfig& c, std::span<const TrainRow> rows) {
  const auto refuse = [](const std::string& what) { throw Error("training settings: " + what); };
  if (!(c.learning_rate > 0) || !std::isfinite(c.learning_rate))
    refuse(fmt::format("learning rate is {}; it must be above 0", c.learning_rate));
  if (!(c.epochs > 0) || c.epochs > 10000) refuse(fmt::format("epochs is {}; choose above 0 to 10000", c.epochs));
  if (!(c.warmup_share >= 0) || c.warmup_share > 1)
    refuse(fmt::format("warm-up share is {}; it must be from 0 to 1", c.warmup_share));
  if (!(c.revisit > 0) || c.revisit > 1)
    refuse(fmt::format("revisit is {}; it must be above 0, at most 1", c.revisit));
  if (c.revisit < 1 && (c.preference || c.distill))
    refuse("revisit goes by the loss of right answers; with preference tuning and distillation leave it at 1");
  if (c.batch_rows < 1) refuse(fmt::format("batch_rows is {}; it must be at least 1", c.batch_rows));
  if (c.token_budget < 1) refuse(fmt::format("token budget is {}; it must be at least 1", c.token_budget));
  if (c.evaluations < 0) refuse(fmt::format("evaluations is {}; it must be 0 or more", c.evaluations));
  if (!(c.checkpoint_seconds >= 0))
    refuse(fmt::format("checkpoint seconds is {}; it must be 0 or more", c.checkpoint_seconds));
  if (c.patience < 0) refuse(fmt::format("patience is {}; it must be 0 or more", c.patience));
  if (!(c.optimizer.clip >= 0)) refuse(fmt::format("clip is {}; it must be 0 or more", c.optimizer.clip));
  if (!(c.optimizer.weight_decay >= 0))
    refuse(fmt::format("weight decay is {}; it must be 0 or more", c.optimizer.weight_decay));
  if (!(c.neftune >= 0) || !std::isfinite(c.neftune))
    refuse(fmt::format("neftune is {}; it must be 0 or more", c.neftune));
  if (rows.empty()) throw Error("there are no rows to train on");
  if (c.preference) check_preference(*c.preference, rows);
  if (c.distill) check_distill(*c.distill, model, rows);
  if (c.distill) check_on_policy(c, rows);
  if (c.preference && c.distill) refuse("preference tuning and distillation at once; choose one");
  for (const TrainRow& row : rows)
    if (computed_tokens(row) > model.config.context)
      throw Error(fmt::format("row {}: {} tokens, but the model reads at most {}; cut the row or leave it out", row.row,
                              row.tokens.size(), model.config.context));
}

// How a run's steps fall into epochs.
struct EpochSteps {
  int64_t first = 1, later = 1;  // of the first epoch, and of each after it
  int64_t epoch(int64_t step) const { return step < first ? 0 : 1 + (step - first) / later; }
  int64_t begin(int64_t epoch) const { return epoch == 0 ? 0 : first + (epoch - 1) * later; }
};
size_t revisited_rows(const TrainConfig& config, size_t rows) {
  return static_cast<size_t>(std::max<int64_t>(1, std::llround(config.revisit * static_cast<double>(rows))));
}
EpochSteps epoch_steps(const TrainConfig& config, size_t rows) {
  const auto steps = [&](size_t count) {
    return (static_cast<int64_t>(count) / config.together() + config.batch_rows - 1) / config.batch_rows;
  };
  return {steps(rows), config.revisit < 1 ? steps(revisited_rows(config, rows)) : steps(rows)};
}

double mean_loss(TrainOps& ops, std::span<const TrainRow> rows, int64_t token_budget,
                 const std::function<HeadLoss(const TrainBatch&)>& loss_of = {}) {
  double sum = 0, weight = 0;
  for (const MicroBatch& micro : pack_in_order(rows, token_budget)) {
    const TrainBatch batch = make_batch(rows, micro);
    sum += loss_of ? ops.loss(batch, 1, loss_of(batch)) : ops.loss(batch, 1);
    weight += batch.weight();
  }
  return sum / weight;
}

// One run from start or checkpoint to its end.
class Run {
 public:
  Run(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
      std::span<const TrainRow> dev_rows, const TrainCallbacks& callbacks, int recomputed_blocks)
      : model_(model),
        config_(config),
        train_(train_rows),
        dev_(dev_rows),
        callbacks_(callbacks),
        trainable_(make_trainable(model, config)),
        ops_(model, trainable_,
             {.precision = config.precision,
              .recomputed_blocks = recomputed_blocks,
              .dropout_seed = config.seed,
              .neftune = static_cast<float>(config.neftune)}),
        optimizer_(trainable_.parameters(), config.optimizer),
        total_steps_(planned_steps(config, train_rows.size())),
        epochs_(epoch_steps(config, train_rows.size())),
        state_(train_rows.size()) {
    optimizer_.reduce = callbacks.reduce;
    schedule_ = {.peak = config.learning_rate,
                 .warmup_steps = static_cast<int>(std::lround(config.warmup_share * static_cast<double>(total_steps_))),
                 .total_steps = static_cast<int>(total_steps_),
                 .decay = config.decay};
    int64_t epoch_tokens = 0;
    plan_of(0);
    for (const StepPlan& step : plan_) epoch_tokens += step.tokens;
    total_tokens_ =
        static_cast<double>(epoch_tokens) * static_cast<double>(total_steps_) / static_cast<double>(epochs_.first);
    if (config.distill) {
      distiller_.emplace(*config.distill, train_rows, config.precision);
      dev_distiller_.emplace(*config.distill, dev_rows, config.precision);
    }
    if (config.distill && config.distill->on_policy.share > 0)
      student_.emplace(model, *trainable_.lora, config.distill->on_policy, config.precision, train_rows,
                       config.batch_rows, config.seed);
    if (config.preference) measure_reference();  // before a checkpoint's values replace those of the start
    if (!config.checkpoint.empty()) {
      identity_ = run_identity(model, config, train_rows, dev_rows);
      if (load_checkpoint(config.checkpoint, identity_, state_, optimizer_)) saved_step_ = state_.step;
    }
    for (const HistoryPoint& point : state_.history) {
      if (point.step == 0) continue;
      begin_epoch_of(point.step - 1);
      smoothed_.add(point.loss);
      watch_.add(point.loss, point.gradient_norm);
    }
    started_ = now() - state_.seconds;
    saved_ = now();
    first_seconds_ = state_.seconds;
    first_tokens_ = state_.tokens;
  }

  TrainResult run() {
    if (state_.step == 0 && state_.history.empty() && evaluates() && !is_cancelled()) {
      HistoryPoint start;
      evaluate(start);
      state_.history.push_back(start);
      if (callbacks_.on_step) callbacks_.on_step(start);
      save();
    }
    bool cancelled = is_cancelled();
    while (state_.step < total_steps_ && !out_of_patience() && !cancelled) {
      if (!take_step()) {
        cancelled = true;
        save();
      }
    }
    return result(cancelled, out_of_patience());
  }

 private:
  bool is_cancelled() const { return callbacks_.cancelled != nullptr && callbacks_.cancelled->load(); }
  bool out_of_patience() const {
    return config_.patience > 0 && state_.evaluations_since_best >= config_.patience;
  }
  bool evaluates() const { return config_.evaluations > 0 && (!dev_.empty() || callbacks_.metric); }
  bool evaluates_after(int64_t step) const {
    if (config_.evaluations == 0) return false;
    const int64_t e = config_.evaluations;
    return step == total_steps_ || step * e / total_steps_ != (step - 1) * e / total_steps_;
  }

  const StepPlan& plan_of(int64_t step) {
    const int64_t epoch = epochs_.epoch(step);
    if (epoch != planned_epoch_) {
      if (epoch > 0 && config_.revisit < 1)
        plan_ = pack_epoch_of(state_.revisits.of_epoch(epoch, revisited_rows(config_, train_.size())), train_,
                              config_.batch_rows, config_.token_budget, config_.seed, static_cast<int>(epoch));
      else
        plan_ = pack_epoch(train_, config_.batch_rows, config_.token_budget, config_.seed, static_cast<int>(epoch),
                           config_.together());
      planned_epoch_ = epoch;
    }
    return plan_[static_cast<size_t>(step - epochs_.begin(epoch))];
  }

  // Where only rows with much trouble come from now on, losses and gradients are larger without anything being wrong.
  void begin_epoch_of(int64_t step) {
    if (config_.revisit < 1 && step == epochs_.begin(epochs_.epoch(step))) watch_ = {};
  }

  // False where the run was cancelled; the step then counts as not begun.
  bool take_step() {
    const double begin = now();
    const StepPlan& planned = plan_of(state_.step);
    std::optional<StudentAnswers::Step> own;
    if (student_) {
      own = student_->answer(planned.micro_batches, epochs_.epoch(state_.step), callbacks_.cancelled);
      if (!own) return false;
      sampled_in_step_ = own->sampled_tokens;
    }
    const std::span<const TrainRow> rows = own ? std::span<const TrainRow>(own->rows) : train_;
    const StepPlan plan = own ? pack_step(rows, config_.token_budget) : planned;
    double loss = 0;
    int64_t micro_done = 0;
    std::vector<float> token_losses;
    std::vector<Revisits::RowLoss> row_losses;
    begin_epoch_of(state_.step);
    if (preference_) preference_->begin(ops_, plan.micro_batches);
    for (const MicroBatch& micro : plan.micro_batches) {
      if (is_cancelled()) {
        zero_gradients(optimizer_.parameters());
        return false;
      }
      const TrainBatch batch = make_batch(rows, micro);
      const auto dropout_step = static_cast<uint64_t>(state_.micro_batches + micro_done);
      const double part =
          preference_  ? ops_.loss_and_gradients(batch, preference_->loss_of(batch), dropout_step)
          : distiller_ ? ops_.loss_and_gradients(batch, plan.weight, distiller_->loss_of(batch), dropout_step)
                       : ops_.loss_and_gradients(batch, plan.weight, cross_entropy_loss(&token_losses), dropout_step);
      if (!std::isfinite(part)) fail("the loss is not a finite number", rows, micro);
      if (config_.revisit < 1) Revisits::collect(batch, token_losses, row_losses);
      loss += part;
      ++micro_done;
      report(micro.tokens);
    }
    HistoryPoint point;
    point.learning_rate = learning_rate(schedule_, static_cast<int>(state_.step));
    point.gradient_norm = optimizer_.step(point.learning_rate);
    if (!std::isfinite(point.gradient_norm)) fail("the gradient is not a finite number", rows, rows_of(plan));
    if (const auto found = watch_.add(loss, point.gradient_norm))
      fail(fmt::format("the {} has exploded, {:.4g} where the steps before had at most {:.4g},",
                       found->gradient ? "gradient's norm" : "loss", found->value, found->highest),
           rows, rows_of(plan));
    smoothed_.add(loss);
    state_.revisits.add_step(row_losses);
    const double end = now();
    ++state_.step;
    state_.micro_batches += micro_done;
    state_.tokens += plan.tokens;
    state_.trained_tokens += plan.trained;
    state_.seconds = end - started_;
    in_step_ = 0;
    if (own) {
      state_.sampled_tokens += own->sampled_tokens;
      point.sampled_tokens = state_.sampled_tokens;
      // Answers are longer or shorter than the rows' own: what is to come follows from what was.
      total_tokens_ = static_cast<double>(state_.tokens) * static_cast<double>(total_steps_) /
                      static_cast<double>(state_.step);
    }
    sampled_in_step_ = 0;
    point.step = state_.step;
    point.tokens = state_.tokens;
    point.loss = loss;
    point.smoothed_loss = smoothed_.value();
    point.tokens_per_second = static_cast<double>(plan.tokens) / std::max(end - begin, 1e-9);
    if (callbacks_.peak_operations > 0)
      point.peak_share = step_operations(model_, trainable_, plan.tokens, plan.trained) / std::max(end - begin, 1e-9) /
                         callbacks_.peak_operations;
    point.seconds = state_.seconds;
    last_step_ = point;
    const bool milestone = evaluates_after(state_.step);
    if (milestone && evaluates()) evaluate(point);
    point.seconds_left = seconds_left();
    state_.history.push_back(point);
    if (milestone || state_.step == total_steps_ || now() - saved_ >= config_.checkpoint_seconds) save();
    if (callbacks_.on_step) callbacks_.on_step(point);
    return true;
  }

  void evaluate(HistoryPoint& point) {
    if (!dev_.empty()) {
      if (dev_preference_) {
        const PreferenceMeasure measured = dev_preference_->evaluate(ops_);
        point.dev_loss = measured.loss;
        point.dev_accuracy = measured.accuracy;
        point.dev_margin = measured.margin;
      } else {
        point.dev_loss = dev_distiller_
                             ? mean_loss(ops_, dev_, config_.token_budget,
                                         [&](const TrainBatch& batch) { return dev_distiller_->loss_of(batch); })
                             : mean_loss(ops_, dev_, config_.token_budget);
      }
      last_dev_loss_ = point.dev_loss;
    }
    if (callbacks_.metric) point.metric = callbacks_.metric(trainable_, state_.step);
    if (point.metric) last_metric_ = point.metric;
    state_.seconds = now() - started_;
    point.seconds = state_.seconds;
    if (!is_better(point)) {
      ++state_.evaluations_since_best;
      return;
    }
    state_.evaluations_since_best = 0;
    state_.best_step = state_.step;
    state_.best_dev_loss = point.dev_loss;
    state_.best_metric = point.metric;
    state_.best = copy_values(optimizer_.parameters());
  }

  bool is_better(const HistoryPoint& point) const {
    const bool lower = point.dev_loss && (!state_.best_dev_loss || *point.dev_loss < *state_.best_dev_loss);
    if (!point.metric) return !state_.best_metric && lower;
    if (!state_.best_metric || *point.metric > *state_.best_metric) return true;
    return *point.metric == *state_.best_metric && lower;
  }

  void measure_reference() {
    preference_.emplace(*config_.preference, train_, config_.token_budget);
    bool whole = preference_->measure_reference(ops_, callbacks_.progress, callbacks_.cancelled);
    if (dev_.empty() || !whole) return;
    dev_preference_.emplace(*config_.preference, dev_, config_.token_budget);
    dev_preference_->measure_reference(ops_, callbacks_.progress, callbacks_.cancelled);
  }

  // A checkpoint that can't be written leaves the one before it; the training goes on and tries again.
  void save() {
    if (config_.checkpoint.empty()) return;
    saved_ = now();
    try {
      save_checkpoint(config_.checkpoint, identity_, state_, optimizer_);
      saved_step_ = state_.step;
    } catch (const Error& error) {
      if (callbacks_.warn)
        callbacks_.warn(fmt::format("the checkpoint of step {} was not saved, {}; training goes on: {}", state_.step,
                                    saved_step_ ? fmt::format("that of step {} is kept", *saved_step_)
                                                : "and there is none before it",
                                    error.what()));
    }
  }

  double seconds_left() const {
    const double done = static_cast<double>(state_.tokens + in_step_);
    const double rate = (done - static_cast<double>(first_tokens_)) / std::max(now() - started_ - first_seconds_, 1e-9);
    return std::max(0.0, total_tokens_ - done) / std::max(rate, 1e-9);
  }

  void report(int64_t tokens) {
    in_step_ += tokens;
    if (!callbacks_.progress) return;
    std::string detail = fmt::format("step {}/{}", state_.step + 1, total_steps_);
    if (last_step_) {
      detail += fmt::format("  loss {:.3f} ({:.3f})  |g| {:.2g}  lr {:.2g}", last_step_->smoothed_loss,
                            last_step_->loss, last_step_->gradient_norm, last_step_->learning_rate);
      if (last_step_->peak_share) detail += fmt::format("  {:.0f} % of peak", 100 * *last_step_->peak_share);
    }
    if (student_) detail += fmt::format("  {} sampled", state_.sampled_tokens + sampled_in_step_);
    if (last_dev_loss_) detail += fmt::format("  dev {:.3f}", *last_dev_loss_);
    if (last_metric_) detail += fmt::format("  exact {:.1f} %", 100 * *last_metric_);
    const double done = static_cast<double>(state_.tokens + in_step_);
    callbacks_.progress({"training", done, total_tokens_, "tokens", std::move(detail)});
  }

  static MicroBatch rows_of(const StepPlan& plan) {
    MicroBatch all;
    for (const MicroBatch& micro : plan.micro_batches)
      all.rows.insert(all.rows.end(), micro.rows.begin(), micro.rows.end());
    return all;
  }

  [[noreturn]] void fail(const std::string& what, std::span<const TrainRow> data, const MicroBatch& micro) {
    std::vector<int> rows;
    for (const int index : micro.rows) rows.push_back(data[static_cast<size_t>(index)].row);
    std::sort(rows.begin(), rows.end());
    std::string kept;
    if (callbacks_.keep_last_good) {
      if (!state_.best.empty()) put_values(state_.best, optimizer_.parameters());
      kept = callbacks_.keep_last_good(trainable_, state_.best.empty() ? 0 : state_.best_step);
    }
    if (saved_step_)
      kept += fmt::format("{}the checkpoint of step {} is {}", kept.empty() ? "" : "; ", *saved_step_,
                          config_.checkpoint.string());
    throw Error(fmt::format("{} at step {} (rows {}); lower the learning rate ({}) or look at these rows{}{}", what,
                            state_.step + 1, fmt::join(rows, ", "), config_.learning_rate, kept.empty() ? "" : "; ",
                            kept));
  }

  TrainResult result(bool cancelled, bool stopped) {
    TrainResult out;
    if (state_.best.empty()) {
      out.best_step = state_.step;
    } else {
      put_values(state_.best, optimizer_.parameters());
      out.best_step = state_.best_step;
    }
    out.trained = std::move(trainable_);
    out.best_dev_loss = state_.best_dev_loss;
    out.best_metric = state_.best_metric;
    out.history = std::move(state_.history);
    out.steps = state_.step;
    out.planned_steps = total_steps_;
    out.tokens = state_.tokens;
    out.trained_tokens = state_.trained_tokens;
    out.seconds = now() - started_;
    out.cancelled = cancelled;
    out.stopped_early = stopped && state_.step < total_steps_;
    return out;
  }

  const Model& model_;
  const TrainConfig& config_;
  std::span<const TrainRow> train_, dev_;
  const TrainCallbacks& callbacks_;
  Trainable trainable_;
  TrainOps ops_;
  Optimizer optimizer_;
  Schedule schedule_;
  int64_t total_steps_;
  EpochSteps epochs_;
  double total_tokens_ = 0;
  RunIdentity identity_;
  RunState state_;
  std::optional<Preference> preference_, dev_preference_;  // of the training and of the dev rows
  std::optional<Distiller> distiller_, dev_distiller_;     // likewise
  std::optional<StudentAnswers> student_;                  // of on-policy distillation
  std::vector<StepPlan> plan_;
  int64_t planned_epoch_ = -1;
  DivergenceWatch watch_;
  Smoothed smoothed_;
  double saved_ = 0;                   // when a checkpoint was last tried
  std::optional<int64_t> saved_step_;  // of the checkpoint on disk
  double started_ = 0;        // as if earlier parts of a resumed run had just been
  double first_seconds_ = 0;  // where this part of the run began
  int64_t first_tokens_ = 0;
  int64_t in_step_ = 0;  // tokens of the step that is on its way
  int64_t sampled_in_step_ = 0;
  std::optional<HistoryPoint> last_step_;
  std::optional<double> last_dev_loss_, last_metric_;
};

}  // namespace

int64_t planned_steps(const TrainConfig& config, size_t rows) {
  const EpochSteps steps = epoch_steps(config, rows);
  const double first = std::min(config.epochs, 1.0), later = config.epochs - first;
  return std::max<int64_t>(1, std::llround(first * static_cast<double>(steps.first) +
                                           later * static_cast<double>(steps.later)));
}

double epochs_of(const TrainConfig& config, size_t rows, int64_t steps) {
  const EpochSteps in = epoch_steps(config, rows);
  return steps <= in.first ? static_cast<double>(steps) / static_cast<double>(in.first)
                           : 1 + static_cast<double>(steps - in.first) / static_cast<double>(in.later);
}

Trainable make_trainable(const Model& model, const TrainConfig& config) {
  const GemmPrecision precision = has_bf16_products(cpu_level()) ? config.precision : GemmPrecision::kF32;
  if (config.weights.train)
    return {.lora = nullptr, .weights = std::make_unique<Weights>(model, precision, config.weights.master)};
  Trainable out{.lora = std::make_unique<Lora>(model, config.lora, config.seed), .weights = nullptr};
  if (config.start != nullptr) {
    if (!config.start->manifest.empty()) {
      const JobManifest manifest = parse_manifest(config.start->manifest, "continue_from: thimble_job.json");
      if (manifest.base_fingerprint != model.fingerprint)
        throw Error(fmt::format("continue_from: the adapter was trained on another base model ('{}', fingerprint "
                                "{:.12}) than this one (fingerprint {:.12}); go on with the base that it belongs to",
                                manifest.base, manifest.base_fingerprint, model.fingerprint));
    }
    try {
      from_adapter(*config.start, *out.lora);
    } catch (const Error& error) {
      throw Error(fmt::format("continue_from: {}", error.what()));
    }
  }
  return out;
}

TrainResult train(const Model& model, const TrainConfig& config, std::span<const TrainRow> train_rows,
                  std::span<const TrainRow> dev_rows, const TrainCallbacks& callbacks) {
  check(model, config, train_rows);
  if (!dev_rows.empty()) check(model, config, dev_rows);
  refuse_broken_weights(model);
  const MemoryPlan memory = plan_memory(model, config, train_rows);
  TrainResult result = Run(model, config, train_rows, dev_rows, callbacks, memory.recomputed_blocks).run();
  result.memory = memory;
  return result;
}

double evaluate_loss(const Model& model, const Trained& trained, std::span<const TrainRow> rows, GemmPrecision precision,
                     int64_t token_budget) {
  if (rows.empty()) throw Error("there are no rows to evaluate");
  TrainOps ops(model, trained, {.precision = precision});
  return mean_loss(ops, rows, token_budget);
}

}  // namespace thimble
