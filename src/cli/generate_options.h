#pragma once

#include "cli/commands.h"
#include "infer/engine.h"

namespace CLI {
class App;
}

namespace thimble {

// The options of generating that `run` and `chat` share.
void add_generate_options(CLI::App& app, GenerateOptions& options);

// Throws Error for what can't be, before a model is opened for it.
void check_generate_options(const GenerateOptions& options);

// A request with these options and no prompt yet. Throws Error where a bias names what is no token.
GenerateRequest generate_request(const GenerateOptions& options, const Tokenizer& tokenizer);

// Says on standard error how much of a prompt was cut, if any.
void print_cut(const Answer& answer, const GenerateOptions& options);

}  // namespace thimble
