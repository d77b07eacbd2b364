#include "data/job.h"

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <toml++/toml.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <map>
#include <regex>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"

namespace thimble {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

// One table of thimble.toml: reads known keys, then refuses what is left.
class Section {
 public:
  Section(const toml::table* table, std::string name, std::string file)
      : table_(table), name_(std::move(name)), file_(std::move(file)) {}

  template <class T>
  bool read(const char* key, T& out, const std::function<bool(const T&)>& valid = {}, const char* range = "") {
    known_.push_back(key);
    const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
    if (node == nullptr) return false;
    if constexpr (std::is_same_v<T, bool>) {
      if (!node->is_boolean()) wrong(*node, key, "true or false");
      out = **node->as_boolean();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!node->is_string()) wrong(*node, key, "text in quotes");
      out = **node->as_string();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!node->is_number()) wrong(*node, key, "a number");
      out = *node->value<double>();
    } else if constexpr (std::is_integral_v<T>) {
      if (!node->is_integer()) wrong(*node, key, "a whole number");
      out = static_cast<T>(**node->as_integer());
      if (static_cast<int64_t>(out) != **node->as_integer() || (std::is_unsigned_v<T> && **node->as_integer() < 0))
        wrong(*node, key, "a smaller whole number");
    } else {
      if (!node->is_array()) wrong(*node, key, "a list of texts");
      out.clear();
      for (const auto& item : *node->as_array()) {
        if (!item.is_string()) wrong(*node, key, "a list of texts");
        out.push_back(**item.as_string());
      }
    }
    if (valid && !valid(out)) wrong(*node, key, range);
    return true;
  }
  template <class T>
  void read(const char* key, std::optional<T>& out, const std::function<bool(const T&)>& valid = {},
            const char* range = "") {
    T value{};
    if (read(key, value, valid, range)) out = value;
  }
  void choice(const char* key, std::string& out, const std::vector<std::string>& values, const char* range) {
    read<std::string>(
        key, out, [&](const std::string& v) { return std::find(values.begin(), values.end(), v) != values.end(); },
        range);
  }
  // A list of whole numbers from 0, or text of numbers and ranges: "0-3, 20-29". Sorted, each once.
  bool numbers(const char* key, std::vector<int>& out) {
    constexpr const char* kForm = "a list of layer numbers, or text such as \"8-29\" or \"0-3, 28, 29\"";
    constexpr int kMost = 9999;
    known_.push_back(key);
    const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
    if (node == nullptr) return false;
    std::set<int> found;
    if (node->is_array()) {
      for (const auto& item : *node->as_array()) {
        const auto number = item.is_integer() ? item.value<int64_t>() : std::nullopt;
        if (!number || *number < 0 || *number > kMost) wrong(*node, key, kForm);
        found.insert(static_cast<int>(*number));
      }
    } else if (node->is_string()) {
      const std::string text = **node->as_string();
      static const std::regex kRange(R"(\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*(,(?=.)|$))");
      std::smatch part;
      for (auto at = text.cbegin(); at != text.cend() || text.empty(); at = part.suffix().first) {
        if (!std::regex_search(at, text.cend(), part, kRange, std::regex_constants::match_continuous))
          wrong(*node, key, kForm);
        const int first = std::stoi(part[1]), last = part[2].matched ? std::stoi(part[2]) : first;
        if (last < first) wrong(*node, key, kForm);
        for (int i = first; i <= last; ++i) found.insert(i);
      }
    }
    if (found.empty()) wrong(*node, key, kForm);
    out.assign(found.begin(), found.end());
    return true;
  }
  // The tables of [[key]]; none where it is not given.
  std::vector<const toml::table*> tables(const char* key) {
    known_.push_back(key);
    const toml::node* node = table_->get(key);
    if (node == nullptr) return {};
    if (!node->is_array_of_tables()) wrong(*node, key, "tables in double brackets");
    std::vector<const toml::table*> out;
    for (const auto& item : *node->as_array()) out.push_back(item.as_table());
    return out;
  }
  const toml::table* table(const char* key) {
    known_.push_back(key);
    const toml::node* node = table_->get(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) wrong(*node, key, "a table");
    return node->as_table();
  }
  void finish() const {
    if (table_ == nullptr) return;
    for (const auto& [key, node] : *table_) {
      const std::string name(key.str());
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      const auto nearest = std::min_element(known_.begin(), known_.end(), [&](const auto& a, const auto& b) {
        return edit_distance(a, name) < edit_distance(b, name);
      });
      throw Error(fmt::format("{}:{}: unknown key '{}'; did you mean '{}'?", file_, node.source().begin.line,
                              full(name), full(*nearest)));
    }
  }
  // Refuses keys that are given though another setting leaves them without effect.
  void refuse(std::initializer_list<const char*> keys, const char* why) const {
    for (const char* key : keys)
      if (const toml::node* node = table_ == nullptr ? nullptr : table_->get(key))
        throw Error(fmt::format("{}:{}: {} has no effect {}; leave it out", file_, node->source().begin.line, full(key),
                                why));
  }
  [[noreturn]] void wrong(const toml::node& node, const char* key, const char* range) const {
    throw Error(fmt::format("{}:{}: {} must be {}", file_, node.source().begin.line, full(key), range));
  }

 private:
  std::string full(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }

  const toml::table* table_;
  std::string name_, file_;
  std::vector<std::string> known_;
};

