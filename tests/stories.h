#pragma once

#include <filesystem>
#include <string>

#include "test_data.h"

// At the top of a test that uses stories_model(): skips (or fails on the build machine) where its data is missing.
#define THIMBLE_REQUIRE_STORIES() THIMBLE_REQUIRE_DATA(::thimble::test::data("stories260K"))

namespace thimble::test {

// The 260 K-parameter model as a Hugging Face folder, made once by tests/oracle/make_stories.py (plain python3) and
// kept in the temporary folder for all test programs of this checkout.
inline std::filesystem::path stories_model() {
  namespace fs = std::filesystem;
  const fs::path script = fs::path(THIMBLE_SOURCE) / "tests/oracle/make_stories.py";
  const auto version = fs::last_write_time(script).time_since_epoch().count();
  const fs::path folder =
      fs::temp_directory_path() /
      ("thimble-stories260K-" + std::to_string(std::hash<std::string>{}(script.string() + std::to_string(version))));
  if (!fs::exists(folder / "model.safetensors")) {  // the script puts it in place last
    const std::string command =
        "python3 '" + script.string() + "' '" + data("stories260K").string() + "' '" + folder.string() + "'";
    if (std::system(command.c_str()) != 0) ADD_FAILURE() << "failed: " << command;
  }
  return folder;
}

}  // namespace thimble::test
