#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "stories.h"

namespace thimble::test {

struct Result {
  int status = -1;
  std::string out, err;
};

inline std::string text_of(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Runs the program as a script does; `environment` stands before it on the shell's line.
inline Result thimble(const std::string& arguments, const std::string& environment = "") {
  static int number = 0;
  const std::filesystem::path err = std::filesystem::temp_directory_path() /
                                    ("thimble-cli-err-" + std::to_string(::getpid()) + "-" + std::to_string(number++));
  const std::string command =
      environment + " '" THIMBLE_BINARY "' " + arguments + " 2>'" + err.string() + "' </dev/null";
  Result result;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer{};
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) result.out.append(buffer.data(), n);
  const int raw = ::pclose(pipe);
  result.status = WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
  result.err = text_of(err);
  std::filesystem::remove(err);
  return result;
}

// A small job that the 260 K-parameter model can be tuned for in seconds, in a folder of the test's own.
class JobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("thimble-cli-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }
  // `train` takes the place of the settings in [train].
  void write_job(const std::string& more = "", const std::string& bars = "",
                 const std::string& train = "rank = 8\nlearning_rate = 0.02\nepochs = 12\nbatch_rows = 4\n"
                                            "dev_share = 0.1\nevaluations = 2\n") const {
    write("thimble.toml", "name = \"lamp\"\nbase = \"" + test::stories_model().string() +
                              "\"\ntools_in_prompt = false\nsystem = \"\"\n" + more + "[train]\n" + train +
                              "[eval]\nmax_new_tokens = 64\n[assess]\nsample = 2\nshots = 0\n" + bars);
    write("tools.json", R"([{"type":"function","function":{"name":"lamp","description":"Switch the lamp.","parameters":
      {"type":"object","properties":{"on":{"type":"boolean"}},"required":["on"],"additionalProperties":false}}}])");
    std::string rows;
    for (int i = 0; i < 12; ++i) {
      const std::string n = std::to_string(i);
      rows += R"({"query":"lamp on )" + n + R"(","calls":[{"name":"lamp","arguments":{"on":true}}]})" + "\n";
      rows += R"({"query":"lamp off )" + n + R"(","calls":[{"name":"lamp","arguments":{"on":false}}]})" + "\n";
    }
    write("train.jsonl", rows);
    write("test.jsonl", R"({"query":"lamp on 20","calls":[{"name":"lamp","arguments":{"on":true}}]})"
                        "\n"
                        R"({"query":"lamp off 21","calls":[{"name":"lamp","arguments":{"on":false}}]})"
                        "\n"
                        R"({"query":"hello","calls":[],"answer":"hi"})"
                        "\n");
  }
  std::string job() const { return "'" + folder_.string() + "'"; }
  // The only run there is.
  std::filesystem::path run() const {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "runs")) {
      EXPECT_TRUE(found.empty()) << "two runs: " << found << " and " << entry.path();
      found = entry.path();
    }
    return found;
  }

  std::filesystem::path folder_;
};

}  // namespace thimble::test