const auto kFraction = [](const double& v) { return v >= 0 && v <= 1; };
const auto kPositive = [](const int& v) { return v > 0; };
const auto kNotNegative = [](const double& v) { return v >= 0; };

void read_train(Section s, TrainSettings& t) {
  s.choice("method", t.method, {"lora", "dora", "full"}, "\"lora\", \"dora\" or \"full\"");
  s.read<int>("rank", t.rank, [](const int& v) { return v >= 1 && v <= 1024; }, "between 1 and 1024");
  s.read<double>("alpha", t.alpha, [](const double& v) { return v > 0; }, "above 0");
  s.read<double>("dropout", t.dropout, [](const double& v) { return v >= 0 && v < 1; }, "at least 0 and below 1");
  s.read("rslora", t.rslora);
  s.read("targets", t.targets);
  s.numbers("layers", t.layers);
  s.read<double>("lora_plus", t.lora_plus, [](const double& v) { return v >= 1 && v <= 1000; }, "between 1 and 1000");
  s.choice("optimizer", t.optimizer, {"adamw", "adamw8bit"}, "\"adamw\" or \"adamw8bit\"");
  s.read("master", t.master);
  if (t.method != "full") s.refuse({"master"}, "without method \"full\"");
  if (t.method == "full") {
    s.refuse({"rank", "alpha", "dropout", "rslora", "targets", "layers", "lora_plus"}, "with method \"full\"");
    t.learning_rate = 5e-5;
  }
  s.read<double>("learning_rate", t.learning_rate, [](const double& v) { return v > 0 && v < 1; }, "between 0 and 1");
  s.choice("schedule", t.schedule, {"cosine", "linear", "constant"}, "\"cosine\", \"linear\" or \"constant\"");
  s.read<double>("warmup", t.warmup, kFraction, "a share between 0 and 1");
  s.read<double>("epochs", t.epochs, [](const double& v) { return v > 0; }, "above 0");
  s.read<double>("revisit", t.revisit, [](const double& v) { return v > 0 && v <= 1; }, "above 0, at most 1");
  s.read<int>("batch_rows", t.batch_rows, kPositive, "at least 1");
  s.read<int>("max_tokens", t.max_tokens, kPositive, "at least 1");
  s.choice("too_long", t.too_long, {"refuse", "drop", "cut"}, "\"refuse\", \"drop\" or \"cut\"");
  s.read<double>("weight_decay", t.weight_decay, kNotNegative, "at least 0");
  s.read<double>("clip", t.clip, [](const double& v) { return v > 0; }, "above 0");
  s.read<double>("text_weight", t.text_weight, [](const double& v) { return v > 0 && v <= 1; }, "above 0, at most 1");
  s.read<double>("neftune", t.neftune, [](const double& v) { return v >= 0 && v <= 1000; }, "from 0 to 1000");
  s.read("seed", t.seed);
  s.read<double>("dev_share", t.dev_share, [](const double& v) { return v > 0 && v <= 0.5; }, "above 0, at most 0.5");
  s.read<int>("evaluations", t.evaluations, kPositive, "at least 1");
  s.read("continue_from", t.continue_from);
  s.read<int>("metric_rows", t.metric_rows, [](const int& v) { return v >= 0; }, "0 or more");
  s.read<int>("patience", t.patience, [](const int& v) { return v >= 0; }, "0 or more");
  s.read<double>("checkpoint_minutes", t.checkpoint_minutes, kNotNegative, "at least 0");
  s.read<int>("memory_mb", t.memory_mb, [](const int& v) { return v >= 0; }, "at least 0");
  s.choice("precision", t.precision, {"bf16", "f32"}, "\"bf16\" or \"f32\"");
  if (!t.master && t.precision == "f32") s.refuse({"master"}, "with precision \"f32\", whose weights are f32");
  s.finish();
}

