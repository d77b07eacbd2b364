#include "core/folder_lock.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace thimble {

FolderLock::FolderLock(const std::filesystem::path& folder) : path_(folder / "lock") {
  for (;;) {
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file_ < 0)
      throw Error(fmt::format("{}: can't be written ({}); check the folder's permissions", path_.string(),
                              std::strerror(errno)));
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      std::array<char, 32> holder{};
      const ssize_t read = ::read(file_, holder.data(), holder.size() - 1);
      ::close(file_);
      if (reason != EWOULDBLOCK)
        throw Error(fmt::format("{}: can't be locked ({}); put the folder on a disk of this machine", path_.string(),
                                std::strerror(reason)));
      throw Error(fmt::format("{}: process {} is at work there; wait for its end, or stop it", folder.string(),
                              read > 0 ? std::string(holder.data()) : "of another user"));
    }
    // Who held it before may have removed the file between our opening and our locking it.
    struct stat ours {}, named {};
    if (::fstat(file_, &ours) == 0 && ::stat(path_.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev)
      break;
    ::close(file_);
  }
  const std::string number = fmt::format("{}", ::getpid());
  // For the message alone: a full disk doesn't keep the lock from being one.
  if (::ftruncate(file_, 0) != 0 || ::pwrite(file_, number.data(), number.size(), 0) < 0) errno = 0;
}

FolderLock::~FolderLock() {
  if (file_ < 0) return;
  ::unlink(path_.c_str());
  ::close(file_);
}

}  // namespace thimble
