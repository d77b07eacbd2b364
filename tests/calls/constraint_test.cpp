#include "calls/constraint.h"

#include <gtest/gtest.h>

#include "calls/hermes.h"
#include "calls/json.h"
#include "calls/tool.h"
#include "calls/validate.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "grammar_walk.h"
#include "test_data.h"

namespace thimble {
namespace {

using test::byte_tokens;
using test::random_walk;
using test::takes;

const TokenTable& table() {
  static const TokenTable tokens = byte_tokens();
  return tokens;
}
const ConstraintFactory& factory() {
  static const ConstraintFactory made(table());
  return made;
}
std::vector<Tool> two_tools() {
  return parse_tools(
      R"([{"name": "lock", "parameters": {"type": "object", "properties": {"door": {"enum": ["front", "back"]},
    "minutes": {"type": "integer", "minimum": 1, "maximum": 60}}, "required": ["door"]}}, {"name": "stop"}])",
      "tools");
}

TEST(Constraint, HoldsAPlanToOneLineBeforeTheAnswer) {
  const std::string stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
  const ConstraintSet any = factory().compile(two_tools(), {.plan = true});
  EXPECT_TRUE(takes(*any.start(), "stop\n" + stop));
  EXPECT_TRUE(takes(*any.start(), "small_talk: no tool\nHello.\n\nHow are you?"));
  EXPECT_FALSE(takes(*any.start(), stop));
  EXPECT_FALSE(takes(*any.start(), "Hello."));
  EXPECT_FALSE(takes(*any.start(), "\nHello."));
  EXPECT_FALSE(takes(*any.start(), "a\nb\n" + stop));
  EXPECT_FALSE(takes(*any.start(), std::string(201, 'a') + "\nHello."));
  const ConstraintSet calls = factory().compile(two_tools(), {.mode = CallMode::kRequired, .plan = true});
  EXPECT_TRUE(takes(*calls.start(), "stop\n" + stop));
  EXPECT_FALSE(takes(*calls.start(), "stop\nHello."));
  EXPECT_TRUE(factory().compile(two_tools(), {.plan = true}).start()->call_openers().empty());
}

TEST(Constraint, KnowsWhichTokensOpenACall) {
  const auto openers = [](const ConstraintSet& set) {
    std::string out;
    const auto bits = set.start()->call_openers();
    for (size_t i = 0; i < 32 * bits.size(); ++i)
      if ((bits[i / 32] >> (i % 32)) & 1u) out += table().bytes[i] + "|";
    return out;
  };
  EXPECT_EQ(openers(factory().compile(two_tools())), "<|<tool|");
  EXPECT_EQ(openers(factory().compile(two_tools(), {.mode = CallMode::kRequired})), "");
  EXPECT_EQ(openers(factory().compile(two_tools(), {.mode = CallMode::kForbidden})), "");
  EXPECT_EQ(openers(factory().compile({})), "");
}

// GBNF is the same notation without xgrammar's automaton for free text: what it takes is seen with xgrammar, too.
TEST(Constraint, TakesTheCallsThatTheToolsAllowAndNoOthers) {
  const ConstraintSet compiled = factory().compile(two_tools());
  const ConstraintSet gbnf = factory().compile_grammar(answer_grammar(two_tools(), {}, GrammarForm::kGbnf));
  const std::string lock = "<tool_call>\n{\"name\": \"lock\", \"arguments\": {\"door\": \"front\"}}\n</tool_call>";
  const std::string stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
  const std::string good[] = {
      lock,
      stop,
      lock + "\n" + stop + "\n" + lock,
      "Hello.",
      "",
      "1 < 2",
      "<tool>",
      "a <tool_call b",
      "Grüße\n\n<b>",
      "<tool_cal<tool_",
      "<<tool_call<",
      "<tool_call>\n{\"name\": \"lock\", \"arguments\": {\"door\": \"back\", \"minutes\": 60}}\n</tool_call>"};
  const std::string bad[] = {
      "<tool_call>",
      lock + "\n",
      lock + stop,
      lock + " text",
      "text " + lock,
      "<<tool_call>",
      "a <tool_call<tool_call> b",
      "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"door\": \"front\"}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"lock\", \"arguments\": {}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"lock\", \"arguments\": {\"door\": \"side\"}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"lock\", \"arguments\": {\"door\": \"back\", \"minutes\": 61}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"lock\", \"arguments\": {\"minutes\": 6, \"door\": \"back\"}}\n</tool_call>",
      "<tool_call>\n{\"name\":\"lock\", \"arguments\": {\"door\": \"front\"}}\n</tool_call>"};
  for (const ConstraintSet* set : {&compiled, &gbnf}) {
    for (const std::string& text : good) EXPECT_TRUE(takes(*set->start(), text)) << text;
    for (const std::string& text : bad) EXPECT_FALSE(takes(*set->start(), text)) << text;
  }
}

