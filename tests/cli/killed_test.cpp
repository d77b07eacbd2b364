// Nothing is lost: whatever ends a training, the same command goes on and ends with the same bytes.

#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "program.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr const char* kEveryStep =
    "rank = 4\nlearning_rate = 0.02\nepochs = 4\nbatch_rows = 4\ndev_share = 0.1\nevaluations = 2\n"
    "dropout = 0.1\ncheckpoint_minutes = 0\n";

class Killed : public test::JobTest {
 protected:
  // A `thimble tune` of the job that can be watched and killed.
  pid_t start() const {
    const std::string folder = folder_.string();
    const pid_t child = ::fork();
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stdout) == nullptr || std::freopen("/dev/null", "w", stderr) == nullptr)
        ::_exit(126);
      ::execl(THIMBLE_BINARY, "thimble", "--threads", "1", "tune", folder.c_str(), nullptr);
      ::_exit(127);
    }
    return child;
  }
  static bool ended(pid_t child) { return ::waitpid(child, nullptr, WNOHANG) == child; }
  bool holds(const std::string& part) const {
    std::error_code none;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "runs", none))
      if (entry.path().filename().string().find(part) != std::string::npos) return true;
    return false;
  }
  static std::vector<std::string> bytes_of(const fs::path& run) {
    std::vector<std::string> out;
    for (const char* name : {"adapter_model.safetensors", "adapter_config.json", "thimble_job.json"})
      out.push_back(test::text_of(run / "adapter" / name));
    return out;
  }
};

TEST_F(Killed, TwentyTimesAtAnyMomentAndTheAdapterIsTheSameByteForByte) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", kEveryStep);
  const auto begin = Clock::now();
  ASSERT_EQ(test::thimble("--threads 1 tune " + job()).status, 0);
  const double whole = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto expected = bytes_of(run());
  ASSERT_FALSE(expected[0].empty());
  fs::remove_all(folder_ / "runs");

  std::mt19937 random(7);
  int kills = 0, in_writing = 0, finished = 0;
  while (kills < 20 || in_writing < 3) {
    ASSERT_LT(kills, 200);
    const pid_t child = start();
    // Every second one dies when it next writes a checkpoint after its moment has come.
    const double moment = std::uniform_real_distribution<double>(0.02, whole)(random);
    const bool at_writing = kills % 2 == 1;
    const auto started = Clock::now();
    bool gone = false;
    while (!gone) {
      gone = ended(child);
      if (std::chrono::duration<double>(Clock::now() - started).count() < (at_writing ? moment / 2 : moment)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      if (!at_writing || holds("checkpoint.safetensors.")) break;
    }
    if (!gone) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      ++kills;
      if (holds("checkpoint.safetensors.")) ++in_writing;
    }
    if (!holds("finished")) continue;
    ++finished;
    EXPECT_EQ(bytes_of(run()), expected) << "after " << kills << " kills";
    fs::remove_all(folder_ / "runs");
  }
  if (fs::exists(folder_ / "runs")) {
    while (!holds("finished")) ASSERT_EQ(test::thimble("--threads 1 tune " + job()).status, 0);
    EXPECT_EQ(bytes_of(run()), expected) << "after " << kills << " kills";
    ++finished;
    EXPECT_FALSE(holds(".tmp")) << "what a killed process was writing is cleared away";
    EXPECT_FALSE(holds("checkpoint"));
    EXPECT_FALSE(holds("lock"));
  }
  EXPECT_GE(finished, 1);
}

