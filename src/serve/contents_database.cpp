#include "serve/contents_database.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "serve/contents_schema.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

constexpr int kBusyMs = 200;     // that a call waits for other processes
constexpr int kDeletedAtOnce = 500;

// What SQLite says no to. Does not leave this file.
struct Failure {
  int code;
  std::string what;
};

[[noreturn]] void fail(sqlite3* database) {
  throw Failure{sqlite3_extended_errcode(database), sqlite3_errmsg(database)};
}

bool is_busy(int code) {
  const int primary = code & 0xff;
  return primary == SQLITE_BUSY || primary == SQLITE_LOCKED;
}

class Statement {
 public:
  Statement(sqlite3* database, std::string_view sql) : database_(database) {
    if (sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr) != SQLITE_OK)
      fail(database);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Runs it with these values, which must stay until then, and makes it ready for the next.
  template <typename... Value>
  void run(const Value&... values) {
    int at = 0;
    (check(bind(++at, values)), ...);
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_DONE && code != SQLITE_ROW) fail(database_);
    check(sqlite3_reset(statement_));
  }
  // The whole number in its first row.
  int64_t number() {
    if (sqlite3_step(statement_) != SQLITE_ROW) fail(database_);
    return sqlite3_column_int64(statement_, 0);
  }
  std::string text() {
    if (sqlite3_step(statement_) != SQLITE_ROW) fail(database_);
    const auto* value = reinterpret_cast<const char*>(sqlite3_column_text(statement_, 0));
    return value == nullptr ? "" : value;
  }

 private:
  void check(int code) {
    if (code != SQLITE_OK) fail(database_);
  }
  int bind(int at, const std::string& value) {
    return sqlite3_bind_text64(statement_, at, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
  }
  int bind(int at, int64_t value) { return sqlite3_bind_int64(statement_, at, value); }
  int bind(int at, double value) { return sqlite3_bind_double(statement_, at, value); }
  template <typename Value>
  int bind(int at, const std::optional<Value>& value) {
    return value ? bind(at, *value) : sqlite3_bind_null(statement_, at);
  }

  sqlite3* database_;
  sqlite3_stmt* statement_ = nullptr;
};

