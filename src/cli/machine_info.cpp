#include "cli/machine_info.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "calls/json.h"
#include "cli/commands.h"
#include "cli/terminal.h"
#include "core/cpu.h"
#include "core/machine.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/kernel_choice.h"

namespace thimble {
namespace {

Json as_json(const Machine& machine) {
  Json levels = Json::array(), kernels = Json::array();
  for (const CpuLevel level : cpu_levels()) levels.push_back(cpu_level_name(level));
  for (const KernelChoice& choice : kernel_choices())
    kernels.push_back(
        {{"type", dtype_info(choice.type).name}, {"packed", choice.packed}, {"training", choice.training}});
  return {{"processor", machine.name},
          {"cores", machine.cores},
          {"threads", threads().size()},
          {"features", cpu_features()},
          {"instruction_sets", levels},
          {"used", cpu_level_name(cpu_level())},
          {"l2_bytes", machine.l2_bytes},
          {"l3_bytes", machine.l3_bytes},
          {"huge_pages", machine.huge_pages},
          {"available_memory_bytes", available_memory()},
          {"kernels", kernels},
          {"attention", attention_choice()},
          {"shortfall", cpu_shortfall(cpu_detected())}};
}

std::string cache_text(size_t bytes) {
  return bytes == 0 ? "unknown" : fmt::format("{} KiB", human_count(static_cast<double>(bytes) / 1024));
}

std::string huge_page_text(const std::string& setting) {
  if (setting == "always" || setting == "madvise") return setting + ": weights lie on 2 MB pages";
  const std::string slow = "weights lie on 4 KiB pages, which are read more slowly";
  return setting.empty() ? "none: " + slow : setting + ": " + slow;
}

}  // namespace

int machine_info(bool json) {
  const Machine machine = describe_machine();
  if (json) {
    fmt::print("{}\n", as_json(machine).dump());
    return kOk;
  }
  const auto line = [](const char* key, const std::string& value) { fmt::print("{:<18} {}\n", key, value); };
  if (!machine.name.empty()) line("processor", machine.name);
  line("cores", fmt::format("{}; {} threads compute", machine.cores, threads().size()));
  line("caches", fmt::format("L2 {} a core, L3 {}", cache_text(machine.l2_bytes), cache_text(machine.l3_bytes)));
  line("huge pages", huge_page_text(machine.huge_pages));
  line("available memory", human_bytes(static_cast<double>(available_memory())));
  line("instruction sets", fmt::format("{}", fmt::join(cpu_features(), " ")));
  std::string levels;
  for (const CpuLevel level : cpu_levels())
    levels += (levels.empty() ? "" : " ") +
              (level == cpu_level() ? styled(stdout, Style::kBold, std::string(cpu_level_name(level)) + " (used)")
                                    : std::string(cpu_level_name(level)));
  line("levels", levels);
  fmt::print("\n{:<8} {:<26} {}\n", "weights", "products, inference", "products, training");
  for (const KernelChoice& choice : kernel_choices())
    fmt::print("{:<8} {:<26} {}\n", dtype_info(choice.type).name, choice.packed, choice.training);
  fmt::print("\n{:<8} {}\n", "attention", attention_choice());
  if (const auto shortfall = cpu_shortfall(cpu_detected()); !shortfall.empty())
    fmt::print("{}\n", styled(stdout, Style::kYellow, shortfall));
  if (cpu_level() < cpu_detected())
    fmt::print("{}\n", styled(stdout, Style::kYellow,
                              fmt::format("{} was asked for: this machine has {}", cpu_level_name(cpu_level()),
                                          cpu_level_name(cpu_detected()))));
  return kOk;
}

}  // namespace thimble
