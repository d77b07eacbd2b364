#include "core/paths.h"

#include <fmt/core.h>

#include "core/error.h"

namespace thimble {
namespace {

std::filesystem::file_status checked_status(const std::filesystem::path& path) {
  std::error_code reason;
  const auto found = std::filesystem::status(path, reason);
  if (found.type() == std::filesystem::file_type::none)
    throw Error(fmt::format("{}: can't be looked at ({}); check the path and its permissions", path.string(),
                            reason.message()));
  return found;
}

}  // namespace

bool path_exists(const std::filesystem::path& path) { return std::filesystem::exists(checked_status(path)); }
bool is_folder(const std::filesystem::path& path) { return std::filesystem::is_directory(checked_status(path)); }

}  // namespace thimble