// The name of a file in the job's folder; never the test set.
bool is_own_file(const std::string& name) {
  return !name.empty() && name != "test.jsonl" && name.find('/') == std::string::npos;
}
constexpr const char* kOwnFile = "the name of a file in the job's folder, and not test.jsonl";

void read_preference(Section s, PreferenceSettings& p) {
  s.choice("loss", p.loss, {"dpo", "ipo", "orpo", "kto"}, "\"dpo\", \"ipo\", \"orpo\" or \"kto\"");
  s.read<std::string>("file", p.file, is_own_file, kOwnFile);
  // A setting that the loss would not read is refused.
  const auto only = [&](std::initializer_list<std::string_view> losses, auto&& read) {
    if (std::find(losses.begin(), losses.end(), p.loss) != losses.end()) read();
  };
  const auto positive = [](const double& v) { return v > 0; };
  only({"dpo", "ipo", "kto"}, [&] { s.read<double>("beta", p.beta, positive, "above 0"); });
  only({"dpo"}, [&] {
    s.read<double>("label_smoothing", p.label_smoothing, [](const double& v) { return v >= 0 && v < 0.5; },
                   "at least 0 and below 0.5");
  });
  only({"dpo", "ipo"}, [&] { s.read<double>("sft_weight", p.sft_weight, kNotNegative, "at least 0"); });
  only({"orpo"}, [&] { s.read<double>("lambda", p.lambda, positive, "above 0"); });
  only({"kto"}, [&] {
    s.read<double>("desirable_weight", p.desirable_weight, positive, "above 0");
    s.read<double>("undesirable_weight", p.undesirable_weight, positive, "above 0");
  });
  s.finish();
}

void read_distill(Section s, const std::string& file, DistillSettings& d) {
  s.choice("kind", d.kind, {"forward_kl", "reverse_kl", "jsd", "sequence"},
           "\"forward_kl\", \"reverse_kl\", \"jsd\" or \"sequence\"");
  s.read("teacher", d.teacher);
  s.read("adapter", d.adapter);
  if (!d.sequence()) {
    s.read<std::string>("from", d.from, is_own_file, kOwnFile);
    s.read<double>("on_policy", d.on_policy, kFraction, "a share between 0 and 1");
    if (d.on_policy > 0) {
      s.refuse({"from"}, "with on_policy: the student's own answers need a teacher that runs beside");
      s.refuse({"weight"}, "with on_policy: the student's own answers have no right tokens");
      s.read<double>("sample_temperature", d.sample_temperature, kNotNegative, "0 or more");
      s.read<int>("max_new_tokens", d.max_new_tokens, kPositive, "at least 1");
    } else {
      s.refuse({"sample_temperature", "max_new_tokens"}, "without on_policy");
      s.read<double>("weight", d.weight, [](const double& v) { return v > 0 && v <= 1; }, "above 0, at most 1");
    }
    if (d.from.empty())  // what was saved was saved at temperature 1
      s.read<double>("temperature", d.temperature, [](const double& v) { return v > 0; }, "above 0");
  } else {
    s.refuse({"on_policy", "sample_temperature", "max_new_tokens"}, "with kind \"sequence\"");
  }
  if (d.kind == "jsd")
    s.read<double>("beta", d.beta, [](const double& v) { return v > 0 && v < 1; }, "between 0 and 1");
  s.finish();
  if (d.teacher.empty() && d.from.empty())
    throw Error(fmt::format("{}: [distill] needs a teacher, or the file that its tokens were saved to (from)", file));
}

}  // namespace

