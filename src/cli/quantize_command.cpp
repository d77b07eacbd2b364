#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "cli/commands.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "cli/text_scores.h"
#include "core/error.h"
#include "core/paths.h"
#include "formats/merge.h"
#include "formats/pull.h"
#include "formats/stored_types.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

std::string lower_name(DType type) {
  std::string name(dtype_info(type).name);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

// Which types a model's tensors get, and which of them can't have the one that was asked for.
struct Plan {
  struct FallBack {
    DType wanted, type;
    int64_t cols;
    auto operator<=>(const FallBack&) const = default;
  };
  std::map<DType, int> types;                             // how many tensors
  std::map<FallBack, std::vector<std::string>> fallbacks;  // names
  size_t bytes_before = 0, bytes = 0;
  double elements = 0;
};

Plan plan_of(const ModelFile& model, const StoredTypes& types) {
  Plan plan;
  for (const auto& [name, tensor] : model.tensors) {
    const StoredType stored = stored_type(name, tensor, model.config.tied_embeddings, types);
    ++plan.types[stored.type];
    plan.bytes_before += tensor.bytes();
    plan.bytes += dtype_bytes(stored.type, tensor.elements());
    plan.elements += static_cast<double>(tensor.elements());
    if (stored.fell_back()) plan.fallbacks[{stored.wanted, stored.type, tensor.cols()}].push_back(name);
  }
  return plan;
}

// "model.layers.0.mlp.up_proj.weight" and its sisters as one: "model.layers.*.mlp.up_proj.weight (30)".
std::string list_of(const std::vector<std::string>& names) {
  std::map<std::string, int> patterns;
  for (const std::string& name : names) {
    constexpr std::string_view kLayers = "model.layers.";
    ++patterns[name.starts_with(kLayers) ? fmt::format("{}*{}", kLayers, name.substr(name.find('.', kLayers.size())))
                                         : name];
  }
  std::string out;
  for (const auto& [pattern, count] : patterns) {
    if (!out.empty()) out += ", ";
    out += count > 1 ? fmt::format("{} ({})", pattern, count) : pattern;
  }
  return out;
}

void check_target(const QuantizeOptions& options, const ModelFile& model) {
  if (options.out.extension() != ".gguf")
    throw Error(fmt::format("{}: quantize writes GGUF; give a name that ends in .gguf", options.out.string()));
  if (!path_exists(options.out)) return;
  if (is_folder(options.out)) throw Error(fmt::format("{}: is a folder; give a file's name", options.out.string()));
  if (fs::equivalent(options.out, model.path))
    throw Error(fmt::format("{}: is the model that is read; give another name", options.out.string()));
  if (!options.force)
    throw Error(fmt::format("{}: is there already; give another name, or --force to replace it", options.out.string()));
}

void note_quantized(const ModelFile& model) {
  std::map<DType, int64_t> elements;
  for (const auto& [name, tensor] : model.tensors) elements[tensor.type] += tensor.elements();
  const DType most = std::max_element(elements.begin(), elements.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->first;
  if (!is_quantized(most)) return;
  fmt::print(stderr,
             "{} {} is quantised already (mostly {}), and losses add up; start from an f16 or bf16 original where "
             "there is one\n",
             styled(stderr, Style::kYellow, "note:"), model.path.string(), dtype_info(most).name);
}

struct Interrupted {};

void write(const ModelFile& model, const QuantizeOptions& options, const StoredTypes& types) {
  const Interrupt interrupt;
  ProgressLine line;
  merge_to_gguf(model, LoraAdapter{}, options.out, types.matrices, types.head, [&](const Progress& progress) {
    if (Interrupt::pressed()) throw Interrupted{};  // what is half-written goes
    line.show(progress);
  });
}

void print_plan(const Plan& plan, const fs::path& out) {
  fmt::print("{} {}, was {}; {:.2f} bits a weight\n", styled(stdout, Style::kBold, out.string()),
             human_bytes(static_cast<double>(plan.bytes)), human_bytes(static_cast<double>(plan.bytes_before)),
             8 * static_cast<double>(plan.bytes) / plan.elements);
  for (const auto& [type, count] : plan.types) fmt::print("  {:<5} {} tensors\n", dtype_info(type).name, count);
  for (const auto& [f, names] : plan.fallbacks)
    fmt::print("{} rows of {} are not whole blocks of {}: {} instead of {} for {}\n",
               styled(stdout, Style::kYellow, "fell back:"), f.cols, dtype_info(f.wanted).block,
               dtype_info(f.type).name, dtype_info(f.wanted).name, list_of(names));
}

Json plan_json(const Plan& plan, const fs::path& out) {
  Json json{{"out", out.string()},
            {"bytes", plan.bytes},
            {"bytes_before", plan.bytes_before},
            {"bits_per_weight", 8 * static_cast<double>(plan.bytes) / plan.elements},
            {"types", Json::object()},
            {"fallbacks", Json::array()}};
  for (const auto& [type, count] : plan.types) json["types"][lower_name(type)] = count;
  for (const auto& [f, names] : plan.fallbacks)
    for (const std::string& name : names)
      json["fallbacks"].push_back({{"tensor", name}, {"wanted", lower_name(f.wanted)}, {"type", lower_name(f.type)}});
  return json;
}

}  // namespace

int quantize_command(const QuantizeOptions& options) {
  StoredTypes types;
  types.matrices = *dtype_from_name(options.type);
  if (!options.head.empty()) types.head = dtype_from_name(options.head);
  const ChunkOptions chunks{.context = options.context, .chunks = options.chunks};
  const fs::path in = resolve_model(options.model);
  std::string text;
  Plan plan;
  {
    const ModelFile model = open_model(in);
    check_target(options, model);
    if (!options.check.empty()) {  // what can't be measured is refused before the work
      text = read_text(options.check);
      chunk_text(Tokenizer::from(model.vocabulary), model.config.context, text, chunks);
    }
    plan = plan_of(model, types);
    if (is_quantized(types.matrices)) note_quantized(model);
    try {
      write(model, options, types);
    } catch (const Interrupted&) {
      return kInterrupted;
    }
  }
  Json json = plan_json(plan, options.out);
  if (!options.json) print_plan(plan, options.out);
  if (!options.check.empty()) {
    std::fflush(stdout);
    ModelOptions open;
    open.model = options.out.string();
    open.precision = options.precision;
    open.context = options.context;
    const Session quantized = open_session(open);
    open.model = in.string();
    const Session original = open_session(open);
    const Divergence found = divergence_with_progress(quantized, original, text, chunks);
    json["check"] = text_json(found.model, options.check);
    json["check"]["original_perplexity"] = estimate_json(found.reference.perplexity);
    json["check"]["perplexity"] = estimate_json(found.model.perplexity);
    add_divergence(json["check"], found);
    if (!options.json) {
      print_text(found.model, options.check);
      print_perplexity("original", found.reference);
      print_perplexity("new", found.model);
      print_divergence(found);
    }
  }
  if (options.json) fmt::print("{}\n", json.dump());
  return kOk;
}

}  // namespace thimble
