#include "serve/api_keys.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <thread>

#include "core/atomic_file.h"
#include "core/sha256.h"
#include "formats/temporary_folder.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using testing::HasSubstr;
using testing::Not;

const std::string kDigest(64, 'a');

TEST(ApiKeys, AreKeptByTheirDigestOnly) {
  const test::TemporaryFolder folder;
  const fs::path file = folder / "deep/er/keys.jsonl";
  const NewKey made =
      add_key(file, {.name = "alice", .models = {"a", "b"}, .requests_per_minute = 60, .tokens_per_minute = 10'000});
  EXPECT_EQ(made.text.size(), 47u);
  EXPECT_TRUE(made.text.starts_with("thk-"));
  const std::string text = read_file(file);
  EXPECT_THAT(text, Not(HasSubstr(made.text.substr(4))));
  EXPECT_EQ(fs::status(file).permissions() & fs::perms::all, fs::perms::owner_read | fs::perms::owner_write);

  const ApiKeys keys = read_keys(file);
  ASSERT_EQ(keys.size(), 1u);
  EXPECT_EQ(keys[0]->name, "alice");
  EXPECT_EQ(keys[0]->sha256, sha256(made.text.data(), made.text.size()));
  EXPECT_EQ(keys[0]->created.size(), 10u);
  EXPECT_EQ(keys[0]->requests_per_minute, 60);
  EXPECT_EQ(keys[0]->tokens_per_minute, 10'000);
  EXPECT_TRUE(keys[0]->may_use("b"));
  EXPECT_FALSE(keys[0]->may_use("c"));
  EXPECT_EQ(find_key(keys, made.text), keys[0]);
  EXPECT_EQ(find_key(keys, made.text + " "), nullptr);
  EXPECT_EQ(find_key(keys, ""), nullptr);
}

TEST(ApiKeys, AreAllDifferentAndAllKept) {
  const test::TemporaryFolder folder;
  std::vector<std::thread> adders;  // several commands at once
  std::vector<std::string> texts(16);
  for (int i = 0; i < 16; ++i) {
    adders.emplace_back([&, i] { texts[i] = add_key(folder / "keys", {.name = fmt::format("k{}", i)}).text; });
  }
  for (auto& t : adders) t.join();
  EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), 16u);
  const ApiKeys keys = read_keys(folder / "keys");
  EXPECT_EQ(keys.size(), 16u);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(find_key(keys, texts[i])->name, fmt::format("k{}", i));
}

TEST(ApiKeys, AreRemovedByName) {
  const test::TemporaryFolder folder;
  const std::string alice = add_key(folder / "keys", {.name = "alice"}).text;
  const std::string bob = add_key(folder / "keys", {.name = "bob"}).text;
  EXPECT_THAT(error_of([&] { add_key(folder / "keys", {.name = "bob"}); }), HasSubstr("there is a key named \"bob\""));
  remove_key(folder / "keys", "alice");
  EXPECT_EQ(find_key(read_keys(folder / "keys"), alice), nullptr);
  EXPECT_NE(find_key(read_keys(folder / "keys"), bob), nullptr);
  EXPECT_THAT(error_of([&] { remove_key(folder / "keys", "alice"); }), HasSubstr("no key named \"alice\""));
  EXPECT_NE(error_of([&] { remove_key(folder / "none", "alice"); }), "");
}

TEST(ApiKeys, HaveNamesThatFitEverywhere) {
  const test::TemporaryFolder folder;
  for (const std::string name : {"", "-a", "a b", "a\"b", "ä", std::string(65, 'a').c_str()}) {
    EXPECT_THAT(error_of([&] { add_key(folder / "keys", {.name = name}); }), HasSubstr("is no name for a key")) << name;
  }
  EXPECT_THAT(error_of([&] { add_key(folder / "keys", {.name = "a", .requests_per_minute = -1}); }),
              HasSubstr("a limit a minute"));
}

TEST(ApiKeys, AreRefusedWithTheLineWhereTheFileIsWrong) {
  const test::TemporaryFolder folder;
  const fs::path file = folder / "keys";
  const auto refused = [&](const std::string& line) {
    write_file(file, "\n" + line + "\n");
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
    return error_of([&] { read_keys(file); });
  };
  const std::string good = R"({"name": "a", "sha256": ")" + kDigest + "\"";
  EXPECT_EQ(refused(good + "}"), "");
  EXPECT_THAT(refused("[]"), HasSubstr("keys, line 2"));
  EXPECT_THAT(refused("{"), HasSubstr("keys, line 2"));
  EXPECT_THAT(refused(good + R"(, "admin": true})"), HasSubstr("\"admin\" is unknown"));
  EXPECT_THAT(refused(good + R"(, "requests_per_minute": -1})"), HasSubstr("requests_per_minute"));
  EXPECT_THAT(refused(good + R"(, "requests_per_minute": 1.5})"), HasSubstr("requests_per_minute"));
  EXPECT_THAT(refused(good + R"(, "tokens_per_minute": "9"})"), HasSubstr("tokens_per_minute"));
  EXPECT_THAT(refused(good + R"(, "models": []})"), HasSubstr("models"));
  EXPECT_THAT(refused(good + R"(, "models": [1]})"), HasSubstr("models"));
  EXPECT_THAT(refused(R"({"name": "a", "sha256": "abc"})"), HasSubstr("sha256"));
  EXPECT_THAT(refused(R"({"name": "a"})"), HasSubstr("sha256"));
  EXPECT_THAT(refused(R"({"sha256": ")" + kDigest + "\"}"), HasSubstr("name"));
  EXPECT_THAT(refused(good + "}\n" + good + "}"), HasSubstr("comes twice"));
  EXPECT_EQ(refused(good + "}"), "");
  fs::permissions(file, fs::perms::others_write, fs::perm_options::add);
  EXPECT_THAT(error_of([&] { read_keys(file); }), HasSubstr("chmod 600"));
}

}  // namespace
}  // namespace thimble
