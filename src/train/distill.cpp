#include "train/distill.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "calls/json.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "infer/log_probs.h"
#include "kernels/cross_entropy.h"

namespace thimble {
namespace {

std::vector<int32_t> trained_ids(const TrainRow& row) {
  std::vector<int32_t> out;
  for (size_t i = 1; i < row.tokens.size(); ++i)
    if (row.trained[i] != 0) out.push_back(row.tokens[i]);
  return out;
}

std::vector<std::vector<TeacherToken>> parse_top(const Json& list, const std::string& place) {
  std::vector<std::vector<TeacherToken>> out;
  for (const Json& token : list) {
    std::vector<TeacherToken>& top = out.emplace_back();
    double sum = 0;
    for (const Json& pair : token) {
      const TeacherToken t{pair.at(0).get<int32_t>(), pair.at(1).get<float>()};
      const bool known = std::any_of(top.begin(), top.end(), [&](const auto& other) { return other.token == t.token; });
      if (known || !(t.log_prob <= 0))
        throw Error(fmt::format("{}: token {} with log-probability {} can't be: a token stands once, and logarithms of "
                                "probabilities are at most 0; make the file again",
                                place, t.token, t.log_prob));
      sum += std::exp(static_cast<double>(t.log_prob));
      top.push_back(t);
    }
    if (top.empty() || sum > 1.001)
      throw Error(
          fmt::format("{}: {} tokens of probability {:.4f} together; make the file again", place, top.size(), sum));
  }
  return out;
}

}  // namespace

std::unique_ptr<Lora> stored_lora(const Model& model, const LoraAdapter& adapter) {
  auto lora = std::make_unique<Lora>(model, lora_config(adapter), 0);
  from_adapter(adapter, *lora);
  return lora;
}

Distiller::Distiller(const DistillConfig& config, std::span<const TrainRow> rows, GemmPrecision precision)
    : config_(config), rows_(rows) {
  if (config.teacher != nullptr)
    teacher_ = std::make_unique<TrainOps>(*config.teacher, config.teacher_adapter,
                                          TrainOps::Options{.precision = precision});
}

HeadLoss Distiller::loss_of(const TrainBatch& batch) {
  return [this, &batch](const HeadRows& rows) {
    Distillation args;
    args.precision = rows.precision;
    args.divergence = config_.divergence;
    args.beta = config_.beta;
    args.temperature = config_.temperature;
    args.weight = config_.weight;
    args.hidden = rows.hidden;
    args.rows = rows.rows;
    args.targets = rows.targets.data();
    args.row_weights = rows.weights.data();
    args.head = rows.head;
    args.dhidden = rows.dhidden;
    args.dhead = rows.dhead;
    if (teacher_ != nullptr) {
      const Buffer<float> hidden = teacher_->trained_hidden(batch);
      args.teacher_hidden = hidden.data();
      args.teacher_head = &config_.teacher->head->weight;
      return distillation(args);
    }
    std::vector<std::span<const TeacherToken>> saved(static_cast<size_t>(rows.rows));
    std::map<int, size_t> seen;  // trained tokens of each row
    for_trained(batch, [&](size_t at, size_t, int row) {
      saved[at] = rows_[static_cast<size_t>(row)].teacher.at(seen[row]++);
    });
    args.saved = saved;
    return distillation(args);
  };
}

std::vector<std::vector<std::vector<TeacherToken>>> likeliest_tokens(const Model& teacher, const Trained& adapter,
                                                                     std::span<const TrainRow> rows, int top,
                                                                     GemmPrecision precision, int64_t token_budget,
                                                                     const ProgressFn& progress) {
  TrainOps ops(teacher, adapter, {.precision = precision});
  const int64_t vocab = teacher.head->out(), width = teacher.head->weight.cols();
  const int64_t slice = std::max<int64_t>(1, kLogitsBytes / (vocab * 4));
  std::vector<std::vector<std::vector<TeacherToken>>> out(rows.size());
  double done = 0, total = 0;
  const auto plan = pack_in_order(rows, token_budget);
  for (const MicroBatch& micro : plan) total += static_cast<double>(micro.tokens);
  Buffer<float> logits;
  for (const MicroBatch& micro : plan) {
    const TrainBatch batch = make_batch(rows, micro);
    const Buffer<float> hidden = ops.trained_hidden(batch);
    std::vector<std::vector<TeacherToken>*> places;
    for (const int row : micro.rows)  // no place moves while they are written
      out[static_cast<size_t>(row)].resize(static_cast<size_t>(trained_tokens(rows[static_cast<size_t>(row)])));
    std::map<int, size_t> seen;
    for_trained(batch, [&](size_t, size_t, int row) {
      places.push_back(&out[static_cast<size_t>(row)][seen[row]++]);
    });
    const auto count = static_cast<int64_t>(places.size());
    for (int64_t first = 0; first < count; first += slice) {
      const int64_t part = std::min(slice, count - first);
      if (logits.empty()) logits = Buffer<float>(static_cast<size_t>(slice * vocab));
      linear_forward(ops.precision(), {hidden.data() + first * width, part, width}, teacher.head->weight,
                     logits.data());
      threads().parallel_for(part, [&](int64_t r, int) {
        const std::span row(logits.data() + r * vocab, static_cast<size_t>(vocab));
        for (const TokenLogProb& t : log_probs(row, {}, 0, top).top)
          places[static_cast<size_t>(first + r)]->push_back({t.token, t.log_prob});
      });
    }
    done += static_cast<double>(micro.tokens);
    if (progress) progress({"teacher", done, total, "tokens", ""});
  }
  return out;
}

std::string teacher_to_jsonl(std::span<const TrainRow> rows,
                             std::span<const std::vector<std::vector<TeacherToken>>> teacher) {
  std::string out;
  for (size_t i = 0; i < rows.size(); ++i) {
    out += fmt::format("{{\"row\": {}, \"tokens\": [{}], \"top\": [", rows[i].row,
                       fmt::join(trained_ids(rows[i]), ", "));
    for (size_t t = 0; t < teacher[i].size(); ++t) {
      out += t == 0 ? "[" : ", [";
      const char* before = "";
      for (const TeacherToken& token : teacher[i][t]) {
        // Five digits are finer than what bf16 makes of them; -0 is no number of JSON's readers.
        out += fmt::format("{}[{}, {:.5g}]", before, token.token, std::min(token.log_prob, -1e-9f));
        before = ", ";
      }
      out += "]";
    }
    out += "]}\n";
  }
  return out;
}

void read_teacher(const std::filesystem::path& file, std::span<TrainRow> rows, std::span<TrainRow> dev_rows) {
  std::map<int, TrainRow*> missing;
  for (const auto part : {rows, dev_rows})
    for (TrainRow& row : part) missing[row.row] = &row;
  const std::string text = read_file(file);
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string place = fmt::format("{}: line {}", file.string(), ++number);
    const Json line = parse_json(std::string_view(text).substr(at, end - at), place);
    at = end + 1;
    try {
      const auto found = missing.find(line.at("row").get<int>());
      if (found == missing.end()) continue;  // of rows that are not learned from
      TrainRow& row = *found->second;
      if (line.at("tokens").get<std::vector<int32_t>>() != trained_ids(row))
        throw Error(fmt::format("{}: row {} was saved with another answer, plan or tokenizer; make the file again with "
                                "`thimble distill`",
                                place, row.row));
      row.teacher = parse_top(line.at("top"), place);
      if (row.teacher.size() != static_cast<size_t>(trained_tokens(row)))
        throw Error(fmt::format("{}: {} of {} tokens were saved; make the file again", place, row.teacher.size(),
                                trained_tokens(row)));
      missing.erase(found);
    } catch (const nlohmann::json::exception& e) {
      throw Error(fmt::format("{}: not a teacher's tokens ({}); make the file again with `thimble distill`", place,
                              e.what()));
    }
  }
  if (!missing.empty())
    throw Error(fmt::format("{}: row {} is not in it; make the file again with `thimble distill`", file.string(),
                            missing.begin()->first));
}

}  // namespace thimble
