#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

#include "calls/validate.h"
#include "core/error.h"
#include "core/memory.h"
#include "data/job.h"
#include "data/read.h"
#include "serve/chat_fields.h"
#include "serve/service.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kJobs = "/thimble/jobs";
constexpr std::string_view kRuns = "/runs";

Json base_to_json(const ServedBase& base, const EngineThread& engines) {
  const EngineThread::Use use = engines.use(base.engine.get());
  return {{"name", base.name},
          {"bytes", base.prepared->bytes()},
          {"context", base.engine->context()},
          {"running", use.running},
          {"waiting", use.waiting},
          {"cache",
           {{"bytes", base.engine->cache().bytes()},
            {"tokens", base.engine->cache().capacity()},
            {"held", use.cache_held},
            {"used", use.cache_used}}}};
}

Json model_to_json(const ServedModel& model) {
  Json out{{"name", model.name},
           {"base", model.base->name},
           {"adapter", model.adapter != nullptr},
           {"job", model.job.has_value()},
           {"created", model.created},
           {"tools", model.manifest ? model.manifest->tools.size() : 0}};
  if (model.manifest) out["description"] = model.manifest->description;
  return out;
}

// Runs are told by what is in the folder, never by joining what a client wrote to a path.
std::vector<fs::path> runs_of(const fs::path& job) {
  std::vector<fs::path> runs;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(job / "runs", none))
    if (entry.is_directory(none)) runs.push_back(entry.path());
  std::sort(runs.rbegin(), runs.rend());
  return runs;
}

Json run_to_json(const fs::path& run) {
  std::error_code none;
  const char* state = fs::exists(run / "finished", none) ? "finished" : fs::exists(run / "failed", none) ? "failed" : "open";
  return {{"name", run.filename().string()},
          {"state", state},
          {"history", fs::exists(run / "history.json", none)},
          {"report", fs::exists(run / "report.html", none)}};
}

Json bars_to_json(const Bars& bars) {
  Json out = Json::object();
  const auto add = [&](const char* name, const std::optional<double>& bar) {
    if (bar) out[name] = *bar;
  };
  add("exact", bars.exact);
  add("name_accuracy", bars.name_accuracy);
  add("argument_f1", bars.argument_f1);
  add("false_calls", bars.false_calls);
  add("missed_calls", bars.missed_calls);
  return out;
}

// Whether all that the model learned from were single messages: what went before one says nothing to it then. Rows that
// can't be read now leave it at that.
bool learned_single_messages(const Job& job) {
  try {
    const std::vector<Row> rows = read_rows(job.tuning_file());
    return std::all_of(rows.begin(), rows.end(), [](const Row& row) {
      return std::count_if(row.turns.begin(), row.turns.end(), [](const Turn& t) { return t.role == "user"; }) <= 1;
    });
  } catch (const Error&) {
    return true;
  }
}

Json job_to_json(const ServedModel& model) {
  Json out = model_to_json(model);
  out["tools"] = model.manifest ? tools_to_json(model.manifest->tools) : Json::array();
  out["bars"] = Json::object();
  out["runs"] = Json::array();
  out["single_messages"] = false;
  if (model.manifest) {
    out["plan"] = model.manifest->plan;
    out["tools_in_prompt"] = model.manifest->tools_in_prompt;
    if (model.manifest->system) out["system"] = *model.manifest->system;
  }
  if (!model.job) return out;
  for (const fs::path& run : runs_of(*model.job)) out["runs"].push_back(run_to_json(run));
  out["serves"] = model.source.parent_path().filename().string();
  try {
    const Job job = load_job(*model.job);
    out["bars"] = bars_to_json(job.bars);
    out["single_messages"] = model.manifest.has_value() && learned_single_messages(job);
  } catch (const Error& e) {
    out["problem"] = e.what();  // thimble.toml is being edited; what is served stays as it is
  }
  return out;
}

