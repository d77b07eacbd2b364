#include "text/jinja.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "test_data.h"

namespace thimble {
namespace {

using jinja::RenderOptions;
using jinja::Template;
using nlohmann::ordered_json;
using testing::HasSubstr;

RenderOptions at_golden_time() {
  RenderOptions options;
  std::tm now{};
  now.tm_year = 124, now.tm_mon = 6, now.tm_mday = 26, now.tm_hour = 8, now.tm_min = 3, now.tm_sec = 9;
  now.tm_wday = 5, now.tm_yday = 207;
  options.now = now;
  return options;
}

std::string render(const std::string& source, const ordered_json& context = ordered_json::object(),
                   const RenderOptions& options = at_golden_time()) {
  return Template::parse(source).render(context, options);
}

std::string error_of(const std::string& source, const ordered_json& context = ordered_json::object(),
                     const RenderOptions& options = at_golden_time()) {
  try {
    return "no error, but: " + render(source, context, options);
  } catch (const Error& error) {
    return error.what();
  }
}

ordered_json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  return ordered_json::parse(in);
}

uint64_t fnv1a(const std::string& text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

TEST(Jinja, RendersWhatPythonRenders) {
  const auto goldens = read_json(test::golden("text/jinja_cases.json"));
  ASSERT_GT(goldens["cases"].size(), 1000u);
  for (const auto& row : goldens["cases"]) {
    const auto source = row["template"].get<std::string>();
    if (row.contains("error")) {
      EXPECT_THROW(render(source, goldens["context"]), Error) << source << "\nPython: " << row["error"];
      continue;
    }
    try {
      EXPECT_EQ(render(source, goldens["context"]), row["text"].get<std::string>()) << source;
    } catch (const Error& error) {
      ADD_FAILURE() << source << "\n" << error.what();
    }
  }
}

// The files' own targets come from a JavaScript engine, which writes lists otherwise than Python, and on another day.
TEST(Jinja, RendersRealChatTemplatesToTheByte) {
  THIMBLE_REQUIRE_DATA(test::data("templates/chat_templates_hfjs.json"));
  const auto hashes = read_json(test::golden("text/chat_template_hashes.json"));
  int rendered = 0;
  for (const auto& row : read_json(test::data("templates/chat_templates_hfjs.json"))) {
    if (!row.contains("context")) continue;
    const auto name = row["name"].get<std::string>();
    const std::string text = render(row["template"].get<std::string>(), row["context"]);
    const auto& golden = hashes.at(name);
    EXPECT_EQ(text.size(), golden["bytes"].get<size_t>()) << name;
    EXPECT_EQ(fnv1a(text), std::stoull(golden["fnv1a"].get<std::string>(), nullptr, 16)) << name;
    if (name != "MadeAgents/Hammer2.1" && name != "HuggingFaceTB/SmolLM3-3B") {
      EXPECT_EQ(text, row["target"].get<std::string>()) << name;
    }
    ++rendered;
  }
  EXPECT_EQ(rendered, 53);
}

// The data's last row is a template as it is and laid out on many lines: both say the same.
TEST(Jinja, WhitespaceControlMakesALaidOutTemplateRenderAsTheShortOne) {
  THIMBLE_REQUIRE_DATA(test::data("templates/chat_templates_hfjs.json"));
  const auto context = ordered_json::parse(R"({"messages": [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A bee."}]}], "add_generation_prompt": true})");
  int compared = 0;
  for (const auto& row : read_json(test::data("templates/chat_templates_hfjs.json"))) {
    if (row.contains("context")) continue;
    const std::string text = render(row["chat_template"].get<std::string>(), context);
    EXPECT_THAT(text, HasSubstr("A bee."));
    EXPECT_EQ(text, render(row["target"].get<std::string>(), context));
    ++compared;
  }
  EXPECT_EQ(compared, 1);
}

TEST(Jinja, RaiseExceptionGivesTheTemplatesMessageAndLine) {
  EXPECT_EQ(error_of("\n\n{{ raise_exception('Roles must alternate') }}"),
            "Roles must alternate (raised by the template, line 3)");
}

