#pragma once

#include <cstddef>
#include <vector>

#include "cli/commands.h"
#include "text/tokenizer.h"

namespace thimble {

// What a new process takes from its start to the first token after a prompt of about a hundred tokens: this program,
// run as `thimble run -n 1` with the same model and settings.
class StartUp {
 public:
  static constexpr size_t kPromptTokens = 100;

  // context: positions that the model has; the prompt is cut to fit.
  StartUp(const ModelOptions& model, const Tokenizer& tokenizer, int64_t context);
  void measure();  // one process; throws Error where it fails

  int prompt_tokens() const { return prompt_tokens_; }
  const std::vector<double>& seconds() const { return seconds_; }  // to the first output, one a process
  size_t peak_memory() const { return peak_memory_; }              // the most of any of them

 private:
  std::vector<std::string> arguments_;
  int prompt_tokens_ = 0;
  std::vector<double> seconds_;
  size_t peak_memory_ = 0;
};

}  // namespace thimble