TEST_F(Killed, AStudentThatAnswersItselfEndsTheSameToo) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  ASSERT_EQ(test::thimble("--threads 1 tune " + job()).status, 0);
  fs::copy(run() / "adapter", folder_ / "teacher");
  fs::remove(folder_ / "teacher/thimble_job.json");  // of another job
  fs::remove_all(folder_ / "runs");
  write_job("[distill]\nteacher = \"" + test::stories_model().string() +
                "\"\nadapter = \"teacher\"\nkind = \"jsd\"\non_policy = 0.6\nmax_new_tokens = 24\n",
            "", kEveryStep);
  const auto begin = Clock::now();
  const test::Result told = test::thimble("--threads 1 tune --json " + job());
  const double whole = std::chrono::duration<double>(Clock::now() - begin).count();
  ASSERT_EQ(told.status, 0) << told.err;
  EXPECT_THAT(told.err, HasSubstr("over the student's own answers in 60 % of the rows"));
  EXPECT_THAT(told.out, HasSubstr("\"sampled_tokens\":"));
  const auto expected = bytes_of(run());
  fs::remove_all(folder_ / "runs");
  std::mt19937 random(11);
  for (int kills = 0; kills < 6; ++kills) {
    const pid_t child = start();
    std::this_thread::sleep_for(
        std::chrono::duration<double>(std::uniform_real_distribution<double>(whole / 3, whole)(random)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    if (holds("finished")) break;
  }
  while (!holds("finished")) ASSERT_EQ(test::thimble("--threads 1 tune " + job()).status, 0);
  EXPECT_EQ(bytes_of(run()), expected);
}

TEST_F(Killed, TheSameCommandSaysThatItGoesOnAndWhyItDoesNot) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", kEveryStep);
  const auto killed_run = [&] {
    fs::remove_all(folder_ / "runs");
    const pid_t child = start();
    while (!fs::exists(folder_ / "runs") || !fs::exists(run() / "checkpoint.safetensors")) ASSERT_FALSE(ended(child));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  };
  killed_run();
  const std::string name = run().filename().string();
  const test::Result same = test::thimble("--threads 1 tune " + job());
  EXPECT_EQ(same.status, 0);
  EXPECT_THAT(same.err, HasSubstr(name + " is unfinished: going on from its last checkpoint"));

  killed_run();
  const test::Result fresh = test::thimble("tune --fresh " + job());
  EXPECT_EQ(fresh.status, 0);
  EXPECT_THAT(fresh.err, testing::Not(HasSubstr("going on")));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "runs"), fs::directory_iterator()), 2);

  killed_run();
  const fs::path left = run();
  write("train.jsonl", test::text_of(folder_ / "train.jsonl") +
                           R"({"query":"light","calls":[{"name":"lamp","arguments":{"on":true}}]})" + "\n");
  const test::Result changed = test::thimble("--threads 1 tune " + job());
  EXPECT_EQ(changed.status, 0);
  EXPECT_THAT(changed.err, HasSubstr("is unfinished, but belongs to a run with another "));
  const test::Result refused = test::thimble("--threads 1 tune " + job() + " --resume '" + left.string() + "'");
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("belongs to a run with another "));
}

TEST_F(Killed, ARunIsOneProcesssAlone) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", "rank = 8\nlearning_rate = 0.001\nepochs = 2000\nbatch_rows = 4\ndev_share = 0.1\n");
  const pid_t child = start();
  while (!holds("checkpoint.safetensors")) ASSERT_FALSE(ended(child));
  const std::string resume = " --resume '" + run().string() + "'";
  for (const std::string& how : {std::string(), resume}) {
    const test::Result second = test::thimble("--threads 1 tune " + job() + how);
    EXPECT_EQ(second.status, 2);
    EXPECT_THAT(second.err, HasSubstr("process " + std::to_string(child) + " is at work there"));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(holds("lock")) << "left behind, but nobody's";
  write_job("", "", "rank = 8\nlearning_rate = 0.001\nepochs = 2000\nbatch_rows = 4\ndev_share = 0.1\n");
  EXPECT_THAT(test::thimble("tune --dry-run " + job()).err, testing::Not(HasSubstr("at work")));
}

TEST_F(Killed, AFullDiskKeepsTheOldCheckpointAndTheTrainingGoesOn) {
  THIMBLE_REQUIRE_STORIES();
  // A limit on the size of files stands for the full disk: the adapter (about 170 KB) still fits, the checkpoint, four
  // times that, does not.
  write_job("", "", kEveryStep);
  const test::Result r = test::thimble("--threads 1 tune " + job(), "trap '' XFSZ; ulimit -f 500;");
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("the checkpoint of step 1 was not saved, and there is none before it; training goes on"));
  const auto limited = bytes_of(run());
  EXPECT_FALSE(holds(".tmp"));
  fs::remove_all(folder_ / "runs");
  ASSERT_EQ(test::thimble("--threads 1 tune " + job()).status, 0);
  EXPECT_EQ(bytes_of(run()), limited) << "the same adapter as with room";
}

TEST_F(Killed, ADivergedRunKeepsItsBestAdapterAndIsNotGoneOnWith) {
  THIMBLE_REQUIRE_STORIES();
  // A warm-up over the whole run: it learns, and then the rate gets too high.
  write_job("", "",
            "rank = 8\nlearning_rate = 0.9\nwarmup = 1\nschedule = \"constant\"\nepochs = 12\nbatch_rows = 4\n"
            "dev_share = 0.1\nevaluations = 30\nclip = 1e9\nalpha = 1024\n");
  const test::Result r = test::thimble("--threads 1 tune " + job());
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, testing::ContainsRegex("at step [0-9]+ .rows [0-9, ]+.; lower the learning rate"));
  EXPECT_THAT(r.err, HasSubstr("the checkpoint of step "));
  EXPECT_TRUE(fs::exists(run() / "failed"));
  EXPECT_THAT(r.err, HasSubstr(run().string() + "/last_good;"));
  EXPECT_TRUE(fs::exists(run() / "last_good/adapter_config.json"));
  const test::Result kept = test::thimble("eval --json " + job() + " --adapter '" + run().string() + "/last_good'");
  EXPECT_EQ(kept.status, 0) << kept.err;
  EXPECT_EQ(test::thimble("--threads 1 tune " + job() + " --resume '" + run().string() + "'").status, 2);
  const test::Result again = test::thimble("--threads 1 tune " + job());
  EXPECT_THAT(again.err, testing::Not(HasSubstr("going on")));
}

}  // namespace
}  // namespace thimble