Job load_job(const std::filesystem::path& folder) {
  const auto toml_path = folder / "thimble.toml";
  if (!std::filesystem::is_directory(folder))
    throw Error(
        fmt::format("{}: is not a folder; a use case is a folder with thimble.toml, tools.json, train.jsonl and "
                    "test.jsonl",
                    folder.string()));
  const std::string text = read_file(toml_path);
  toml::table root;
  try {
    root = toml::parse(text, toml_path.string());
  } catch (const toml::parse_error& e) {
    throw Error(fmt::format("{}:{}: {}", toml_path.string(), e.source().begin.line, e.description()));
  }
  Job job;
  job.folder = folder;
  Section top(&root, "", toml_path.string());
  if (!top.read("name", job.name)) job.name = std::filesystem::canonical(folder).filename().string();
  top.read("description", job.description);
  top.read("base", job.base);
  top.read("tools_in_prompt", job.tools_in_prompt);
  top.read("plan", job.plan);
  top.read<std::string>("system", job.system);
  read_train(Section(top.table("train"), "train", toml_path.string()), job.train);

  if (const toml::table* table = top.table("preference"))
    read_preference(Section(table, "preference", toml_path.string()), job.preference.emplace());
  if (const toml::table* table = top.table("distill"))
    read_distill(Section(table, "distill", toml_path.string()), toml_path.string(), job.distill.emplace());
  for (const toml::table* table : top.tables("mix")) {
    MixSettings& mix = job.mix.emplace_back();
    Section section(table, "mix", toml_path.string());
    if (!section.read("job", mix.job) ||
        !section.read<double>("weight", mix.weight, [](const double& v) { return v > 0 && v <= 100; },
                              "above 0, at most 100"))
      throw Error(fmt::format("{}: [[mix]] needs job, a folder, and weight, how many of its rows for each of this "
                              "job's",
                              toml_path.string()));
    section.finish();
  }
  if (!job.mix.empty() && (job.preference || job.distill))
    throw Error(fmt::format("{}: [[mix]] is for learning right answers; leave it out beside [preference] and [distill]",
                            toml_path.string()));
  if (job.distill && job.distill->on_policy > 0 && job.train.method == "full")
    throw Error(fmt::format("{}: distill.on_policy needs an adapter, because the student answers at every step and all "
                            "weights would have to be packed for that; set train.method to \"lora\" or \"dora\"",
                            toml_path.string()));
  if (job.preference && job.distill)
    throw Error(fmt::format("{}: [preference] and [distill] can't be learned from at once; leave one out",
                            toml_path.string()));

  Section bars(top.table("bars"), "bars", toml_path.string());
  for (auto [key, bar] :
       {std::pair{"exact", &job.bars.exact}, std::pair{"name_accuracy", &job.bars.name_accuracy},
        std::pair{"argument_f1", &job.bars.argument_f1}, std::pair{"false_calls", &job.bars.false_calls},
        std::pair{"missed_calls", &job.bars.missed_calls}})
    bars.read<double>(key, *bar, kFraction, "a fraction between 0 and 1");
  bars.finish();

  if (const toml::table* table = top.table("large")) {
    Section large(table, "large", toml_path.string());
    LargeSettings& l = job.large.emplace();
    if (!large.read("url", l.url) || !large.read("model", l.model))
      throw Error(fmt::format("{}: [large] needs url and model; give both or leave the table out", toml_path.string()));
    large.read("api_key_env", l.api_key_env);
    large.read<double>("input_price", l.input_price, kNotNegative, "at least 0");
    large.read<double>("output_price", l.output_price, kNotNegative, "at least 0");
    large.finish();
  }
  Section assess(top.table("assess"), "assess", toml_path.string());
  assess.read<int>("sample", job.assess_sample, kPositive, "at least 1");
  assess.read<int>("shots", job.assess_shots, [](const int& v) { return v >= 0 && v <= 64; }, "between 0 and 64");
  assess.finish();
  Section eval(top.table("eval"), "eval", toml_path.string());
  eval.read<int>("max_new_tokens", job.max_new_tokens, kPositive, "at least 1");
  eval.read<int>("batch", job.eval_batch, [](const int& v) { return v >= 1 && v <= 256; }, "between 1 and 256");
  eval.finish();
  top.finish();

  const auto tools_path = folder / "tools.json";
  job.tools = parse_tools(read_file(tools_path), tools_path.string());
  return job;
}