TEST(Jinja, ErrorsCarryTheTemplatesLine) {
  EXPECT_THAT(error_of("a\n{{ 1 + 'x' }}"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("a\nb\n{% if %}"), HasSubstr("line 3"));
  EXPECT_THAT(error_of("{% macro m() %}\n{{ x.y }}\n{% endmacro %}\n\n{{ m() }}"), HasSubstr("line 2"));
}

TEST(Jinja, RefusesOtherTemplatesWithAReason) {
  for (const char* tag : {"include 'a'", "import 'a' as b", "from 'a' import b", "extends 'a'"}) {
    EXPECT_THAT(error_of("{% " + std::string(tag) + " %}"), HasSubstr("refused"));
  }
}

TEST(Jinja, ReadsTheClockThatItIsGiven) { EXPECT_EQ(render("{{ strftime_now('%d %B %Y') }}"), "26 July 2024"); }

TEST(Jinja, KeepsTheOrderOfKeys) {
  EXPECT_EQ(render("{{ d | tojson }}", ordered_json::parse(R"({"d": {"z": 1, "a": 2, "m": 3}})")),
            R"({"z": 1, "a": 2, "m": 3})");
}

TEST(Jinja, MarksWhatGenerationBlocksWrite) {
  const auto made =
      Template::parse("{% for m in messages %}<{{ m }}>{% generation %}é{{ m }}!{% endgeneration %}\n{% endfor %}");
  EXPECT_TRUE(made.has_generation_blocks());
  const auto result = made.render_marked({{"messages", {"a", "bc"}}});
  ASSERT_EQ(result.generated.size(), 2u);
  const auto marked = [&](size_t i) {
    return result.text.substr(result.generated[i].begin, result.generated[i].end - result.generated[i].begin);
  };
  EXPECT_EQ(marked(0), "éa!");
  EXPECT_EQ(marked(1), "ébc!");
}

TEST(Jinja, RefusesToMarkInsideMacros) {
  const auto made = Template::parse("{% macro m() %}{% generation %}x{% endgeneration %}{% endmacro %}{{ m() }}");
  EXPECT_EQ(made.render(ordered_json::object()), "x");
  EXPECT_THROW(made.render_marked(ordered_json::object()), Error);
}

TEST(Jinja, KnowsWhichVariablesATemplateReads) {
  const auto made = Template::parse("{% set a = 1 %}{{ a }}{% if tools %}{{ x.messages }}{% endif %}");
  EXPECT_TRUE(made.uses_variable("tools"));
  EXPECT_FALSE(made.uses_variable("a"));
  EXPECT_FALSE(made.uses_variable("messages"));
}

// Each would fill the memory, run for hours or overflow the stack.
TEST(Jinja, StopsForgedTemplates) {
  const std::string deep(20000, '(');
  const std::string chain = [] {
    std::string text = "{{ 1";
    for (int i = 0; i < 20000; ++i) text += "+1";
    return text + " }}";
  }();
  const std::string nested = [] {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "{% if t %}";
    return text;
  }();
  const std::vector<std::string> forged = {
      "{{ " + deep,
      chain,
      nested,
      "{{ " + std::string(20000, '[') + " }}",
      "{{ " + std::string(50000, '-') + "1 }}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% "
      "endfor %}",
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson "
      "}}",
      "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(150) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
      "{% set ns = namespace(x=(1,)) %}{% for i in range(150) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {1: "
      "2}[ns.x] }}",
      "{% set ns = namespace(g=[1]) %}{% for i in range(99999) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ "
      "ns.g|list }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
      "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
      "{{ 'a' * 10 ** 12 }}",
      "{{ [1] * 10 ** 12 }}",
      "{{ 'a'.center(10 ** 12) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ '{:999999999}'.format(1) }}",
      "{{ '%.999999f' % 1 }}",
      "{{ 10 ** 10 ** 10 }}",
      "{{ range(10 ** 9) }}",
      "{{ 'x'|indent(10 ** 12, true) }}",
      "{{ 'a\tb'.expandtabs(10 ** 12) }}",
      "{% set ns = namespace(x='a') %}{% for i in range(22) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
      "{% for i in range(99999) %}{{ ns.x.rfind('ab' ~ ns.x[:1000000]) }}{% endfor %}",
      "{{ [1] * 99999 * 99999 }}",
      "{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
      "{{ strftime_now('%999999999d') }}"};
  RenderOptions tight = at_golden_time();  // the defaults stop them too, after a second or so each
  tight.max_output = 1 << 20;
  tight.max_steps = 300'000;
  tight.max_bytes = 1 << 24;
  for (const auto& source : forged) {
    EXPECT_THROW(render(source, ordered_json::object(), tight), Error) << source.substr(0, 120);
  }
}

// Chains of namespaces and closures are freed without recursion, and circles leave nothing behind.
TEST(Jinja, FreesLongChains) {
  EXPECT_EQ(render("{% set ns = namespace(p=none) %}{% for i in range(50000) %}{% set ns.p = namespace(p=ns.p) %}"
                   "{% endfor %}{% set ns.p = none %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace(p=none) %}{% macro a(prev) %}{% macro b() %}{{ prev }}{% endmacro %}"
                   "{% set ns.p = b %}{% endmacro %}{% for i in range(50000) %}{{ a(ns.p) }}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for i in range(9) %}{% set ns.l = loop %}{{ loop.changed(loop) }}"
                   "{% endfor %}"),
            "TrueFalseFalseFalseFalseFalseFalseFalseFalse");
}

TEST(Jinja, HonoursTheLimitsThatItIsGiven) {
  RenderOptions options;
  options.max_output = 10;
  EXPECT_THAT(error_of("{% for i in range(20) %}x{% endfor %}", ordered_json::object(), options),
              HasSubstr("too long"));
  options = {};
  options.max_steps = 100;
  EXPECT_THAT(error_of("{% for i in range(99) %}{{ i }}{% endfor %}", ordered_json::object(), options),
              HasSubstr("too many steps"));
}

TEST(Jinja, RefusesBrokenUtf8) {
  EXPECT_THAT(error_of("a\xff"), HasSubstr("UTF-8 at byte 1"));
  EXPECT_THAT(error_of("{{ x }}", {{"x", "a\xc3"}}), HasSubstr("UTF-8"));
}

}  // namespace
}  // namespace thimble
