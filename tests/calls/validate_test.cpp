#include "calls/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/atomic_file.h"
#include "core/error.h"
#include "test_data.h"

namespace thimble {
namespace {

// The official suite, draft 2020-12. Groups whose schema is refused are counted a file; every other test must agree.
TEST(SchemaValidator, AgreesWithTheOfficialSuiteOrRefusesTheSchema) {
  THIMBLE_REQUIRE_DATA(test::data("json-schema/draft2020-12"));
  // File -> groups refused, all for keywords that the header lists as not supported or for unknown keywords.
  const std::map<std::string, size_t> expected = {
      {"anchor.json", 4},                  // $anchor
      {"defs.json", 1},                    // refers to the metaschema
      {"dynamicRef.json", 21},             // $dynamicRef, $dynamicAnchor, other documents
      {"not.json", 1},                     // unevaluatedProperties
      {"pattern.json", 1},                 // \\p{Letter}: PCRE2 knows the short names only
      {"patternProperties.json", 1},       // the same
      {"ref.json", 17},                    // other documents, $id below the root, unevaluatedProperties
      {"refRemote.json", 15},              // other documents
      {"unevaluatedItems.json", 29},       // the keyword
      {"unevaluatedProperties.json", 44},  // the keyword
      {"vocabulary.json", 2},              // metaschemas of other vocabularies
  };
  std::map<std::string, size_t> refused;
  size_t tests = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::data("json-schema/draft2020-12"))) {
    if (entry.path().extension() != ".json") continue;
    const std::string file = entry.path().filename();
    for (const Json& group : Json::parse(read_file(entry.path()))) {
      std::optional<SchemaValidator> validator;
      try {
        validator.emplace(group["schema"], file);
      } catch (const Error& error) {
        ++refused[file];
        continue;
      }
      for (const Json& test : group["tests"]) {
        ++tests;
        EXPECT_EQ(validator->accepts(test["data"]), test["valid"].get<bool>())
            << file << ": " << group["description"] << ": " << test["description"] << ": " << group["schema"].dump()
            << " " << test["data"].dump();
      }
    }
  }
  EXPECT_EQ(refused, expected);
  EXPECT_GT(tests, 900u);
}

TEST(SchemaValidator, ProblemsNameTheirPlace) {
  const SchemaValidator validator(parse_json(R"({"type": "object", "properties": {"a/b": {"type": "array", "items":
    {"type": "integer", "minimum": 1}}, "c": {"enum": ["x", "y"]}}, "required": ["c"], "additionalProperties": false})",
                                             "s"),
                                  "tools.json: tool 1");
  const auto problems = validator.check(parse_json(R"({"a/b": [1, 0, "2"], "d": 1})", "v"));
  std::vector<std::string> texts;
  for (const auto& problem : problems) texts.push_back(problem.place + " " + problem.what);
  EXPECT_THAT(texts, testing::UnorderedElementsAre(" \"c\" is missing", "/a~1b/1 0 must be at least 1",
                                                   "/a~1b/2 \"2\" must be of type \"integer\"",
                                                   "/d is not one of the known properties"));
}

TEST(SchemaValidator, WhatItCannotCheckIsRefusedWithThePlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"properties": {"a": {"minimun": 1}}})", "tools.json: #/properties/a: unknown schema keyword \"minimun\""},
      {R"({"nullable": true})", "[..., \"null\"]"},
      {R"({"unevaluatedProperties": false})", "is not supported"},
      {R"({"$ref": "#/$defs/a"})", "names nothing"},
      {R"({"$ref": "other.json"})", "leaves the document"},
      {R"({"pattern": "(a"})", "not a usable regular expression"},
      {R"({"type": "text"})", "\"type\" must be string, integer"},
      {R"({"required": "a"})", "a list of names"},
      {R"({"items": [{}]})", "a schema must be an object"},
      {R"({"minLength": -1})", "a whole number"},
      {R"({"multipleOf": 0})", "above 0"},
      {R"({"anyOf": []})", "a list of schemas"},
      {"3", "a schema must be an object"},
  };
  for (const auto& [schema, expected] : cases) {
    try {
      SchemaValidator(parse_json(schema, "s"), "tools.json");
      ADD_FAILURE() << schema;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(expected)) << schema;
    }
  }
  const SchemaValidator loop(parse_json(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})", "s"), "s");
  EXPECT_THROW(loop.check(1), Error);
}

}  // namespace
}  // namespace thimble