TEST(Constraint, CallsCanBeRequiredForbiddenAndCounted) {
  const std::string stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
  const ConstraintSet required = factory().compile(two_tools(), {.mode = CallMode::kRequired, .most_calls = 2});
  EXPECT_TRUE(takes(*required.start(), stop));
  EXPECT_TRUE(takes(*required.start(), stop + "\n" + stop));
  EXPECT_FALSE(takes(*required.start(), stop + "\n" + stop + "\n" + stop));
  EXPECT_FALSE(takes(*required.start(), "Hello."));
  EXPECT_EQ(required.start()->forced(), "<tool_call>\n{\"name\": \"");
  const ConstraintSet forbidden = factory().compile(two_tools(), {.mode = CallMode::kForbidden});
  EXPECT_TRUE(takes(*forbidden.start(), "Hello."));
  EXPECT_FALSE(takes(*forbidden.start(), stop));
  EXPECT_FALSE(takes(*factory().compile({}).start(), stop));
  EXPECT_THROW(factory().compile({}, {.mode = CallMode::kRequired}), Error);
  EXPECT_THROW(factory().compile_grammar("root ::= nothing"), Error);
}

TEST(Constraint, SpecialTokensAreNeverAllowedAndTheStopTokenEnds) {
  const ConstraintSet set = factory().compile(two_tools());
  const auto constraint = set.start();
  std::vector<uint32_t> bits((table().bytes.size() + 31) / 32 + 4, ~0u);
  const auto allowed = [&](size_t id) {
    constraint->mask(bits);
    return (bits[id / 32] >> (id % 32) & 1) != 0;
  };
  const auto stop = static_cast<size_t>(table().stop_ids[0]);
  EXPECT_FALSE(allowed(256)) << "<|im_start|> in free text";
  EXPECT_TRUE(allowed('H'));
  EXPECT_EQ(bits.back(), 0u) << "beyond the vocabulary";
  ASSERT_TRUE(constraint->accept('H'));
  EXPECT_FALSE(constraint->accept(256));
  EXPECT_TRUE(constraint->may_stop());
  ASSERT_TRUE(constraint->accept(static_cast<int32_t>(stop)));
  EXPECT_TRUE(constraint->finished());
  EXPECT_FALSE(allowed('H'));
  EXPECT_FALSE(constraint->accept('H'));
}

// Whether asking for each token says the same as the mask, and changes nothing, along random walks.
TEST(Constraint, AllowsOneTokenWhereTheMaskDoes) {
  const Json schema = parse_json(R"({"type": "object", "additionalProperties": false,
    "required": ["title", "at", "tags"], "properties": {"title": {"type": "string", "maxLength": 20},
    "at": {"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"},
    "tags": {"type": "array", "maxItems": 2, "items": {"enum": ["the first", "the last", "10"]}}}})",
                                 "schema");
  const std::vector<ConstraintSet> sets = {
      factory().compile({}, {.mode = CallMode::kForbidden, .text_schema = &schema}),
      factory().compile(two_tools()),
      factory().compile(two_tools(), {.mode = CallMode::kRequired, .plan = true}),
  };
  const size_t words = (table().bytes.size() + 31) / 32;
  Random random(3);
  int refused = 0, finished = 0;
  for (const ConstraintSet& set : sets)
    for (int walk = 0; walk < 8; ++walk) {
      const auto constraint = set.start();
      std::string text;
      for (int step = 0; step < 150 && !constraint->finished(); ++step) {
        std::vector<uint32_t> before(words), after(words);
        constraint->mask(before);
        std::vector<int32_t> allowed;
        for (size_t id = 0; id < table().bytes.size(); ++id) {
          const bool may = ((before[id / 32] >> (id % 32)) & 1) != 0;
          ASSERT_EQ(constraint->allows(static_cast<int32_t>(id)), may) << text << " and then token " << id;
          if (may) allowed.push_back(static_cast<int32_t>(id));
          refused += may ? 0 : 1;
        }
        EXPECT_FALSE(constraint->allows(-1));
        EXPECT_FALSE(constraint->allows(static_cast<int32_t>(table().bytes.size())));
        constraint->mask(after);
        ASSERT_EQ(before, after) << text;
        ASSERT_FALSE(allowed.empty()) << text;
        const int32_t token = allowed[random.below(allowed.size())];
        ASSERT_TRUE(constraint->accept(token));
        text += table().bytes[static_cast<size_t>(token)];
      }
      finished += constraint->finished() ? 1 : 0;
    }
  EXPECT_GT(refused, 10'000);
  EXPECT_GT(finished, 3);
}

