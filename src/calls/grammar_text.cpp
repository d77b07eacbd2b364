#include "calls/grammar_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <set>
#include <unordered_set>

namespace thimble {
namespace {

constexpr uint32_t kLast = 0x10ffff;
constexpr uint32_t kSurrogates = 0xd800, kAfterSurrogates = 0xe000;

std::string code_point(uint32_t code) {
  const bool plain = (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
  return plain ? std::string(1, static_cast<char>(code)) : fmt::format("\\U{:08x}", code);
}

// Reads a rule's body and says whether it can come to an end, given the rules that are known to.
class EndFinder {
 public:
  EndFinder(std::string_view body, const std::unordered_set<std::string>& ending) : text_(body), ending_(ending) {}

  bool alternatives() {
    bool any = false;
    do {
      any = sequence() || any;
    } while (take('|'));
    return any;
  }

 private:
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void skip_space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  void skip_to(char end) {  // past a literal or a class, with its escapes
    for (++at_; at_ < text_.size() && text_[at_] != end; ++at_) at_ += text_[at_] == '\\';
    ++at_;
  }

  bool sequence() {
    bool all = true;
    for (skip_space(); at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')'; skip_space()) {
      const bool ends = element();
      const bool optional =
          at_ < text_.size() && (text_[at_] == '*' || text_[at_] == '?' || text_.substr(at_).starts_with("{0"));
      if (at_ < text_.size() && text_[at_] == '{') {
        at_ = text_.find('}', at_) + 1;
      } else if (at_ < text_.size() && (text_[at_] == '*' || text_[at_] == '?' || text_[at_] == '+')) {
        ++at_;
      }
      all = all && (ends || optional);
    }
    return all;
  }

  bool element() {
    if (text_[at_] == '"') return skip_to('"'), true;
    if (text_[at_] == '[') return skip_to(']'), true;
    if (take('(')) {
      const bool ends = alternatives();
      take(')');
      return ends;
    }
    const size_t first = at_;
    while (at_ < text_.size() && std::string_view(" |()*?+{\"[").find(text_[at_]) == std::string_view::npos) ++at_;
    const std::string name(text_.substr(first, at_ - first));
    if (at_ < text_.size() && text_[at_] == '(') {  // a macro, which is free text
      at_ = text_.size();
      return true;
    }
    return ending_.contains(name);
  }

  std::string_view text_;
  const std::unordered_set<std::string>& ending_;
  size_t at_ = 0;
};

}  // namespace

bool GrammarText::ends() const {
  std::unordered_set<std::string> ending;
  for (bool grown = true; grown;) {
    grown = false;
    for (const auto& [name, body] : rules_) {
      if (!ending.contains(name) && EndFinder(body, ending).alternatives()) grown = ending.insert(name).second;
    }
  }
  return ending.size() == rules_.size();
}

std::string GrammarText::add(std::string_view hint, std::string body) {
  std::string name = reserve(hint);
  define(name, std::move(body));
  return name;
}

std::string GrammarText::reserve(std::string_view hint) {
  std::string name;
  for (const char c : hint.substr(0, 40)) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    name += plain ? c : '-';
  }
  name = fmt::format("r{}-{}", rules_.size(), name);
  rules_.emplace_back(name, "");
  return name;
}

void GrammarText::define(const std::string& name, std::string body) {
  const auto rule = std::find_if(rules_.rbegin(), rules_.rend(), [&](const auto& r) { return r.first == name; });
  assert(rule != rules_.rend());
  bytes_ += name.size() + body.size();
  rule->second = std::move(body);
}

std::string GrammarText::add_characters(std::string_view hint, const std::string& character, size_t least,
                                        size_t most) {
  constexpr size_t kMostCounted = 16;
  if (form_ == GrammarForm::kGbnf || most <= kMostCounted || least == most)
    return add(hint, fmt::format("{}{{{},{}}}", character, least, most));
  std::string name = add(hint, least == 0 ? character + "*" : fmt::format("{}{{{},}}", character, least));
  most_characters_[name] = most;
  return name;
}

std::string GrammarText::add_text_without(std::string_view excluded) {
  // State k has seen the first k characters of what is excluded, and no more of it: Knuth, Morris and Pratt's automaton,
  // one rule a state. Any other character leads back to the beginning.
  std::vector<std::string> states;
  for (size_t k = 0; k < excluded.size(); ++k) states.push_back(reserve("without"));
  for (size_t k = 0; k < excluded.size(); ++k) {
    std::string followed, body;
    for (const char c : std::set<char>(excluded.begin(), excluded.end())) {
      const std::string seen = std::string(excluded.substr(0, k)) + c;
      size_t next = std::min(seen.size(), excluded.size());
      while (!std::string_view(seen).ends_with(excluded.substr(0, next))) --next;
      if (next == 0) continue;
      followed += code_point(static_cast<unsigned char>(c));
      if (next < excluded.size()) body += fmt::format(" | {} {}", quote_literal(std::string_view(&c, 1)), states[next]);
    }
    define(states[k], fmt::format("\"\" | [^{}] {}{}", followed, states[0], body));
  }
  return states[0];
}

std::string GrammarText::text(std::string_view root_body) const {
  std::string text = fmt::format("root ::= {}\n", root_body);
  for (const auto& [name, body] : rules_) {
    const auto most = most_characters_.find(name);
    text += most == most_characters_.end() ? fmt::format("{} ::= {}\n", name, body)
                                           : fmt::format("{}[max_chars={}] ::= {}\n", name, most->second, body);
  }
  return text;
}

std::string quote_literal(std::string_view utf8) {
  std::string out = "\"";
  for (const char c : utf8) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

CharSet::CharSet(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (auto [first, last] : ranges) {
    if (!ranges_.empty() && first <= ranges_.back().second + 1) {
      ranges_.back().second = std::max(ranges_.back().second, last);
    } else {
      ranges_.emplace_back(first, last);
    }
  }
}

CharSet CharSet::all() { return CharSet({{0, kSurrogates - 1}, {kAfterSurrogates, kLast}}); }

CharSet CharSet::operator|(const CharSet& other) const {
  std::vector<Range> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CharSet(std::move(both));
}

CharSet CharSet::complement() const { return all().without(*this); }

CharSet CharSet::without(const CharSet& other) const {
  CharSet result;
  for (auto [first, last] : ranges_) {
    for (auto [from, to] : other.ranges_) {
      if (to < first || from > last) continue;
      if (from > first) result.ranges_.emplace_back(first, from - 1);
      first = to + 1;
      if (first > last) break;
    }
    if (first <= last) result.ranges_.emplace_back(first, last);
  }
  return result;
}

std::string CharSet::ebnf() const {
  assert(!ranges_.empty());
  std::string out;
  for (auto [first, last] : ranges_) {
    out += code_point(first);
    if (last > first) out.append("-").append(code_point(last));
  }
  return fmt::format("[{}]", out);
}

std::string json_char(const CharSet& set) {
  static const CharSet escaped({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}});
  const CharSet plain = set.without(escaped);
  const CharSet rest = set.without(plain);
  std::string out;
  const auto alternative = [&](const std::string& text) { out.append(out.empty() ? "" : " | ").append(text); };
  if (!plain.empty()) alternative(plain.ebnf());
  for (auto [first, last] : rest.ranges()) {
    for (uint32_t code = first; code <= last; ++code) {
      switch (code) {
        case '"':
          alternative(R"("\\\"")");
          break;
        case '\\':
          alternative(R"("\\\\")");
          break;
        case '\n':
          alternative(R"("\\n")");
          break;
        case '\r':
          alternative(R"("\\r")");
          break;
        case '\t':
          alternative(R"("\\t")");
          break;
        case '\f':
          alternative(R"("\\f")");
          break;
        case '\b':
          alternative(R"("\\b")");
          break;
        default:
          alternative(fmt::format(R"("\\u{:04x}")", code));
      }
    }
  }
  return out.find(" | ") == std::string::npos ? out : fmt::format("({})", out);
}

}  // namespace thimble
