#include "serve/contents_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.h"

namespace thimble {
namespace {

constexpr size_t kBatch = 256;  // entries that are not waited for to become more
constexpr auto kLastTry = std::chrono::seconds(5);  // for a file that others hold when the server ends
constexpr std::chrono::milliseconds kRetry{60'000};  // of deleting
constexpr int64_t kDayMs = 86'400'000;

size_t size_of(const std::optional<std::string>& text) { return text ? text->size() : 0; }

}  // namespace

size_t ContentsEntry::bytes() const {
  size_t bytes = sizeof(*this) + size_of(messages) + size_of(prompt) + size_of(system) + size_of(tools) +
                 size_of(response_format) + parameters.size();
  for (const OneAnswer& one : answers)
    bytes += sizeof(one) + one.text.size() + size_of(one.reasoning) + size_of(one.tool_calls);
  return bytes;
}

ContentsLog::ContentsLog(ContentsLogOptions options, std::function<void(const std::string&)> tell)
    : options_(std::move(options)),
      tell_(std::move(tell)),
      database_(std::make_unique<ContentsDatabase>(options_.file)) {
  options_.file = database_->file();
  thread_ = std::jthread([this] { work(); });
}

ContentsLog::~ContentsLog() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::string ContentsLog::described() const {
  return fmt::format("contents are stored: all that is asked and answered goes into {}, {}",
                     options_.file.string(),
                     options_.keep_days > 0
                         ? fmt::format("for {} day{}", options_.keep_days, options_.keep_days == 1 ? "" : "s")
                         : "for ever (--keep-contents DAYS ends that)");
}

void ContentsLog::add(ContentsEntry entry) {
  const size_t bytes = entry.bytes();
  bool enough = false;
  {
    const std::scoped_lock lock(mutex_);
    if (held_ >= options_.most_waiting || held_bytes_ + bytes > options_.most_bytes) {
      ++lost_;  // the writer says so: whoever adds must not wait for standard error either
      enough = true;
    } else {
      ++held_;
      held_bytes_ += bytes;
      waiting_.push_back(std::move(entry));
      enough = waiting_.size() == 1 || waiting_.size() == kBatch;
    }
  }
  if (enough) wake_.notify_one();
}

void ContentsLog::work() {
  std::vector<ContentsEntry> batch;
  bool stopping = false;
  for (Clock::time_point since{}; !stopping || !batch.empty();) {
    take(batch);
    if (!stopping && stop_requested()) {
      stopping = true;
      since = Clock::now();
      take(batch);  // what came before the end was asked for
    }
    if (!batch.empty()) write(batch, stopping && Clock::now() - since > kLastTry);
    if (!stopping) delete_old();
    tell_of_loss();
  }
  if (lost_ > 0)
    tell_(fmt::format("contents log: {} of {} requests were not stored in {}", lost_.load(), lost_ + stored_,
                      options_.file.string()));
}

bool ContentsLog::stop_requested() {
  const std::scoped_lock lock(mutex_);
  return stop_;
}

// Adds what came to the batch, after a while in which it may become more.
void ContentsLog::take(std::vector<ContentsEntry>& batch) {
  std::unique_lock lock(mutex_);
  const auto anything = [this] { return stop_ || !waiting_.empty() || (lost_ > 0 && !told_); };
  if (batch.empty()) {
    if (options_.keep_days > 0) wake_.wait_until(lock, next_delete_, anything);
    else wake_.wait(lock, anything);
  }
  if (held_ > 0) wake_.wait_for(lock, options_.flush, [this] { return stop_ || waiting_.size() >= kBatch; });
  batch.insert(batch.end(), std::make_move_iterator(waiting_.begin()), std::make_move_iterator(waiting_.end()));
  waiting_.clear();
}

// Leaves in the batch what may go through later.
void ContentsLog::write(std::vector<ContentsEntry>& batch, bool last_try) {
  follow_file();
  if (!database_) return release(batch, 0);
  const ContentsDatabase::Outcome all = database_->write(batch);
  if (all.done) return release(batch, static_cast<int64_t>(batch.size()));
  why_lost_ = all.why;
  if (all.busy) {
    if (last_try) release(batch, 0);
    return;
  }
  int64_t written = 0;  // what fits a full disk is not lost for what doesn't
  for (const ContentsEntry& entry : batch) written += database_->write({&entry, 1}).done;
  release(batch, written);
}

// The batch is done with: so many of it are in the file, the others are lost.
void ContentsLog::release(std::vector<ContentsEntry>& batch, int64_t written) {
  stored_ += written;
  lost_ += static_cast<int64_t>(batch.size()) - written;
  {
    const std::scoped_lock lock(mutex_);
    held_ -= batch.size();
    for (const ContentsEntry& entry : batch) held_bytes_ -= entry.bytes();
  }
  batch.clear();
}

// Opens the file anew where it was deleted or renamed.
void ContentsLog::follow_file() {
  if (database_ && !database_->moved()) return;
  // All goes into the file that was moved, before another stands in its place.
  if (database_) database_->finish_deleting();
  database_.reset();
  try {
    database_ = std::make_unique<ContentsDatabase>(options_.file);
  } catch (const Error& e) {
    why_lost_ = e.what();
  }
}

void ContentsLog::delete_old() {
  if (options_.keep_days <= 0 || Clock::now() < next_delete_) return;
  follow_file();
  bool more = false;
  ContentsDatabase::Outcome outcome{.done = false, .busy = false, .why = why_lost_};
  if (database_) outcome = database_->delete_before(unix_time_ms() - options_.keep_days * kDayMs, more);
  if (more) return;  // what came meanwhile is written first
  if (outcome.done) database_->finish_deleting();
  else tell_(fmt::format("contents log: what is older than --keep-contents could not be deleted from {}: {}",
                         options_.file.string(), outcome.why));
  next_delete_ = Clock::now() + (outcome.done ? options_.delete_every : std::min(options_.delete_every, kRetry));
}

void ContentsLog::tell_of_loss() {
  if (lost_ == 0 || std::exchange(told_, true)) return;
  tell_(fmt::format("contents log: requests are answered, but not all are stored in {}: {} "
                    "(thimble_contents_lost_total counts them)",
                    options_.file.string(), why_lost_.empty() ? "more are answered than its disk takes" : why_lost_));
}

}  // namespace thimble
