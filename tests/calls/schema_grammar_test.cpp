#include "calls/schema_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "calls/validate.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "grammar_walk.h"
#include "test_data.h"

namespace thimble {
namespace {

const ConstraintFactory& factory() {
  static const ConstraintFactory made(test::byte_tokens());
  return made;
}

Json cases() { return parse_json(read_file(test::golden("calls/schema_grammar.json")), "schema_grammar.json"); }

TEST(SchemaGrammar, TakesAndRefusesWhatTheCasesSay) {
  size_t refused = 0;
  for (const Json& c : cases()) {
    const std::string name = c["name"];
    if (c.contains("refused")) {
      ++refused;
      try {
        schema_to_grammar(c["schema"], "tools.json");
        ADD_FAILURE() << name << ": was accepted";
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), testing::HasSubstr(c["refused"].get<std::string>())) << name;
        EXPECT_THAT(error.what(), testing::StartsWith("tools.json")) << name;
      }
      continue;
    }
    SCOPED_TRACE(name);
    std::string grammar;
    ASSERT_NO_THROW(grammar = schema_to_grammar(c["schema"], "tools.json"));
    const ConstraintSet set = factory().compile_grammar(grammar);
    for (const Json& text : c["accept"])
      EXPECT_TRUE(test::takes(*set.start(), text.get<std::string>())) << text << "\n" << grammar;
    for (const Json& text : c["reject"])
      EXPECT_FALSE(test::takes(*set.start(), text.get<std::string>())) << text << "\n" << grammar;
  }
  EXPECT_GT(refused, 20u);
}

TEST(SchemaGrammar, RandomWalksGiveValuesThatTheSchemaAcceptsInTheOneForm) {
  const TokenTable table = test::byte_tokens();
  Random random(3);
  size_t finished = 0;
  for (const Json& c : cases()) {
    if (c.contains("refused")) continue;
    const SchemaValidator validator(c["schema"], "case");
    const ConstraintSet set = factory().compile_grammar(schema_to_grammar(c["schema"], "case"));
    for (int i = 0; i < 60; ++i) {
      const test::Walk walk = test::random_walk(*set.start(), table, random, 300);
      ASSERT_FALSE(walk.dead_end) << c["name"] << walk.text;
      if (!walk.finished) continue;
      ++finished;
      std::string reason;
      const auto value = try_parse_json(walk.text, &reason);
      if (!value && reason.find("twice") != std::string::npos)
        continue;  // additional names can repeat, as the header says
      ASSERT_TRUE(value) << c["name"] << walk.text << reason;
      const auto problems = validator.check(*value);
      EXPECT_TRUE(problems.empty()) << c["name"] << walk.text << " " << problems[0].what;
    }
  }
  EXPECT_GT(finished, 2000u);
}

TEST(SchemaGrammar, IntegerAndNumberRangesAreExact) {
  Random random(11);
  const auto pick = [&](long long size) {
    return static_cast<long long>(random.below(static_cast<uint64_t>(2 * size + 1))) - size;
  };
  for (int i = 0; i < 150; ++i) {
    const bool whole = i % 2 == 0;
    const long long size = i % 3 == 0 ? 20 : i % 3 == 1 ? 300 : 100'000;
    double low = static_cast<double>(pick(size)), high = static_cast<double>(pick(size));
    if (!whole) low /= 8, high /= 8;
    if (low > high) std::swap(low, high);
    Json schema = {{"type", whole ? "integer" : "number"}};
    if (random.below(5) != 0) schema[random.below(2) != 0 ? "minimum" : "exclusiveMinimum"] = low;
    if (random.below(5) != 0) schema[random.below(2) != 0 ? "maximum" : "exclusiveMaximum"] = high;
    const SchemaValidator validator(schema, "range");
    std::string grammar;
    try {
      grammar = schema_to_grammar(schema, "range");
    } catch (const Error&) {
      EXPECT_LE(high - low, 1) << schema;  // no value: both ends are the same, or next to each other and excluded
      continue;
    }
    const ConstraintSet set = factory().compile_grammar(grammar);
    for (int j = 0; j < 60; ++j) {
      double value = j < 20   ? low + static_cast<double>(pick(3))
                     : j < 40 ? high + static_cast<double>(pick(3))
                              : static_cast<double>(pick(2 * size));
      if (!whole) value += static_cast<double>(random.below(8)) / 8;
      const Json json = whole || random.below(3) == 0 ? Json(static_cast<long long>(value)) : Json(value);
      if (json.is_number_float() && std::signbit(json.get<double>()) && json.get<double>() == 0) continue;
      EXPECT_EQ(test::takes(*set.start(), write_json(json)), validator.accepts(json)) << schema << " " << json << "\n"
                                                                                      << grammar;
    }
  }
}

// The official suite: what the grammar takes is valid; what is valid is taken but for the narrowings that the header
// lists.
TEST(SchemaGrammar, IsSoundOnTheOfficialSuite) {
  THIMBLE_REQUIRE_DATA(test::data("json-schema/draft2020-12"));
  size_t groups = 0, valid = 0, taken = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::data("json-schema/draft2020-12"))) {
    if (entry.path().extension() != ".json") continue;
    const std::string file = entry.path().filename();
    for (const Json& group : Json::parse(read_file(entry.path()))) {
      std::string grammar;
      try {
        grammar = schema_to_grammar(group["schema"], file);
      } catch (const Error&) {
        continue;
      }
      ++groups;
      const ConstraintSet set = factory().compile_grammar(grammar);
      for (const Json& test : group["tests"]) {
        const bool takes = test::takes(*set.start(), write_json(test["data"]));
        if (test["valid"].get<bool>()) {
          ++valid;
          taken += takes;
        } else if (group["schema"].dump().find("oneOf") == std::string::npos) {
          EXPECT_FALSE(takes) << file << ": " << group["schema"].dump() << " " << test["data"].dump() << "\n"
                              << grammar;
        }
      }
    }
  }
  RecordProperty("groups", static_cast<int>(groups));
  std::printf("%zu groups convert; of %zu valid values %zu are taken\n", groups, valid, taken);
  EXPECT_GT(groups, 100u);
}

}  // namespace
}  // namespace thimble
