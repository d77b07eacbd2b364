#include "serve/contents_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <mutex>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "serve/contents_rows.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using test::rows_of;
using test::Sqlite;
using testing::HasSubstr;

std::string bytes_of(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

mode_t mode_of(const fs::path& path) {
  struct stat found {};
  EXPECT_EQ(::stat(path.c_str(), &found), 0) << path;
  return found.st_mode & 0777;
}

bool within_seconds(const std::function<bool()>& what) {
  for (int i = 0; i < 1000; ++i) {
    if (what()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

class ContentsLogTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("thimble-contents-" + std::to_string(::getpid()) + "-" +
                                           testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    file_ = folder_ / "contents.db";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<ContentsLog> open(ContentsLogOptions options = {}) {
    options.file = file_;
    return std::make_unique<ContentsLog>(options, [this](const std::string& line) {
      const std::scoped_lock lock(telling_);
      told_.push_back(line);
    });
  }
  std::string refusal() {
    try {
      open();
    } catch (const Error& e) {
      return e.what();
    }
    return "not refused";
  }
  std::vector<std::string> told() {
    const std::scoped_lock lock(telling_);
    return told_;
  }
  static ContentsEntry entry(const std::string& id) {
    ContentsEntry e;
    e.id = id;
    e.time_ms = unix_time_ms();
    e.path = "/v1/chat/completions";
    e.model = e.base = "m";
    e.status = "200";
    e.answers.resize(1);
    return e;
  }

  fs::path folder_, file_;

 private:
  std::mutex telling_;
  std::vector<std::string> told_;
};

TEST_F(ContentsLogTest, RowsAreReadBackAsTheyWere) {
  ContentsEntry full;
  full.id = "chatcmpl-1";
  full.http_id = "http-1";
  full.time_ms = 1'700'000'000'123;
  full.path = "/v1/chat/completions";
  full.key_name = "alice";
  full.model_asked = "helpdesk";
  full.model = "helpdesk";
  full.base = "smol";
  full.base_fingerprint = "abc";
  full.adapter = "jobs/helpdesk/runs/1/adapter";
  full.messages = R"([{"role":"user","content":"it's \"wifi\""}])";
  full.prompt = "[1,2]";
  full.system = R"("be brief")";
  full.tools = "[]";
  full.response_format = R"({"type":"text"})";
  full.parameters = R"({"n":2})";
  full.status = "408";
  full.error = "late";
  full.prompt_tokens = 10;
  full.cached_tokens = 4;
  full.completion_tokens = 7;
  full.total_ms = 12.5;
  full.answers = {{.text = std::string("nul\0 and ö", 11), .reasoning = "why", .tool_calls = "[{}]",
                   .finish = "tool_calls", .tokens = 5, .first_token_ms = 1.5, .total_ms = 9.25},
                  {.text = "", .reasoning = {}, .tool_calls = {}, .finish = {}, .tokens = 2, .first_token_ms = {},
                   .total_ms = {}}};
  open()->add(full);

  const auto rows = rows_of(file_, "SELECT * FROM log ORDER BY choice");
  ASSERT_EQ(rows.size(), 2u);
  nlohmann::ordered_json expected = {
      {"number", 1}, {"id", full.id}, {"http_id", full.http_id}, {"time_ms", full.time_ms}, {"path", full.path},
      {"key_name", "alice"}, {"model_asked", "helpdesk"}, {"model", "helpdesk"}, {"base", "smol"},
      {"base_fingerprint", "abc"}, {"adapter", *full.adapter}, {"messages", *full.messages}, {"prompt", "[1,2]"},
      {"system", *full.system}, {"tools", "[]"}, {"response_format", *full.response_format},
      {"parameters", full.parameters}, {"status", "408"}, {"error", "late"}, {"prompt_tokens", 10},
      {"cached_tokens", 4}, {"completion_tokens", 7}, {"total_ms", 12.5}, {"choice", 0},
      {"text", full.answers[0].text}, {"reasoning", "why"}, {"tool_calls", "[{}]"}, {"finish", "tool_calls"},
      {"tokens", 5}, {"first_token_ms", 1.5}, {"answer_ms", 9.25}};
  EXPECT_EQ(rows[0], expected);
  expected.update({{"choice", 1}, {"text", ""}, {"reasoning", nullptr}, {"tool_calls", nullptr}, {"finish", nullptr},
                   {"tokens", 2}, {"first_token_ms", nullptr}, {"answer_ms", nullptr}});
  EXPECT_EQ(rows[1], expected);

  open()->add(entry("bare"));
  const auto bare = rows_of(file_, "SELECT * FROM log WHERE id = 'bare'")[0];
  for (const char* column : {"key_name", "model_asked", "adapter", "messages", "prompt", "system", "tools",
                             "response_format", "error", "reasoning", "tool_calls", "first_token_ms"})
    EXPECT_TRUE(bare[column].is_null()) << column;
  EXPECT_EQ(rows_of(file_, "PRAGMA user_version")[0]["user_version"], ContentsDatabase::kVersion);
}

TEST_F(ContentsLogTest, WritesSoonWithoutWaitingForMore) {
  const auto log = open();
  for (int i = 0; i < 3; ++i) {
    log->add(entry(std::to_string(i)));
    EXPECT_TRUE(within_seconds([&] { return rows_of(file_, "SELECT id FROM log").size() == size_t(i + 1); }));
  }
  EXPECT_EQ(log->stored(), 3);
  EXPECT_EQ(log->lost(), 0);
}

TEST_F(ContentsLogTest, KeepsWhatManyThreadsAdd) {
  {
    const auto log = open();
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 250; ++i) log->add(entry(std::to_string(t) + "-" + std::to_string(i)));
      });
    threads.clear();
  }
  EXPECT_EQ(rows_of(file_, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM log")[0],
            nlohmann::ordered_json({{"n", 1000}, {"ids", 1000}}));
}

TEST_F(ContentsLogTest, WhatFindsNoRoomIsCountedAndToldOnce) {
  ContentsLogOptions options;
  options.most_waiting = 4;
  auto log = open(options);
  {
    Sqlite other(file_);
    other.run("BEGIN IMMEDIATE");
    for (int i = 0; i < 10; ++i) log->add(entry(std::to_string(i)));  // and none of these calls waits for `other`
    EXPECT_EQ(log->lost(), 6);
    EXPECT_TRUE(within_seconds([&] { return told().size() == 1; }));
    log->add(entry("10"));
    EXPECT_EQ(log->lost(), 7);
    other.run("ROLLBACK");
  }
  EXPECT_TRUE(within_seconds([&] { return log->stored() == 4; }));
  log->add(entry("11"));
  log.reset();
  EXPECT_EQ(rows_of(file_, "SELECT id FROM log ORDER BY number").dump(),
            R"([{"id":"0"},{"id":"1"},{"id":"2"},{"id":"3"},{"id":"11"}])");
  ASSERT_EQ(told().size(), 2u);
  EXPECT_THAT(told()[0], HasSubstr("thimble_contents_lost_total"));
  EXPECT_THAT(told()[1], HasSubstr("7 of 12 requests were not stored"));
}

TEST_F(ContentsLogTest, BytesThatWaitAreBounded) {
  ContentsLogOptions options;
  options.most_bytes = 100'000;
  auto log = open(options);
  ContentsEntry large = entry("large");
  large.messages = std::string(100'000, 'x');
  log->add(large);
  log->add(entry("small"));
  log.reset();
  EXPECT_EQ(rows_of(file_, "SELECT id FROM log").dump(), R"([{"id":"small"}])");
}

TEST_F(ContentsLogTest, AFullDiskLosesWhatComesAndNothingElse) {
  const auto log = open();
  log->add(entry("before"));
  ASSERT_TRUE(within_seconds([&] { return log->stored() == 1; }));
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit full{fs::file_size(folder_ / "contents.db-wal"), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  ContentsEntry large = entry("large");
  large.messages = std::string(1 << 20, 'x');
  log->add(large);
  const bool lost = within_seconds([&] { return log->lost() == 1; });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_TRUE(lost);
  log->add(entry("after"));
  EXPECT_TRUE(within_seconds([&] { return log->stored() == 2; }));
  EXPECT_EQ(rows_of(file_, "SELECT id FROM log").dump(), R"([{"id":"before"},{"id":"after"}])");
  ASSERT_EQ(told().size(), 1u);
  EXPECT_THAT(told()[0], HasSubstr("contents.db"));
}

TEST_F(ContentsLogTest, FilesAreForTheirOwnerAlone) {
  const mode_t before = ::umask(0);
  const auto log = open();
  log->add(entry("a"));
  EXPECT_TRUE(within_seconds([&] { return log->stored() == 1; }));
  ::umask(before);
  for (const char* name : {"contents.db", "contents.db-wal", "contents.db-shm"})
    EXPECT_EQ(mode_of(folder_ / name), 0600u) << name;
}

TEST_F(ContentsLogTest, RefusesFilesThatAreNotItsOwn) {
  std::ofstream(file_) << "an essay that is longer than the head of a database, and is nobody's log of anything, "
                          "but has been worked on for days";
  const std::string essay = bytes_of(file_);
  EXPECT_THAT(refusal(), HasSubstr("is no contents log of Thimble"));
  EXPECT_EQ(bytes_of(file_), essay);

  fs::remove(file_);
  Sqlite(file_).run("CREATE TABLE requests (id TEXT)");
  const std::string foreign = bytes_of(file_);
  EXPECT_THAT(refusal(), HasSubstr("is no contents log of Thimble"));
  EXPECT_EQ(bytes_of(file_), foreign);

  fs::remove(file_);
  open();
  Sqlite(file_).run("PRAGMA user_version = " + std::to_string(ContentsDatabase::kVersion + 1));
  EXPECT_THAT(refusal(), testing::AllOf(HasSubstr("version 2"), HasSubstr("newer Thimble")));
}

TEST_F(ContentsLogTest, RefusesWhereItCanNotWriteOrOthersCanRead) {
  open();
  fs::permissions(file_, fs::perms::others_read, fs::perm_options::add);
  EXPECT_THAT(refusal(), HasSubstr("chmod 600"));
  fs::resize_file(file_, 0);  // nobody's yet, but it would be read
  EXPECT_THAT(refusal(), HasSubstr("chmod 600"));
  file_ = folder_;
  EXPECT_THAT(refusal(), HasSubstr(folder_.string()));
  file_ = folder_ / "no-such" / "contents.db";
  EXPECT_THAT(refusal(), HasSubstr("a folder that you may write"));
  file_ = "/proc/contents.db";
  EXPECT_THAT(refusal(), HasSubstr("a folder that you may write"));
  file_ = "/dev/null";
  EXPECT_THAT(refusal(), HasSubstr("is no file"));
}

TEST_F(ContentsLogTest, DeletesWhatIsTooOldEverywhereInTheFile) {
  const int64_t day = 86'400'000;
  {
    const auto log = open();
    for (int i = 0; i < 1200; ++i) {
      ContentsEntry e = entry("old" + std::to_string(i));
      e.time_ms -= 2 * day + 60'000;
      e.messages = "a secret";
      e.answers[0].text = std::string(i % 100 == 0 ? 10'000 : 10, 'x') + "another secret";
      log->add(e);
    }
    ContentsEntry e = entry("new");
    e.time_ms -= 2 * day - 60'000;
    log->add(e);
  }
  EXPECT_THAT(bytes_of(file_), HasSubstr("another secret"));
  const auto size = fs::file_size(file_);
  ContentsLogOptions options;
  options.keep_days = 2;
  auto log = open(options);
  EXPECT_THAT(log->described(), testing::EndsWith("contents.db, for 2 days"));
  EXPECT_TRUE(within_seconds([&] { return rows_of(file_, "SELECT id FROM requests").size() == 1; }));
  // The end waits for a running turn of deleting, and closing leaves no log beside the file.
  log.reset();
  EXPECT_EQ(rows_of(file_, "SELECT id FROM log").dump(), R"([{"id":"new"}])");
  EXPECT_EQ(rows_of(file_, "SELECT count(*) AS n FROM answers")[0]["n"], 1);
  EXPECT_THAT(bytes_of(file_), testing::Not(HasSubstr("secret")));
  EXPECT_LT(fs::file_size(file_), size / 2);
  EXPECT_THAT(told(), testing::IsEmpty());

  open()->add(entry("newer"));  // numbers are not given twice
  EXPECT_EQ(rows_of(file_, "SELECT number FROM log WHERE id = 'newer'")[0]["number"], 1202);
}

TEST_F(ContentsLogTest, DeletesEachHourToo) {
  ContentsLogOptions options;
  options.keep_days = 1;
  options.delete_every = std::chrono::milliseconds(50);
  const auto log = open(options);
  ContentsEntry e = entry("old");
  e.time_ms -= 2 * 86'400'000;
  log->add(e);
  EXPECT_TRUE(within_seconds([&] { return log->stored() == 1; }));
  EXPECT_TRUE(within_seconds([&] { return rows_of(file_, "SELECT id FROM log").empty(); }));
}

TEST_F(ContentsLogTest, AFileThatWasTakenAwayIsMadeAnew) {
  auto log = open();
  log->add(entry("first"));
  ASSERT_TRUE(within_seconds([&] { return log->stored() == 1; }));
  fs::rename(file_, folder_ / "kept.db");
  log->add(entry("second"));
  ASSERT_TRUE(within_seconds([&] { return log->stored() == 2; }));
  fs::remove(file_);
  log->add(entry("third"));
  log.reset();
  EXPECT_EQ(rows_of(folder_ / "kept.db", "SELECT id FROM log").dump(), R"([{"id":"first"}])");
  EXPECT_EQ(rows_of(file_, "SELECT id FROM log").dump(), R"([{"id":"third"}])");
  EXPECT_EQ(mode_of(file_), 0600u);
}

TEST_F(ContentsLogTest, DeletingARequestByHandDeletesItsAnswers) {
  open()->add(entry("a"));
  Sqlite(file_).run("DELETE FROM requests WHERE id = 'a'");
  EXPECT_EQ(rows_of(file_, "SELECT * FROM answers").size(), 0u);
}

}  // namespace
}  // namespace thimble
