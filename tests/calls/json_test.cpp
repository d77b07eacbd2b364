#include "calls/json.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace thimble {
namespace {

TEST(Json, IsWrittenAsPythonWritesIt) {
  // Left: input; right: what json.dumps(json.loads(left), ensure_ascii=False) printed.
  const std::pair<const char*, const char*> cases[] = {
      {R"({"b":1,"a":[1,2.50,-0.0],"c":{}})", R"({"b": 1, "a": [1, 2.5, -0.0], "c": {}})"},
      {"[1e16, 1e15, 123456789012345680.0, 1e-4, 0.00001, 1.5e-7, 5e-324, 1.7976931348623157e308]",
       "[1e+16, 1000000000000000.0, 1.2345678901234568e+17, 0.0001, 1e-05, 1.5e-07, 5e-324, 1.7976931348623157e+308]"},
      {"[100.0, 0.1, 12345.678, 18446744073709551615, -9223372036854775808]",
       "[100.0, 0.1, 12345.678, 18446744073709551615, -9223372036854775808]"},
      {R"("\u00e9\n\t\"\\\/\u0001\u001f\u007f\ud83d\ude00")", "\"é\\n\\t\\\"\\\\/\\u0001\\u001f\x7f😀\""},
      {"[true,false,null,\"\"]", "[true, false, null, \"\"]"},
  };
  for (const auto& [input, expected] : cases) EXPECT_EQ(write_json(parse_json(input, "test")), expected) << input;
}

TEST(Json, RefusesWhatOtherParsersLetPass) {
  const char* broken[] = {"{\"a\":1,\"a\":2}", "[1,2", "1 2", "",     "\"\xff\"",
                          "\"\\ud800\"",       "01",   "NaN", "[1,]", "1e999"};
  for (const char* text : broken) {
    EXPECT_THROW(parse_json(text, "test"), Error) << text;
    EXPECT_FALSE(try_parse_json(text, nullptr)) << text;
  }
  const std::string deep = std::string(201, '[') + std::string(201, ']');
  EXPECT_THROW(parse_json(deep, "test"), Error);
  EXPECT_NO_THROW(parse_json(std::string(200, '[') + std::string(200, ']'), "test"));
}

TEST(Json, NumbersAreComparedByValueAndObjectsWithoutOrder) {
  const auto same = [](const char* a, const char* b) { return same_json(parse_json(a, "a"), parse_json(b, "b")); };
  EXPECT_TRUE(same("1", "1.0"));
  EXPECT_TRUE(same(R"({"a":1,"b":[2]})", R"({"b":[2.0],"a":1})"));
  EXPECT_FALSE(same("9007199254740993", "9007199254740992"));
  EXPECT_FALSE(same("18446744073709551615", "-1"));
  EXPECT_FALSE(same("1", "true"));
  EXPECT_FALSE(same("\"1\"", "1"));
  EXPECT_FALSE(same("[1,2]", "[2,1]"));
  EXPECT_FALSE(same(R"({"a":1})", R"({"a":1,"b":2})"));
}

}  // namespace
}  // namespace thimble