TEST(Constraint, RollsBackAndForks) {
  const auto constraint = factory().compile(two_tools(), {.mode = CallMode::kRequired}).start();
  for (const char c : std::string("<tool_call>\n{\"name\": \"l")) ASSERT_TRUE(constraint->accept(c));
  EXPECT_EQ(constraint->forced(), "ock\", \"arguments\": {\"door\": \"");
  const auto fork = constraint->fork();
  constraint->rollback(1);
  EXPECT_EQ(constraint->forced(), "");
  ASSERT_TRUE(constraint->accept('s'));
  EXPECT_EQ(constraint->forced(), "top\", \"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(fork->forced(), "ock\", \"arguments\": {\"door\": \"");
}

TEST(Constraint, RandomWalksOverTheHelpdeskAlwaysGiveValidCalls) {
  const auto path = test::data("../helpdesk/tools.json");
  THIMBLE_REQUIRE_DATA(path);
  const auto tools = parse_tools(read_file(path), "tools.json");
  std::vector<SchemaValidator> validators;
  for (const Tool& tool : tools) validators.emplace_back(tool.parameters, tool.name);
  const ConstraintSet set = factory().compile(tools, {.mode = CallMode::kRequired});
  Random random(7);
  int finished = 0;
  for (int i = 0; i < 3000; ++i) {
    const test::Walk walk = random_walk(*set.start(), table(), random, 400);
    ASSERT_FALSE(walk.dead_end) << walk.text;
    if (!walk.finished) continue;
    ++finished;
    const ParsedAnswer answer = parse_answer(walk.text);
    ASSERT_TRUE(answer.parseable()) << walk.text << ": " << answer.problems[0];
    ASSERT_FALSE(answer.calls.empty()) << walk.text;
    EXPECT_EQ(answer.text, "");
    EXPECT_TRUE(answer.calls.size() == 1 || walk.text.find("}}\n</tool_call>\n<tool_call>") != std::string::npos);
    for (const Call& call : answer.calls) {
      const Tool* tool = find_tool(tools, call.name);
      ASSERT_NE(tool, nullptr) << walk.text;
      const auto problems = validators[static_cast<size_t>(tool - tools.data())].check(call.arguments);
      EXPECT_TRUE(problems.empty()) << walk.text << problems[0].place << problems[0].what;
    }
  }
  EXPECT_GT(finished, 2000);
}

TEST(Constraint, FreeTextNeverHoldsACallTag) {
  const ConstraintSet set = factory().compile(two_tools(), {.mode = CallMode::kForbidden});
  const auto constraint = set.start();
  for (const char c : std::string("<<tool_call")) ASSERT_TRUE(constraint->accept(c));
  EXPECT_FALSE(constraint->accept('>'));
  EXPECT_TRUE(constraint->accept('<'));
  std::vector<uint32_t> bits((table().bytes.size() + 31) / 32);
  ASSERT_TRUE(constraint->accept(257)) << "the token \"<tool\"";
  constraint->mask(bits);
  EXPECT_FALSE(bits[258 / 32] >> (258 % 32) & 1) << "the token \"_call>\"";
}

}  // namespace
}  // namespace thimble
