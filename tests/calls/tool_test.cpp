#include "calls/tool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace thimble {
namespace {

TEST(Tools, BothFormsAreReadAndWrittenInTheOpenAiForm) {
  const auto tools = parse_tools(R"([
    {"type": "function", "function": {"name": "a", "description": "does a", "parameters": {"type": "object",
      "properties": {"x": {"type": "integer"}}}, "strict": true}},
    {"name": "b.c"}])",
                                 "tools.json");
  ASSERT_EQ(tools.size(), 2u);
  EXPECT_EQ(tools[1].parameters["type"], "object");
  EXPECT_EQ(
      tools_to_text(tools),
      R"({"type": "function", "function": {"name": "a", "description": "does a", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}})"
      "\n"
      R"({"type": "function", "function": {"name": "b.c", "parameters": {"type": "object", "properties": {}}}})");
  EXPECT_EQ(find_tool(tools, "b.c"), &tools[1]);
  EXPECT_EQ(find_tool(tools, "b"), nullptr);
}

TEST(Tools, MistakesAreNamedByPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"name": "a"})", "must be a JSON list"},
      {R"([{"name": "a"}, {"name": "a"}])", "tools.json: tool 2 has the name of tool 1"},
      {R"([{"name": "a"}, {"nme": "b"}])", "tools.json: tool 2: unknown key \"nme\""},
      {R"([{"description": "b"}])", "tool 1: \"name\" is missing"},
      {R"([{"name": "two words"}])", "not a tool name"},
      {R"([{"name": ""}])", "not a tool name"},
      {R"([{"name": "a", "parameters": {"type": "array"}}])", "\"type\": \"object\""},
      {R"([{"name": "a", "parameters": []}])", "must be a JSON Schema object"},
      {R"([{"type": "retrieval", "function": {"name": "a"}}])", "must be \"function\""},
      {R"([{"type": "function", "function": {"name": "a"}, "x": 1}])", "unknown key \"x\""},
      {R"([{"name": "a", "description": 3}])", "\"description\" must be a string"},
      {"[3]", "tool 1: a tool must be a JSON object"},
  };
  for (const auto& [text, expected] : cases) {
    try {
      parse_tools(text, "tools.json");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(expected)) << text;
    }
  }
}

TEST(Tools, ArgumentsAreArrangedInTheOrderOfTheSchema) {
  const Json schema = parse_json(R"({"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "array",
    "items": {"$ref": "#/$defs/p"}}}, "$defs": {"p": {"type": "object", "properties": {"y": {}, "x": {}}}}})",
                                 "schema");
  const Json arguments = parse_json(R"({"new": 1, "a": [{"x": 1, "y": 2}], "z": 3.0})", "arguments");
  EXPECT_EQ(write_json(arrange_arguments(arguments, schema)), R"({"z": 3, "a": [{"y": 2, "x": 1}], "new": 1})");
}

}  // namespace
}  // namespace thimble