std::string manifest_to_text(const JobManifest& m) {
  Json out{{"job", m.job},
           {"description", m.description},
           {"base", m.base},
           {"base_fingerprint", m.base_fingerprint},
           {"call_format", m.call_format},
           {"tools_in_prompt", m.tools_in_prompt},
           {"plan", m.plan},
           {"system", m.system ? Json(*m.system) : Json(nullptr)},
           {"chat_template", m.chat_template},
           {"call_threshold", m.call_threshold ? Json(*m.call_threshold) : Json(nullptr)},
           {"tools", tools_to_json(m.tools)}};
  return out.dump(1) + "\n";
}

JobManifest parse_manifest(std::string_view text, std::string_view where) {
  const Json json = parse_json(text, where);
  JobManifest m;
  try {
    for (const auto& [key, value] : json.items()) {
      if (key == "job")
        m.job = value.get<std::string>();
      else if (key == "description")
        m.description = value.get<std::string>();
      else if (key == "base")
        m.base = value.get<std::string>();
      else if (key == "base_fingerprint")
        m.base_fingerprint = value.get<std::string>();
      else if (key == "call_format")
        m.call_format = value.get<std::string>();
      else if (key == "tools_in_prompt")
        m.tools_in_prompt = value.get<bool>();
      else if (key == "plan")
        m.plan = value.get<bool>();
      else if (key == "system")
        m.system = value.is_null() ? std::nullopt : std::optional(value.get<std::string>());
      else if (key == "chat_template")
        m.chat_template = value.get<std::string>();
      else if (key == "call_threshold")
        m.call_threshold = value.is_null() ? std::nullopt : std::optional(value.get<double>());
      else if (key == "tools")
        m.tools = tools_from_json(value, where);
      else
        throw Error(fmt::format("{}: unknown key '{}'; the manifest was made by another version", where, key));
    }
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: not a job manifest ({})", where, e.what()));
  }
  if (m.call_format != "hermes")
    throw Error(fmt::format("{}: call_format '{}' is not supported; known: hermes", where, m.call_format));
  return m;
}

void check_base(const JobManifest& manifest, const std::string& where, const std::string& base,
                const std::string& fingerprint) {
  if (manifest.base_fingerprint == fingerprint) return;
  throw Error(fmt::format("{}: the adapter was trained on another base model ('{}', fingerprint {:.12}) than {} "
                          "(fingerprint {:.12}); give the base that it belongs to",
                          where, manifest.base, manifest.base_fingerprint, base, fingerprint));
}

std::filesystem::path new_run(const Job& job) {
  const std::string stamp = fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(std::time(nullptr)));
  std::error_code reason;
  std::filesystem::create_directories(job.runs_folder(), reason);
  for (int i = 0; !reason; ++i) {
    const auto run = job.runs_folder() / (i == 0 ? stamp : fmt::format("{}-{}", stamp, i));
    if (!std::filesystem::create_directory(run, reason)) continue;
    sync_folder(job.runs_folder());
    return run;
  }
  throw Error(fmt::format("{}: can't be made or written to ({}); check the path and its permissions",
                          job.runs_folder().string(), reason.message()));
}

std::optional<std::filesystem::path> newest_run(const std::filesystem::path& job_folder) {
  std::optional<std::filesystem::path> newest;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(job_folder / "runs", none))
    if (std::filesystem::exists(entry.path() / "finished") && (!newest || entry.path().filename() > newest->filename()))
      newest = entry.path();
  return newest;
}

std::optional<std::filesystem::path> unfinished_run(const std::filesystem::path& job_folder) {
  std::optional<std::filesystem::path> newest;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(job_folder / "runs", none))
    if (entry.is_directory() && (!newest || entry.path().filename() > newest->filename())) newest = entry.path();
  if (newest && (std::filesystem::exists(*newest / "finished") || std::filesystem::exists(*newest / "failed")))
    newest.reset();
  return newest;
}

void give_up(const std::filesystem::path& run, const std::string& why) { write_file(run / "failed", why + "\n"); }

std::filesystem::path run_model(const std::filesystem::path& run) {
  for (const char* name : {"model.gguf", "model"})
    if (std::filesystem::exists(run / name)) return run / name;
  return {};
}

std::filesystem::path run_result(const std::filesystem::path& run) {
  auto model = run_model(run);
  return model.empty() ? run / "adapter" : model;
}

void mark_finished(const std::filesystem::path& run) { write_file(run / "finished", ""); }

}  // namespace thimble
