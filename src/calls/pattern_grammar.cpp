#include "calls/pattern_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "calls/grammar_text.h"
#include "core/error.h"

namespace thimble {
namespace {

constexpr size_t kMostRepeats = 1000;
constexpr int kMostDepth = 100;

const CharSet& digits() {
  static const CharSet set({{'0', '9'}});
  return set;
}
const CharSet& words() {
  static const CharSet set({{'0', '9'}, {'a', 'z'}, {'A', 'Z'}, {'_', '_'}});
  return set;
}
const CharSet& ascii_spaces() {
  static const CharSet set({{'\t', '\r'}, {' ', ' '}});
  return set;
}
// \S leaves out what ECMA calls white space, \s allows only what PCRE2 does: either way every match is valid in both.
const CharSet& all_spaces() {
  static const CharSet set({{'\t', '\r'},
                            {' ', ' '},
                            {0xa0, 0xa0},
                            {0x1680, 0x1680},
                            {0x2000, 0x200a},
                            {0x2028, 0x2029},
                            {0x202f, 0x202f},
                            {0x205f, 0x205f},
                            {0x3000, 0x3000},
                            {0xfeff, 0xfeff}});
  return set;
}
const CharSet& line_ends() {
  static const CharSet set({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
  return set;
}

std::optional<size_t> sum(std::optional<size_t> a, std::optional<size_t> b) {
  return a && b ? std::optional(*a + *b) : std::nullopt;
}

class PatternParser {
 public:
  PatternParser(std::string_view text, const std::string& any_char, std::string_view where)
      : text_(text), any_char_(any_char), where_(where) {}

  PatternGrammar parse() {
    PatternGrammar result = alternatives(true);
    if (at_ < text_.size()) fail("unbalanced )");
    return result;
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(fmt::format("{}: the pattern \"{}\" can't be used to constrain answers: {} at character {}.", where_,
                            text_, what, at_ + 1));
  }

  bool more() const { return at_ < text_.size(); }
  char peek() const { return text_[at_]; }
  bool take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }

  PatternGrammar alternatives(bool top) {
    if (++depth_ > kMostDepth) fail("groups nested too deep");
    PatternGrammar all = sequence(top);
    bool several = false;
    while (take("|")) {
      const PatternGrammar next = sequence(top);
      all.expression += " | " + next.expression;
      all.fewest = std::min(all.fewest, next.fewest);
      all.most = all.most && next.most ? std::optional(std::max(*all.most, *next.most)) : std::nullopt;
      several = true;
    }
    --depth_;
    if (several) all.expression = fmt::format("({})", all.expression);
    return all;
  }

  PatternGrammar sequence(bool top) {
    PatternGrammar all{"", 0, 0};
    const auto append = [&](const PatternGrammar& piece) {
      all.expression += (all.expression.empty() ? "" : " ") + piece.expression;
      all.fewest += piece.fewest;
      all.most = sum(all.most, piece.most);
    };
    const PatternGrammar anything{any_char_ + "*", 0, std::nullopt};
    if (top && !take("^")) append(anything);
    bool ended = false;
    while (more() && peek() != '|' && peek() != ')') {
      if (top && peek() == '$') {
        ++at_;
        if (more() && peek() != '|') fail("$ before the end");
        ended = true;
        break;
      }
      append(quantified());
    }
    if (top && !ended) append(anything);
    if (all.expression.empty()) all.expression = "\"\"";
    return all;
  }

  PatternGrammar quantified() {
    PatternGrammar piece = atom();
    size_t low = 1;
    std::optional<size_t> high = 1;
    if (take("*")) {
      low = 0, high.reset();
    } else if (take("+")) {
      high.reset();
    } else if (take("?")) {
      low = 0;
    } else if (more() && peek() == '{') {
      ++at_;
      low = number();
      high = low;
      if (take(",")) {
        high.reset();
        if (more() && peek() != '}') high = number();
      }
      if (!take("}")) fail("a broken {m,n}");
      if (high && *high < low) fail("{m,n} with n below m");
    } else {
      return piece;
    }
    take("?");  // lazy: the same language
    const std::string count = high ? fmt::format("{{{},{}}}", low, *high) : fmt::format("{{{},}}", low);
    piece.expression = fmt::format("({}){}", piece.expression, count);
    piece.fewest *= low;
    piece.most = high && piece.most ? std::optional(*piece.most * *high) : std::nullopt;
    return piece;
  }

  size_t number() {
    size_t value = 0;
    const size_t first = at_;
    while (more() && peek() >= '0' && peek() <= '9' && value <= kMostRepeats)
      value = value * 10 + static_cast<size_t>(text_[at_++] - '0');
    if (at_ == first) fail("a broken {m,n}");
    if (value > kMostRepeats) fail("more than 1000 repeats");
    return value;
  }

  static PatternGrammar one(const CharSet& set) { return {json_char(set), 1, 1}; }

  PatternGrammar atom() {
    const char c = peek();
    switch (c) {
      case '(': {
        ++at_;
        if (take("?:")) {
        } else if (text_.substr(at_).starts_with("?<") && at_ + 2 < text_.size() && text_[at_ + 2] != '=' &&
                   text_[at_ + 2] != '!') {
          const size_t end = text_.find('>', at_);
          if (end == std::string_view::npos) fail("a broken group name");
          at_ = end + 1;
        } else if (more() && peek() == '?') {
          fail("look-around");
        }
        PatternGrammar group = alternatives(false);
        if (!take(")")) fail("unbalanced (");
        group.expression = fmt::format("({})", group.expression);
        return group;
      }
      case '[':
        ++at_;
        return one(checked(char_class()));
      case '.':
        ++at_;
        return one(line_ends().complement());
      case '\\':
        return one(checked(escape(false)));
      case '^':
      case '$':
        fail("an anchor inside");
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        fail(fmt::format("a stray {}", c));
      default: {
        const uint32_t code = code_point();
        return one(CharSet({{code, code}}));
      }
    }
  }

  CharSet checked(CharSet set) const {
    if (set.empty()) fail("a class that no character is in");
    return set;
  }

  uint32_t code_point() {
    const auto lead = static_cast<unsigned char>(text_[at_++]);
    if (lead < 0x80) return lead;
    const int count = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    uint32_t code = lead & (0x3f >> count);
    for (int i = 0; i < count && more(); ++i) code = code << 6 | (static_cast<unsigned char>(text_[at_++]) & 0x3f);
    return code;
  }

  uint32_t hex(size_t digits_wanted) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits_wanted; ++i) {
      const char c = more() ? text_[at_++] : ' ';
      const bool digit = c >= '0' && c <= '9', letter = (c | 32) >= 'a' && (c | 32) <= 'f';
      if (!digit && !letter) fail("a broken escape");
      value = value * 16 + static_cast<uint32_t>(digit ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
  }

  CharSet escape(bool in_class) {
    ++at_;
    if (!more()) fail("a lone \\");
    const char c = text_[at_++];
    const auto single = [](uint32_t code) { return CharSet({{code, code}}); };
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return digits().complement();
      case 'w':
        return words();
      case 'W':
        return words().complement();
      case 's':
        return ascii_spaces();
      case 'S':
        return all_spaces().complement();
      case 't':
        return single('\t');
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case '0':
        return single(0);
      case 'x':
        return single(hex(2));
      case 'u':
        return single(unicode_escape());
      case 'b':
        if (in_class) return single('\b');
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x80 && !((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9')) {
          return single(static_cast<uint32_t>(c));
        }
    }
    --at_;
    fail(fmt::format("\\{}", c));
  }

  uint32_t unicode_escape() {
    if (take("{")) {
      const size_t end = text_.find('}', at_);
      if (end == std::string_view::npos || end == at_ || end - at_ > 6) fail("a broken escape");
      const uint32_t code = hex(end - at_);
      ++at_;
      if (code > 0x10ffff) fail("a broken escape");
      return code;
    }
    const uint32_t high = hex(4);
    if (high >= 0xd800 && high < 0xdc00 && take("\\u")) {
      const uint32_t low = hex(4);
      if (low < 0xdc00 || low > 0xdfff) fail("half a surrogate pair");
      return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    if (high >= 0xd800 && high < 0xe000) fail("half a surrogate pair");
    return high;
  }

  CharSet class_item() {
    return peek() == '\\' ? escape(true) : [&] {
      const uint32_t code = code_point();
      return CharSet({{code, code}});
    }();
  }

  CharSet char_class() {
    const bool negated = take("^");
    CharSet set;
    while (true) {
      if (!more()) fail("unbalanced [");
      if (take("]")) break;
      const CharSet first = class_item();
      if (more() && peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const CharSet last = class_item();
        const auto is_single = [](const CharSet& s) {
          return s.ranges().size() == 1 && s.ranges()[0].first == s.ranges()[0].second;
        };
        if (!is_single(first) || !is_single(last)) fail("a range between classes");
        if (first.ranges()[0].first > last.ranges()[0].first) fail("a range that runs backwards");
        set = set | CharSet({{first.ranges()[0].first, last.ranges()[0].first}});
      } else {
        set = set | first;
      }
    }
    // Without surrogates, which no text holds.
    return negated ? set.complement() : set.complement().complement();
  }

  std::string_view text_;
  const std::string& any_char_;
  std::string_view where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

PatternGrammar pattern_to_grammar(std::string_view pattern, const std::string& any_char, std::string_view where) {
  return PatternParser(pattern, any_char, where).parse();
}

}  // namespace thimble
