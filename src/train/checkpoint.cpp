#include "train/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/mapped_file.h"
#include "formats/json_text.h"
#include "formats/safetensors.h"

namespace thimble {
namespace {

using nlohmann::json;

constexpr const char* kStateKey = "thimble.train";
constexpr int kVersion = 5;

// FNV-1a (Fowler, Noll and Vo) over whole words: tells changed data from unchanged, no more.
struct Fingerprint {
  uint64_t value = 0xcbf29ce484222325u;
  void add(uint64_t word) { value = (value ^ word) * 0x100000001b3u; }
};

std::string fingerprint(const LoraAdapter* adapter) {
  if (adapter == nullptr) return "nothing";
  Fingerprint f;
  for (const auto& [name, module] : adapter->modules)
    for (const auto* values : {&module.a, &module.b, &module.magnitude})
      for (const float value : *values) f.add(std::bit_cast<uint32_t>(value));
  return fmt::format("{:016x}", f.value);
}

std::string fingerprint(std::span<const TrainRow> rows) {
  Fingerprint f;
  f.add(rows.size());
  for (const TrainRow& row : rows) {
    f.add(row.tokens.size());
    for (size_t i = 0; i < row.tokens.size(); ++i)
      f.add(static_cast<uint64_t>(static_cast<uint32_t>(row.tokens[i])) << 1 | (row.trained[i] != 0 ? 1 : 0));
    for (const float weight : row.weights) f.add(std::bit_cast<uint32_t>(weight));
    if (!row.wanted) f.add(1);
    if (row.weight != 1) f.add(std::bit_cast<uint64_t>(row.weight));
    for (const auto& top : row.teacher)
      for (const TeacherToken& t : top) {
        f.add(static_cast<uint32_t>(t.token));
        f.add(std::bit_cast<uint32_t>(t.log_prob));
      }
  }
  return fmt::format("{:016x}", f.value);
}

json optional_number(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }
std::optional<double> optional_number(const json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

TensorSource source(std::string name, std::span<const float> values) {
  return {std::move(name), DType::kF32, {static_cast<int64_t>(values.size())}, [values](const WriteBytes& write) {
            write(values.data(), values.size_bytes());
          }};
}

TensorSource source(std::string name, const ParameterTensor& p) {
  if (!p.values.empty()) return source(std::move(name), std::span<const float>(p.values));
  return {std::move(name), DType::kBF16, {static_cast<int64_t>(p.size())}, [bits = p.bf16](const WriteBytes& write) {
            write(bits.data(), bits.size_bytes());
          }};
}

template <class T>
void read_into(const SafetensorsFile& file, const std::string& name, std::span<T> values, const std::string& place) {
  for (const SafetensorsEntry& entry : file.tensors) {
    if (entry.name != name) continue;
    if (entry.dtype != (sizeof(T) == 2 ? "BF16" : "F32") || entry.bytes.size() != values.size_bytes())
      throw Error(
          fmt::format("{}: tensor '{}' has another size than the parameter; start anew with --fresh", place, name));
    std::memcpy(values.data(), entry.bytes.data(), values.size_bytes());
    return;
  }
  throw Error(fmt::format("{}: tensor '{}' is missing; start anew with --fresh", place, name));
}

// What keeps a run from going on from this state, as a sentence's part; empty: nothing.
std::string difference_of(const json& state, const RunIdentity& identity) {
  if (state.at("version") != kVersion) return "written by another version";
  const auto theirs = state.at("identity").get<RunIdentity>();
  for (const auto& [name, value] : identity) {
    const auto their = theirs.find(name);
    if (their == theirs.end() || their->second != value)
      return fmt::format("belongs to a run with another {} ({} there, {} now)", name,
                         their == theirs.end() ? "none" : their->second, value);
  }
  return "";
}

// The state of a checkpoint's header; `file` is the parsed `path`.
json state_of(const SafetensorsFile& file, const std::string& place) {
  const auto found = file.metadata.find(kStateKey);
  if (found == file.metadata.end())
    throw Error(fmt::format("{}: not a training checkpoint; start anew with --fresh", place));
  return parse_json_object(found->second, place);
}

}  // namespace

RunIdentity run_identity(const Model& model, const TrainConfig& c, std::span<const TrainRow> train_rows,
                         std::span<const TrainRow> dev_rows) {
  const auto objective = [&]() -> std::string {
    if (c.distill) {
      const DistillConfig& d = *c.distill;
      Fingerprint adapter;
      if (d.teacher_adapter.lora != nullptr)
        for (const float value : d.teacher_adapter.lora->values()) adapter.add(std::bit_cast<uint32_t>(value));
      const std::string own = d.on_policy.share == 0
                                  ? ""
                                  : fmt::format(" and {} own answers {} {}", d.on_policy.share, d.on_policy.temperature,
                                                d.on_policy.max_new_tokens);
      return fmt::format("distillation {} {} {} {} from {} {:016x}{}", static_cast<int>(d.divergence), d.beta,
                         d.temperature, d.weight, d.teacher != nullptr ? d.teacher->fingerprint : "a file",
                         adapter.value, own);
    }
    if (!c.preference) return "cross-entropy";
    const PreferenceConfig& p = *c.preference;
    return fmt::format("preference {} {} {} {} {} {} {}", static_cast<int>(p.loss), p.beta, p.label_smoothing,
                       p.sft_weight, p.lambda, p.desirable_weight, p.undesirable_weight);
  };
  return {
      {"objective", objective()},
      {"base model", model.fingerprint},
      {"adapter to continue from", fingerprint(c.start.get())},
      {"training rows", fingerprint(train_rows)},
      {"dev rows", fingerprint(dev_rows)},
      {"method", c.weights.train ? "full" : c.lora.dora ? "dora" : "lora"},
      {"rank", fmt::format("{}", c.lora.rank)},
      {"alpha", fmt::format("{}", c.lora.alpha)},
      {"rslora", fmt::format("{}", c.lora.rslora)},
      {"dropout", fmt::format("{}", c.lora.dropout)},
      {"targets", fmt::format("{}", fmt::join(c.lora.targets, " "))},
      {"layers", c.lora.layers.empty() ? "all" : fmt::format("{}", fmt::join(c.lora.layers, " "))},
      {"learning rate", fmt::format("{}", c.learning_rate)},
      {"decay", fmt::format("{}", static_cast<int>(c.decay))},
      {"warm-up share", fmt::format("{}", c.warmup_share)},
      {"epochs", fmt::format("{}", c.epochs)},
      {"revisited share", fmt::format("{}", c.revisit)},
      {"batch rows", fmt::format("{}", c.batch_rows)},
      {"token budget", fmt::format("{}", c.token_budget)},
      {"neftune", fmt::format("{}", c.neftune)},
      {"seed", fmt::format("{}", c.seed)},
      {"choice of the best", c.chosen_by},
      {"precision", c.precision == GemmPrecision::kF32 ? "f32" : "bf16"},
      {"evaluations", fmt::format("{}", c.evaluations)},
      {"master copy", fmt::format("{}", c.weights.master)},
      {"LoRA+ ratio", fmt::format("{}", c.lora.plus)},
      {"optimizer",
       fmt::format("{}{} {} {} {} {}", c.optimizer.eight_bit ? "8 bits " : "", c.optimizer.beta1, c.optimizer.beta2,
                   c.optimizer.epsilon, c.optimizer.weight_decay, c.optimizer.clip)},
  };
}

void save_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, const RunState& s,
                     const Optimizer& optimizer) {
  json history = json::array();
  for (const HistoryPoint& point : s.history) history.push_back(json(point_to_json(point)));
  const json state = {
      {"version", kVersion},
      {"identity", identity},
      {"step", s.step},
      {"optimizer_steps", optimizer.steps()},
      {"micro_batches", s.micro_batches},
      {"tokens", s.tokens},
      {"trained_tokens", s.trained_tokens},
      {"sampled_tokens", s.sampled_tokens},
      {"seconds", s.seconds},
      {"best_step", s.best_step},
      {"best_dev_loss", optional_number(s.best_dev_loss)},
      {"best_metric", optional_number(s.best_metric)},
      {"evaluations_since_best", s.evaluations_since_best},
      {"has_best", !s.best.empty()},
      {"history", std::move(history)},
      {"revisits", s.revisits.to_json()},
  };
  std::vector<TensorSource> tensors;
  const auto& parameters = optimizer.parameters();
  std::span<const float> best = s.best;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterTensor& p = parameters[i];
    tensors.push_back(source(p.name, p));
    tensors.push_back(source(p.name + ".m", optimizer.first_moment(i)));
    tensors.push_back(source(p.name + ".v", optimizer.second_moment(i)));
    if (best.empty()) continue;
    tensors.push_back(source(p.name + ".best", best.first(p.size())));
    best = best.subspan(p.size());
  }
  std::error_code later;  // a folder that can't be made is refused by what writes into it, with the reason
  std::filesystem::create_directories(std::filesystem::absolute(path).parent_path(), later);
  write_safetensors(path, tensors, {{kStateKey, state.dump()}});
}

