#pragma once

#include <filesystem>

namespace thimble {

// std::filesystem's questions, with Error for paths that can't be asked about (no permission, a circle of links).
bool path_exists(const std::filesystem::path& path);
bool is_folder(const std::filesystem::path& path);

}  // namespace thimble
