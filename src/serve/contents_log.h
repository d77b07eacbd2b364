#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "serve/contents_database.h"
#include "serve/contents_entry.h"

namespace thimble {

struct ContentsLogOptions {
  std::filesystem::path file{};  // empty: contents are not stored
  int keep_days = 0;             // 0: for ever
  // What may wait to be written; more is lost, so that answers never wait for a disk.
  size_t most_waiting = 4096;                     // entries
  size_t most_bytes = size_t{64} << 20;           // of them
  std::chrono::milliseconds flush{250};           // the longest that one waits while the file can be written
  std::chrono::milliseconds delete_every{3'600'000};
};

// What was asked and answered, in a file of its own, for whoever asked for that with --log-contents. One thread writes,
// in transactions of what came in the meantime; who adds never waits for it. A file that was deleted or renamed
// meanwhile is made anew.
class ContentsLog {
 public:
  // Throws Error where the file can't be had (contents_database.h). `tell` hears of the first loss, and of the sum of
  // all at the end, from the writer's thread.
  ContentsLog(ContentsLogOptions options, std::function<void(const std::string&)> tell);
  ~ContentsLog();  // writes what waits, as long as another process doesn't keep it from that for seconds
  ContentsLog(const ContentsLog&) = delete;
  ContentsLog& operator=(const ContentsLog&) = delete;

  void add(ContentsEntry entry);  // any thread

  int64_t stored() const { return stored_; }
  int64_t lost() const { return lost_; }  // too many waited, or the file could not be written
  std::string described() const;          // a sentence for whoever starts the server

 private:
  void work();
  bool stop_requested();
  void take(std::vector<ContentsEntry>& batch);
  void write(std::vector<ContentsEntry>& batch, bool last_try);
  void release(std::vector<ContentsEntry>& batch, int64_t written);
  void follow_file();
  void delete_old();
  void tell_of_loss();

  ContentsLogOptions options_;
  std::function<void(const std::string&)> tell_;
  std::unique_ptr<ContentsDatabase> database_;  // nullptr: it was moved, and can't be made anew
  std::atomic<int64_t> stored_{0}, lost_{0};
  // The writer's, as is the database.
  Clock::time_point next_delete_ = Clock::now();
  std::string why_lost_;
  bool told_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<ContentsEntry> waiting_;
  size_t held_ = 0, held_bytes_ = 0;  // waiting or being written
  bool stop_ = false;
  std::jthread thread_;
};

}  // namespace thimble