std::string checkpoint_difference(const std::filesystem::path& path, const RunIdentity& identity) {
  const std::string place = path.string();
  const MappedFile mapped(path);
  try {
    return difference_of(state_of(parse_safetensors(mapped.bytes(), place), place), identity);
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: broken state ({}); start anew with --fresh", place, error.what()));
  }
}

bool load_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, RunState& s, Optimizer& optimizer) {
  if (!std::filesystem::exists(path)) return false;
  const std::string place = path.string();
  const MappedFile mapped(path);
  const SafetensorsFile file = parse_safetensors(mapped.bytes(), place);
  const json state = state_of(file, place);
  RunState loaded = s;
  int64_t optimizer_steps = 0;
  bool has_best = false;
  try {
    if (const std::string difference = difference_of(state, identity); !difference.empty())
      throw Error(fmt::format("{}: {}; start anew with --fresh, or put the setting back", place, difference));
    loaded.step = state.at("step");
    optimizer_steps = state.at("optimizer_steps");
    loaded.micro_batches = state.at("micro_batches");
    loaded.tokens = state.at("tokens");
    loaded.trained_tokens = state.at("trained_tokens");
    loaded.sampled_tokens = state.at("sampled_tokens");
    loaded.seconds = state.at("seconds");
    loaded.best_step = state.at("best_step");
    loaded.best_dev_loss = optional_number(state.at("best_dev_loss"));
    loaded.best_metric = optional_number(state.at("best_metric"));
    loaded.evaluations_since_best = state.at("evaluations_since_best");
    has_best = state.at("has_best");
    loaded.revisits.read_json(state.at("revisits"));
    loaded.history.clear();
    for (const json& point : state.at("history")) loaded.history.push_back(point_from_json(point));
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: broken state ({}); start anew with --fresh", place, error.what()));
  }
  const auto& parameters = optimizer.parameters();
  if (has_best) loaded.best = copy_values(parameters);
  std::span<float> best = loaded.best;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterTensor& p = parameters[i];
    if (p.values.empty())
      read_into(file, p.name, p.bf16, place);
    else
      read_into(file, p.name, p.values, place);
    read_into(file, p.name + ".m", optimizer.first_moment(i), place);
    read_into(file, p.name + ".v", optimizer.second_moment(i), place);
    if (!has_best) continue;
    read_into(file, p.name + ".best", best.first(p.size()), place);
    best = best.subspan(p.size());
  }
  round_values(parameters);
  optimizer.set_steps(optimizer_steps);
  s = std::move(loaded);
  return true;
}

}  // namespace thimble
