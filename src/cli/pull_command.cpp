#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "formats/pull.h"

namespace thimble {

int pull_command(const PullOptions& options) {
  ProgressLine line;
  const auto path = pull(options.source, line.fn());
  line.clear();
  fmt::print("{}\n", path.string());
  return kOk;
}

}  // namespace thimble
