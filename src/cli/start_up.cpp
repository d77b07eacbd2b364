#include "cli/start_up.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/child_process.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/thread_pool.h"

namespace thimble {
namespace {

constexpr std::string_view kText =
    "Once upon a time there was a small workshop at the end of a long street. The woman who worked there mended "
    "clocks, lamps and radios, and she never threw anything away. One morning a boy came in with a broken music box "
    "under his arm. He put it on the table and said that it had belonged to his grandmother, and that it had played "
    "the same song every evening until last week. The woman opened the lid, looked at the tiny wheels, and smiled. "
    "She took a thin brush and a drop of oil, and while she worked she told him how such boxes are made. When she "
    "had finished she wound the spring, and the song began again as if nothing had happened.";

}  // namespace

StartUp::StartUp(const ModelOptions& model, const Tokenizer& tokenizer, int64_t context) {
  auto tokens = tokenizer.encode(kText);
  tokens.resize(std::min({tokens.size(), kPromptTokens, static_cast<size_t>(std::max<int64_t>(1, context / 2))}));
  const std::string prompt = tokenizer.decode(tokens);
  prompt_tokens_ = static_cast<int>(tokenizer.encode(prompt, {.add_special = true, .parse_special = true}).size());
  arguments_ = {"--threads",
                std::to_string(threads().size()),
                "--cpu-level",
                std::string(cpu_level_name(cpu_level())),
                "run",
                "--model",
                model.model,
                "--precision",
                model.precision,
                "--prompt",
                prompt,
                "--max-tokens",
                "1",
                "--greedy",
                "--ignore-end"};
  if (!model.adapter.empty()) arguments_.insert(arguments_.end(), {"--adapter", model.adapter});
  if (!model.kv_type.empty()) arguments_.insert(arguments_.end(), {"--kv-type", model.kv_type});
}

void StartUp::measure() {
  const ChildResult result = run_child(own_program(), arguments_);
  if (result.status != 0)
    throw Error(
        fmt::format("bench: `thimble run` as a new process ended with status {}; try it by hand with the same "
                    "model, or leave start-up out (--no-start-up)",
                    result.status));
  seconds_.push_back(result.first_output_s);
  peak_memory_ = std::max(peak_memory_, result.peak_memory_bytes);
}

}  // namespace thimble
