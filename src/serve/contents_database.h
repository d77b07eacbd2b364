#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "serve/contents_entry.h"

struct sqlite3;

namespace thimble {

// The SQLite file of the contents log. One thread at a time.
class ContentsDatabase {
 public:
  static constexpr int kVersion = 1;                    // PRAGMA user_version; grows when the tables change
  static constexpr int32_t kApplicationId = 0x54686d62;  // PRAGMA application_id: "Thmb"

  // Opens the file, or makes it, for its owner alone (mode 0600, which SQLite gives its -wal and -shm, too), and makes
  // sure that it can be written. Throws Error where it can't, where others may read it, where it holds anything else,
  // or where a newer Thimble made it.
  explicit ContentsDatabase(std::filesystem::path file);

  struct Outcome {
    bool done = false;
    bool busy = false;  // another process holds the file just now; the same may go through later
    std::string why;    // where it is not done
  };
  Outcome write(std::span<const ContentsEntry> entries);  // all or none

  // Deletes the oldest requests from before that time, 500 at most, and overwrites them with zeros in the file; `more`
  // says whether some are left. Call finish_deleting() after the last.
  Outcome delete_before(int64_t time_ms, bool& more);
  // Gives the room of what was deleted back to the disk, and empties the write-ahead log, where it may stand yet.
  void finish_deleting();

  bool moved() const;  // somebody deleted or renamed the file: what is written now is found by nobody
  const std::filesystem::path& file() const { return file_; }

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };

  std::filesystem::path file_;
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace thimble
