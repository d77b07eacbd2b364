#include <editline/readline.h>
#include <fmt/core.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "calls/hermes.h"
#include "calls/validate.h"
#include "cli/commands.h"
#include "cli/generate_options.h"
#include "cli/job_steps.h"
#include "cli/session.h"
#include "cli/terminal.h"
#include "core/error.h"

namespace thimble {
namespace {

std::filesystem::path history_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder = state != nullptr && *state != '\0' ? std::filesystem::path(state)
                                 : home != nullptr                  ? std::filesystem::path(home) / ".local/state"
                                                                    : std::filesystem::path();
  if (folder.empty()) return {};
  std::error_code ignored;
  std::filesystem::create_directories(folder / "thimble", ignored);
  return folder / "thimble" / "chat_history";
}

// Lines with editing and history on a terminal, plain lines from a pipe.
class LineReader {
 public:
  LineReader() : terminal_(is_terminal(stdin)) {
    if (!terminal_) return;
    rl_initialize();
    file_ = history_file();
    if (!file_.empty()) read_history(file_.c_str());
  }

  bool next(std::string& line) {
    if (!terminal_) return static_cast<bool>(std::getline(std::cin, line));
    char* typed = readline("> ");
    if (typed == nullptr) return false;
    line = typed;
    std::free(typed);
    if (!line.empty()) remember(line);
    return true;
  }

 private:
  // After every line, so that Ctrl-C at the prompt loses nothing. For its owner's eyes only.
  void remember(const std::string& line) {
    add_history(line.c_str());
    if (file_.empty()) return;
    write_history(file_.c_str());
    std::error_code ignored;
    std::filesystem::permissions(file_, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write,
                                 ignored);
  }

  bool terminal_;
  std::string file_;
};

void help(bool job) {
  fmt::print(
      "/new  forget the conversation\n/help this list\n/quit end (also Ctrl-D)\n"
      "Ctrl-C stops the answer. A line that ends with \\ goes on in the next one.\n");
  if (job) fmt::print("Every message stands by itself, as the model was taught.\n");
}

void print_calls(const ParsedAnswer& answer, std::span<const Tool> tools) {
  if (!answer.plan.empty()) fmt::print("{}\n", styled(stdout, Style::kDim, answer.plan));
  for (const Call& call : answer.calls) {
    const Tool* tool = find_tool(tools, call.name);
    const bool valid = tool != nullptr && SchemaValidator(tool->parameters, call.name).accepts(call.arguments);
    fmt::print("{} {} {}\n", styled(stdout, valid ? Style::kGreen : Style::kRed, valid ? "call" : "invalid call"),
               styled(stdout, Style::kBold, call.name), write_json(call.arguments));
  }
  if (!answer.text.empty()) fmt::print("{}\n", answer.text);
  for (const std::string& problem : answer.problems)
    fmt::print("{} {}\n", styled(stdout, Style::kRed, "unreadable:"), problem);
}

}  // namespace

int chat_command(const ChatOptions& options) {
  check_generate_options(options.generate);
  const bool job = std::filesystem::exists(std::filesystem::path(options.model.model) / "thimble.toml");
  std::optional<EvalSetup> setup;
  if (job && !options.system.empty())
    throw Error("--system: a use case brings its own system message (system in thimble.toml); leave the option out");
  if (job) {
    ModelOptions model = options.model;
    model.model.clear();
    setup.emplace(open_eval(load_job(options.model.model), model, false, ""));
  } else {
    Session session = open_session(options.model);
    const auto& vocabulary = session.engine->model().model().vocabulary;
    const auto& manifest = session.manifest;
    std::optional<std::string> system = manifest ? manifest->system : std::nullopt;
    if (!options.system.empty()) system = options.system;
    PromptStyle style(session.engine->tokenizer(), vocabulary, manifest && manifest->tools_in_prompt,
                      manifest && manifest->plan, system, manifest ? manifest->tools : std::vector<Tool>{});
    setup.emplace(EvalSetup{std::move(session), std::move(style), options.model.adapter});
  }
  Engine& engine = *setup->session.engine;
  const PromptStyle& style = setup->style;
  std::optional<ConstraintSet> constraint;
  if (!style.tools().empty() && !options.unconstrained)
    constraint = ConstraintFactory(token_table(engine.tokenizer())).compile(style.tools(), style.constraint());
  if (is_terminal(stdin)) fmt::print("{}\n", styled(stdout, Style::kDim, "/help lists what can be typed"));

  const GenerateRequest generate = generate_request(options.generate, engine.tokenizer());
  LineReader reader;
  std::vector<Turn> turns;
  std::string line, message;
  while (reader.next(line)) {
    if (line.ends_with('\\')) {
      message += line.substr(0, line.size() - 1) + "\n";
      continue;
    }
    message += line;
    const std::string text = std::exchange(message, {});
    if (text.empty()) continue;
    if (text == "/quit" || text == "/exit") break;
    if (text == "/help") {
      help(job);
      continue;
    }
    if (text == "/new" || job) turns.clear();
    if (text == "/new") continue;
    turns.push_back({.role = "user", .content = text});

    const Interrupt interrupt;
    GenerateRequest request = generate;
    request.prompt = style.prompt(turns);
    request.adapter = setup->session.adapter;
    if (constraint) request.constraint = &*constraint;
    request.call_threshold = setup->session.call_threshold();
    const bool show_calls = !style.tools().empty();  // a call is shown whole, with its validity
    request.on_text = [&](std::string_view piece, const Answer&) {
      if (!show_calls) {
        std::fwrite(piece.data(), 1, piece.size(), stdout);
        std::fflush(stdout);
      }
      return !Interrupt::pressed();
    };
    std::vector<GenerateRequest> requests;
    requests.push_back(std::move(request));
    const Answer answer = std::move(engine.run(std::move(requests)).front());
    print_cut(answer, options.generate);
    if (show_calls)
      print_calls(style.parse(answer.text), style.tools());
    else
      fmt::print("\n");
    if (answer.finish == FinishReason::kCancelled) fmt::print("{}\n", styled(stdout, Style::kDim, "(stopped)"));
    if (answer.finish == FinishReason::kLength)
      fmt::print("{}\n", styled(stdout, Style::kDim,
                                fmt::format("(cut after {} tokens; -n gives more)", answer.tokens.size())));
    std::fflush(stdout);
    turns.push_back({.role = "assistant", .content = answer.text});
  }
  return kOk;
}

}  // namespace thimble