void run(sqlite3* database, const char* sql) {
  if (sqlite3_exec(database, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail(database);
}

int64_t number_of(sqlite3* database, const char* sql) { return Statement(database, sql).number(); }

// Rolled back unless it is committed.
class Transaction {
 public:
  explicit Transaction(sqlite3* database) : database_(database) { run(database, "BEGIN IMMEDIATE"); }
  ~Transaction() {
    // After some failures (a full disk) SQLite has rolled back by itself.
    if (sqlite3_get_autocommit(database_) == 0) sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() { run(database_, "COMMIT"); }

 private:
  sqlite3* database_;
};

// Makes the file for its owner alone before SQLite sees it, or looks whether it is one that may be written. Gives
// whether others may use it, too.
bool make_file(const fs::path& file) {
  int opened = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (opened < 0 && errno == EEXIST) opened = ::open(file.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (opened < 0)
    throw Error(fmt::format("{}: can't be opened to log contents: {}; name a file in a folder that you may write",
                            file.string(), std::strerror(errno)));
  struct stat found {};
  const bool known = ::fstat(opened, &found) == 0;
  ::close(opened);  // before SQLite locks it: closing any handle drops a process's locks
  if (!known || !S_ISREG(found.st_mode))
    throw Error(fmt::format("{}: is no file; name one to log contents to", file.string()));
  return (found.st_mode & (S_IRWXG | S_IRWXO)) != 0;
}

void make_tables(sqlite3* database) {
  // Before anything else is in the file. Deleted rows give their room back.
  run(database, "PRAGMA auto_vacuum = INCREMENTAL");
  // What says whose file it is comes in one piece with the tables: a crash leaves all or an empty file.
  Transaction transaction(database);
  run(database, fmt::format("PRAGMA application_id = {}", ContentsDatabase::kApplicationId).c_str());
  run(database, fmt::format("PRAGMA user_version = {}", ContentsDatabase::kVersion).c_str());
  run(database, kContentsSchema);
  transaction.commit();
}

void check_ours(sqlite3* database, const fs::path& file) {
  if (number_of(database, "PRAGMA application_id") != ContentsDatabase::kApplicationId)
    throw Error(fmt::format("{}: is no contents log of Thimble, but some other database; name another file",
                            file.string()));
  const int64_t version = number_of(database, "PRAGMA user_version");
  if (version < 1 || version > ContentsDatabase::kVersion)
    throw Error(fmt::format("{}: is a contents log of version {}, but this Thimble knows versions up to {}; take a "
                            "newer Thimble, or name another file",
                            file.string(), version, ContentsDatabase::kVersion));
}

void insert(sqlite3* database, Statement& request, Statement& answer, const ContentsEntry& e) {
  request.run(e.id, e.http_id, e.time_ms, e.path, e.key_name, e.model_asked, e.model, e.base, e.base_fingerprint,
              e.adapter, e.messages, e.prompt, e.system, e.tools, e.response_format, e.parameters, e.status, e.error,
              e.prompt_tokens, e.cached_tokens, e.completion_tokens, e.total_ms);
  const int64_t number = sqlite3_last_insert_rowid(database);
  int64_t choice = 0;
  for (const ContentsEntry::OneAnswer& one : e.answers)
    answer.run(number, choice++, one.text, one.reasoning, one.tool_calls, one.finish, one.tokens, one.first_token_ms,
               one.total_ms);
}

}  // namespace

void ContentsDatabase::Close::operator()(sqlite3* database) const { sqlite3_close_v2(database); }

// An absolute path, because SQLite takes some names, such as :memory:, for something else.
ContentsDatabase::ContentsDatabase(fs::path file) : file_(fs::absolute(std::move(file))) {
  const bool open_to_others = make_file(file_);
  sqlite3* opened = nullptr;
  const int code =
      sqlite3_open_v2(file_.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  database_.reset(opened);
  try {
    if (code != SQLITE_OK) throw Failure{code, sqlite3_errstr(code)};
    sqlite3_extended_result_codes(opened, 1);
    sqlite3_busy_timeout(opened, 10 * kBusyMs);
    const bool empty = number_of(opened, "PRAGMA page_count") == 0;
    if (!empty) check_ours(opened, file_);
    if (open_to_others)
      throw Error(fmt::format("{}: is open to others than its owner, but is to hold what is asked and answered; "
                              "`chmod 600` it, or name another file",
                              file_.string()));
    if (empty) make_tables(opened);
    // Readers don't wait for the writer, nor it for them. A commit survives the process at once, and a power cut once
    // it has been moved from the log into the file.
    if (Statement(opened, "PRAGMA journal_mode = WAL").text() != "wal")
      throw Failure{SQLITE_CANTOPEN, "its file system can't hold a write-ahead log"};
    run(opened, "PRAGMA synchronous = NORMAL");
    run(opened, "PRAGMA journal_size_limit = 16777216");
    run(opened, "PRAGMA secure_delete = ON");  // what is deleted is no longer in the file
    run(opened, "PRAGMA recursive_triggers = OFF");
    Transaction trial(opened);  // a real write, beside the file, too
    run(opened, fmt::format("PRAGMA user_version = {}", kVersion).c_str());
    trial.commit();
    sqlite3_busy_timeout(opened, kBusyMs);
  } catch (const Failure& e) {
    if ((e.code & 0xff) == SQLITE_NOTADB)
      throw Error(
          fmt::format("{}: is no contents log of Thimble, and no database; name another file", file_.string()));
    throw Error(fmt::format("{}: can't be written as a contents log: {}; name a file in a folder of this machine's "
                            "that you may write",
                            file_.string(), e.what));
  }
}

ContentsDatabase::Outcome ContentsDatabase::write(std::span<const ContentsEntry> entries) {
  try {
    Transaction transaction(database_.get());
    Statement request(database_.get(),
                      "INSERT INTO requests (id, http_id, time_ms, path, key_name, model_asked, model, base, "
                      "base_fingerprint, adapter, messages, prompt, system, tools, response_format, parameters, "
                      "status, error, prompt_tokens, cached_tokens, completion_tokens, total_ms) "
                      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    Statement answer(database_.get(),
                     "INSERT INTO answers (request, choice, text, reasoning, tool_calls, finish, tokens, "
                     "first_token_ms, answer_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
    for (const ContentsEntry& entry : entries) insert(database_.get(), request, answer, entry);
    transaction.commit();
    return {.done = true, .busy = false, .why = {}};
  } catch (const Failure& e) {
    return {.done = false, .busy = is_busy(e.code), .why = e.what};
  }
}

ContentsDatabase::Outcome ContentsDatabase::delete_before(int64_t time_ms, bool& more) {
  more = false;
  try {
    Transaction transaction(database_.get());
    Statement(database_.get(),
              "DELETE FROM requests WHERE number IN "
              "(SELECT number FROM requests WHERE time_ms < ? ORDER BY time_ms LIMIT ?)")
        .run(time_ms, int64_t{kDeletedAtOnce});
    const int deleted = sqlite3_changes(database_.get());
    transaction.commit();
    more = deleted == kDeletedAtOnce;
    return {.done = true, .busy = false, .why = {}};
  } catch (const Failure& e) {
    return {.done = false, .busy = is_busy(e.code), .why = e.what};
  }
}

void ContentsDatabase::finish_deleting() {
  // Where somebody reads just now, this waits for the next time.
  sqlite3_exec(database_.get(), "PRAGMA incremental_vacuum", nullptr, nullptr, nullptr);
  sqlite3_exec(database_.get(), "PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr);
}

bool ContentsDatabase::moved() const {
  int moved = 0;
  return sqlite3_file_control(database_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0;
}

}  // namespace thimble
