#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "core/folder_lock.h"
#include "data/job.h"
#include "train/checkpoint.h"

namespace thimble {

// Which run is trained. Without either: the newest one, where it is unfinished and its checkpoint belongs to this very
// job (model, rows and settings); else a new one.
struct RunChoice {
  std::filesystem::path resume;                 // this one and no other
  bool fresh = false;                           // a new one in any case
  std::function<void(const std::string&)> say;  // which was chosen, and why; may be empty
};

// Makes the run's folder or finds the one to go on with, locks it, and clears away what a killed process was writing.
// Throws Error where it is another process's, or where the one to resume is finished, has diverged or isn't there.
FolderLock choose_run(const Job& job, const RunChoice& choice, const RunIdentity& identity,
                      std::filesystem::path& folder);

std::filesystem::path checkpoint_file(const std::filesystem::path& run);

}  // namespace thimble
