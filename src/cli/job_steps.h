#pragma once

#include <filesystem>
#include <string>

#include "data/job.h"
#include "train/tune.h"

namespace thimble {

// Shows what will be trained on and the memory plan, then trains with progress on standard error.
TunedRun tune_with_progress(const Job& job, const std::string& base, bool dry_run, const std::filesystem::path& resume,
                            TrainingData& data);

}  // namespace thimble
