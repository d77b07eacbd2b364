#include "train/run_choice.h"

#include <fmt/core.h>

#include "core/error.h"

namespace thimble {
namespace {

// What a killed process was writing; its run is locked by us.
void remove_leftovers(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".tmp") std::filesystem::remove(entry.path(), ignored);
}

}  // namespace

std::filesystem::path checkpoint_file(const std::filesystem::path& run) { return run / "checkpoint.safetensors"; }

FolderLock choose_run(const Job& job, const RunChoice& choice, const RunIdentity& identity,
                      std::filesystem::path& folder) {
  const auto say = [&](const std::string& what) {
    if (choice.say) choice.say(what);
  };
  if (!choice.resume.empty()) {
    folder = choice.resume;
    if (!std::filesystem::is_directory(folder))
      throw Error(
          fmt::format("{}: is not a run's folder; runs stand in {}", folder.string(), job.runs_folder().string()));
    if (std::filesystem::exists(folder / "finished"))
      throw Error(fmt::format("{}: this run is finished; leave --resume out to train anew", folder.string()));
    if (std::filesystem::exists(folder / "failed"))
      throw Error(fmt::format("{}: this run has diverged and would do so again; change the settings and leave --resume "
                              "out", folder.string()));
  } else if (const auto unfinished = choice.fresh ? std::nullopt : unfinished_run(job.folder)) {
    FolderLock lock(*unfinished);
    const std::filesystem::path checkpoint = checkpoint_file(*unfinished);
    const std::string difference =
        std::filesystem::exists(checkpoint) ? checkpoint_difference(checkpoint, identity) : "";
    if (difference.empty()) {
      folder = *unfinished;
      say(fmt::format("{} is unfinished: going on {} (--fresh starts a new run)", folder.string(),
                      std::filesystem::exists(checkpoint) ? "from its last checkpoint" : "with it from the start"));
      remove_leftovers(folder);
      return lock;
    }
    say(fmt::format("{} is unfinished, but {}: a new run begins", unfinished->string(), difference));
  }
  if (choice.resume.empty()) folder = new_run(job);
  FolderLock lock(folder);
  remove_leftovers(folder);
  return lock;
}

}  // namespace thimble