HttpResponse run_file(const fs::path& run, const std::string& file) {
  const bool report = file == "report.html";
  if (!report && file != "history.json")
    throw ApiError(404, fmt::format("of a run there are history.json and report.html, not '{}'", file), "", "unknown_url");
  std::ifstream in(run / file, std::ios::binary);
  if (!in) throw ApiError(404, fmt::format("run {} has no {}", run.filename().string(), file), "", "not_found");
  HttpResponse response{.status = 200, .type = report ? "text/html; charset=utf-8" : "application/json"};
  response.body.assign(std::istreambuf_iterator<char>(in), {});
  response.headers = {{"Cache-Control", "no-cache"}};
  // A report shows what models wrote: it gets to draw, and nothing else.
  if (report)
    response.headers.emplace_back("Content-Security-Policy",
                                  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox");
  return response;
}

}  // namespace

void status(Service& service, const Exchange& exchange) {
  Json models = Json::array(), bases = Json::array();
  std::vector<std::shared_ptr<ServedBase>> shown;
  for (const auto& model : service.shelf.list()) {
    if (exchange.key() != nullptr && !exchange.key()->may_use(model->name)) continue;
    models.push_back(model_to_json(*model));
    if (std::find(shown.begin(), shown.end(), model->base) == shown.end()) shown.push_back(model->base);
  }
  for (const auto& base : shown) bases.push_back(base_to_json(*base, service.engines));
  const EngineThread::Load load = service.engines.load();
  Exchange(exchange).respond(json_response(
      {{"models", std::move(models)},
       {"bases", std::move(bases)},
       {"load", {{"open", load.open}, {"running", load.running}, {"steps", load.steps}, {"busy_s", load.busy_s}}},
       {"memory", {{"resident", resident_memory()}, {"available", available_memory()}}},
       {"started", service.started},
       {"now", unix_time()}}));
}

void jobs(Service& service, const Exchange& exchange) {
  const std::string& path = exchange.request().path;
  std::string name = path.size() > kJobs.size() + 1 ? path.substr(kJobs.size() + 1) : "";
  if (name.empty()) throw ApiError(404, "the path must name a model: /thimble/jobs/NAME", "", "unknown_url");
  const size_t runs = name.rfind(std::string(kRuns) + "/");
  if (runs == std::string::npos) {
    const auto model = service.shelf.find(name);
    check_model(exchange, *model);
    return Exchange(exchange).respond(json_response(job_to_json(*model)));
  }
  const std::string rest = name.substr(runs + kRuns.size() + 1);
  name.resize(runs);
  const size_t slash = rest.find('/');
  if (slash == std::string::npos) throw ApiError(404, "the path must name a file of the run", "", "unknown_url");
  const auto model = service.shelf.find(name);
  check_model(exchange, *model);
  if (model->job)
    for (const fs::path& run : runs_of(*model->job))
      if (run.filename() == rest.substr(0, slash))
        return Exchange(exchange).respond(run_file(run, rest.substr(slash + 1)));
  throw ApiError(404, fmt::format("'{}' has no run '{}'", name, rest.substr(0, slash)), "", "not_found");
}

void check_calls(Service& service, const Exchange& exchange) {
  const Json json = parse_body(exchange.request().body);
  Fields body(json);
  const auto model = service.shelf.find(body.text("model").value_or(""));
  check_model(exchange, *model);
  body.require("calls");
  const Json* calls = body.array("calls");
  std::vector<Tool> tools = model->manifest ? model->manifest->tools : std::vector<Tool>();
  if (const Json* given = body.array("tools")) tools = read_tools(*given, "tools");
  body.finish();
  Json checked = Json::array();
  for (size_t i = 0; i < calls->size(); ++i) {
    Fields call((*calls)[i], fmt::format("calls[{}]", i));
    const std::string name = call.text("name").value_or(""), arguments = call.text("arguments").value_or("");
    call.finish();
    Json problems = Json::array();
    const Tool* tool = find_tool(tools, name);
    std::string why;
    const auto value = try_parse_json(arguments, &why);
    if (tool == nullptr) {
      problems.push_back({{"place", ""}, {"what", fmt::format("there is no tool '{}'", name)}});
    } else if (!value) {
      problems.push_back({{"place", ""}, {"what", "the arguments are not whole JSON: " + why}});
    } else {
      for (const SchemaProblem& problem : SchemaValidator(tool->parameters, "tool " + name).check(*value))
        problems.push_back({{"place", problem.place}, {"what", problem.what}});
    }
    checked.push_back({{"name", name}, {"valid", problems.empty()}, {"problems", std::move(problems)}});
  }
  Exchange(exchange).respond(json_response({{"calls", std::move(checked)}}));
}

}  // namespace thimble
