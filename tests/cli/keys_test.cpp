// `thimble keys` as its users see it; what the file holds is tested in tests/serve/api_keys_test.cpp.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.h"

namespace thimble {
namespace {

using test::Result;
using test::thimble;

class Keys : public test::JobTest {
 protected:
  Result keys(const std::string& action) { return thimble("keys " + action + " --file " + job() + "/keys.jsonl"); }
};

TEST_F(Keys, AreShownOnceListedAndRemoved) {
  const Result added = keys("add alice --models a,b --requests-per-minute 5");
  ASSERT_EQ(added.status, 0) << added.err;
  EXPECT_EQ(added.out.size(), 48u) << "the key alone, for a script to take";
  EXPECT_EQ(added.out.substr(0, 4), "thk-");

  const Result listed = keys("list --json");
  ASSERT_EQ(listed.status, 0) << listed.err;
  const auto row = nlohmann::json::parse(listed.out);
  EXPECT_EQ(row["name"], "alice");
  EXPECT_EQ(row["models"], nlohmann::json({"a", "b"}));
  EXPECT_EQ(row["requests_per_minute"], 5);
  EXPECT_NE(keys("list").out.find("alice"), std::string::npos);

  EXPECT_EQ(keys("add alice").status, 2);
  EXPECT_EQ(keys("add bob --requests-per-minute 0").status, 2);
  EXPECT_EQ(keys("remove alice").status, 0);
  EXPECT_EQ(keys("remove alice").status, 2);
  EXPECT_EQ(keys("list").out, "");
  EXPECT_EQ(thimble("keys").status, 2);
}

}  // namespace
}  // namespace thimble
