#include "core/folder_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>

#include "core/error.h"

namespace thimble {
namespace {

TEST(FolderLock, IsOneHoldersAndNamesIt) {
  std::string name = (std::filesystem::temp_directory_path() / "thimble_lock_XXXXXX").string();
  const std::filesystem::path folder = ::mkdtemp(name.data());
  {
    std::optional<FolderLock> first(folder);
    try {
      const FolderLock second(folder);
      FAIL() << "two hold it";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("process " + std::to_string(::getpid())), std::string::npos)
          << error.what();
    }
    FolderLock moved(std::move(*first));
    first.reset();
    EXPECT_THROW(FolderLock{folder}, Error) << "moved, not let go";
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "lock"));
  std::ofstream(folder / "lock") << "4194304";  // of a process that was killed
  EXPECT_NO_THROW(FolderLock{folder});
  EXPECT_THROW(FolderLock{folder / "none"}, Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace thimble
