#include <fmt/format.h>

#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// The methods of Python's str.
namespace thimble::jinja {

namespace {
// The last place of `part` in text[0, end); charged as it goes, since a forged text can make every comparison long.
size_t find_last(Runtime& runtime, std::string_view text, std::string_view part, size_t end) {
  if (part.size() > end) return std::string_view::npos;
  for (size_t at = end - part.size() + 1; at-- > 0;) {
    if (!part.empty() && text[at] != part[0]) continue;
    runtime.charge(part.size() / 16);
    if (text.compare(at, part.size(), part) == 0) return at;
  }
  return std::string_view::npos;
}

const Text& self_text(const Value& self) { return *self.text(); }

Value same_kind(Interpreter& i, const Text& self, std::string utf8) {
  return make_text(i.runtime, std::move(utf8), self.markup);
}

template <std::string (*F)(std::string_view)>
Value map_text(Interpreter& i, const Value& self, Arguments& arguments) {
  no_arguments("str method", arguments);
  i.runtime.charge_text(self_text(self).utf8.size() * 3);
  return same_kind(i, self_text(self), F(self_text(self).utf8));
}

template <bool (*F)(char32_t), bool kEmpty>
Value all_code_points(Interpreter& i, const Value& self, Arguments& arguments) {
  no_arguments("str method", arguments);
  const std::string& text = self_text(self).utf8;
  i.runtime.charge(text.size() / 8);
  if (text.empty()) return Value(kEmpty);
  for (size_t at = 0; at < text.size();) {
    if (!F(decode_at(text, at))) return Value(false);
  }
  return Value(true);
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }

// str.islower and isupper: at least one cased code point, and none of the other cases.
template <bool (*Wanted)(char32_t), bool (*Other)(char32_t)>
Value has_case(Interpreter& i, const Value& self, Arguments& arguments) {
  no_arguments("str method", arguments);
  const std::string& text = self_text(self).utf8;
  i.runtime.charge(text.size() / 8);
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_at(text, at);
    if (Other(c) || is_title(c)) return Value(false);
    any = any || Wanted(c);
  }
  return Value(any);
}

Value is_title_text(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("istitle", arguments);
  const std::string& text = self_text(self).utf8;
  bool any = false, inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode_at(text, at);
    if (is_upper(c) || is_title(c)) {
      if (inside) return Value(false);
      inside = any = true;
    } else if (is_lower(c)) {
      if (!inside) return Value(false);
      any = true;
    } else {
      inside = false;
    }
  }
  return Value(any);
}

Value is_ascii(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("isascii", arguments);
  return Value(self_text(self).ascii());
}

Value is_identifier(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("isidentifier", arguments);
  const std::string& text = self_text(self).utf8;
  for (size_t at = 0; at < text.size();) {
    const bool first = at == 0;
    const char32_t c = decode_at(text, at);
    if (!(first ? is_identifier_start(c) : is_identifier_part(c))) return Value(false);
  }
  return Value(!text.empty());
}

template <bool Left, bool Right>
Value strip_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("strip", arguments, {""});
  return strip(i.runtime, self_text(self), bound[0], Left, Right);
}

// [begin, end) in bytes for a method's optional start and end.
struct Window {
  size_t begin, end;
  bool valid;  // start is not behind the end of the text
};
Window window(const Text& text, const Bound& bound, size_t start_at, size_t end_at) {
  const Int size = static_cast<Int>(text.length);
  const auto given = [&](size_t i, Int fallback) {
    if (!bound.has(i) || bound[i].is_none()) return fallback;
    Int n = bound.integer(i, 0);
    if (n < 0) n = std::max<Int>(0, n + size);
    return n;
  };
  const Int start = given(start_at, 0), end = std::min(given(end_at, size), size);
  if (start > end) return {0, 0, false};
  return {byte_offset(text.utf8, static_cast<size_t>(start)), byte_offset(text.utf8, static_cast<size_t>(end)), true};
}

template <bool Reverse, bool Fails>
Value find_method_of(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("find", arguments, {"", "", ""}, 1);
  const Text& text = self_text(self);
  const std::string& part = bound.text(0).utf8;
  i.runtime.charge(text.utf8.size() / 4 + part.size());
  const Window w = window(text, bound, 1, 2);
  size_t found = std::string::npos;
  if (w.valid) {
    const auto inside = std::string_view(text.utf8).substr(w.begin, w.end - w.begin);
    found = Reverse ? find_last(i.runtime, inside, part, inside.size()) : find_from(inside, part, 0);
  }
  if (found != std::string::npos) {
    return Value(count_code_points(std::string_view(text.utf8).substr(0, w.begin + found)));
  }
  if (Fails) throw Failure("substring not found");
  return Value(-1);
}

Value count_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"", "", ""}, 1);
  const Text& text = self_text(self);
  const std::string& part = bound.text(0).utf8;
  i.runtime.charge(text.utf8.size() / 4 + part.size());
  const Window w = window(text, bound, 1, 2);
  if (!w.valid) return Value(0);
  const auto inside = std::string_view(text.utf8).substr(w.begin, w.end - w.begin);
  if (part.empty()) return Value(count_code_points(inside) + 1);
  size_t count = 0;
  for (size_t at = 0; (at = find_from(inside, part, at)) != std::string::npos; at += part.size()) ++count;
  return Value(count);
}

template <bool Prefix>
Value starts_or_ends(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound(Prefix ? "startswith" : "endswith", arguments, {"", "", ""}, 1);
  const Text& text = self_text(self);
  const Window w = window(text, bound, 1, 2);
  const auto inside = std::string_view(text.utf8).substr(w.begin, w.end - w.begin);
  const auto matches = [&](const Value& v) {
    if (v.text() == nullptr) {
      if (v.is_undefined()) fail_undefined(v);
      throw Failure(fmt::format("{} first arg must be str or a tuple of str, not {}",
                                Prefix ? "startswith" : "endswith", type_name(v)));
    }
    i.runtime.charge(v.text()->utf8.size() / 16);
    return w.valid && (Prefix ? inside.starts_with(v.text()->utf8) : inside.ends_with(v.text()->utf8));
  };
  if (const auto* tuple = bound[0].get<TupleP>()) {
    return Value(std::any_of((*tuple)->items.begin(), (*tuple)->items.end(), matches));
  }
  return Value(matches(bound[0]));
}

Value replace_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"", "", ""}, 2);
  const Text& text = self_text(self);
  std::string to = bound.text(1).utf8;
  if (text.markup && !bound.text(1).markup) to = escape_html(to);
  return same_kind(i, text, replace_all(i.runtime, text, bound.text(0).utf8, to, bound.integer(2, -1)));
}

Value split_result(Interpreter& i, const Text& self, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  i.runtime.charge(parts.size() * (sizeof(Value) + 64));
  for (const auto part : parts) items.push_back(same_kind(i, self, std::string(part)));
  return make_list(i.runtime, std::move(items));
}

template <bool Reverse>
Value split_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const Text& text = self_text(self);
  const Int limit = bound.integer(1, -1);
  i.runtime.charge(text.utf8.size() / 4);
  if (!bound.has(0) || bound[0].is_none()) return split_result(i, text, split_on_space(text.utf8, limit, Reverse));
  const std::string& separator = bound.text(0).utf8;
  if (separator.empty()) throw Failure("empty separator");
  const std::string_view whole = text.utf8;
  std::vector<std::string_view> parts;
  if (!Reverse) {
    size_t at = 0;
    while (limit < 0 || static_cast<Int>(parts.size()) < limit) {
      const size_t found = find_from(whole, separator, at);
      if (found == std::string_view::npos) break;
      i.runtime.charge(sizeof(Value));
      parts.push_back(whole.substr(at, found - at));
      at = found + separator.size();
    }
    parts.push_back(whole.substr(at));
  } else {
    size_t end = whole.size();
    while (limit < 0 || static_cast<Int>(parts.size()) < limit) {
      const size_t found = find_last(i.runtime, whole, separator, end);
      if (found == std::string_view::npos) break;
      i.runtime.charge(sizeof(Value));
      parts.push_back(whole.substr(found + separator.size(), end - found - separator.size()));
      end = found;
    }
    parts.push_back(whole.substr(0, end));
    std::reverse(parts.begin(), parts.end());
  }
  return split_result(i, text, parts);
}

template <bool Reverse>
Value partition_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("partition", arguments, {""}, 1);
  const Text& text = self_text(self);
  const std::string& separator = bound.text(0).utf8;
  if (separator.empty()) throw Failure("empty separator");
  i.runtime.charge(text.utf8.size() / 4);
  const size_t found =
      Reverse ? find_last(i.runtime, text.utf8, separator, text.utf8.size()) : find_from(text.utf8, separator, 0);
  const auto part = [&](std::string s) { return same_kind(i, text, std::move(s)); };
  if (found == std::string::npos) {
    if (Reverse) return make_tuple(i.runtime, {part(""), part(""), part(text.utf8)});
    return make_tuple(i.runtime, {part(text.utf8), part(""), part("")});
  }
  return make_tuple(
      i.runtime, {part(text.utf8.substr(0, found)), part(separator), part(text.utf8.substr(found + separator.size()))});
}

Value splitlines_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  i.runtime.charge(self_text(self).utf8.size());
  return split_result(i, self_text(self), split_lines(self_text(self).utf8, bound.flag(0, false)));
}

Value join_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {""}, 1);
  const Text& separator = self_text(self);
  if (!is_iterable(bound[0])) throw Failure("can only join an iterable");
  std::string out;
  size_t index = 0;
  for (const auto& item : to_vector(i.runtime, bound[0])) {
    const Text* text = item.text();
    if (text == nullptr && !separator.markup) {
      throw Failure(fmt::format("sequence item {}: expected str instance, {} found", index, type_name(item)));
    }
    if (index++ > 0) out += separator.utf8;
    const std::string part = separator.markup ? escaped(i.runtime, item).text()->utf8 : text->utf8;
    i.runtime.charge(part.size());
    if (out.size() + part.size() > i.runtime.options.max_output) {
      throw Failure("the template makes a text that is too long");
    }
    out += part;
  }
  return same_kind(i, separator, std::move(out));
}

enum class Side { kLeft, kRight, kCenter };

template <Side Where>
Value justify_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("just", arguments, {"", ""}, 1);
  const std::string fill = bound.has(1) ? bound.text(1).utf8 : " ";
  if (count_code_points(fill) != 1) throw Failure("The fill character must be exactly one character long");
  const Int width = bound.integer(0, 0);
  const Text& text = self_text(self);
  if (Where == Side::kCenter) return center_text(i.runtime, text, width, fill);
  if (width <= static_cast<Int>(text.length)) return self;
  if (width > static_cast<Int>(i.runtime.options.max_output)) {
    throw Failure("the template makes a text that is too long");
  }
  const auto missing = static_cast<size_t>(width) - text.length;
  i.runtime.charge_text(missing * fill.size() + text.utf8.size());
  std::string padding;
  for (size_t k = 0; k < missing; ++k) padding += fill;
  return same_kind(i, text, Where == Side::kLeft ? text.utf8 + padding : padding + text.utf8);
}

Value zfill_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("zfill", arguments, {""}, 1);
  const Int width = bound.integer(0, 0);
  const Text& text = self_text(self);
  if (width <= static_cast<Int>(text.length)) return self;
  if (width > static_cast<Int>(i.runtime.options.max_output)) {
    throw Failure("the template makes a text that is too long");
  }
  const std::string zeros(static_cast<size_t>(width) - text.length, '0');
  const bool sign = !text.utf8.empty() && (text.utf8[0] == '+' || text.utf8[0] == '-');
  return same_kind(i, text, text.utf8.substr(0, sign) + zeros + text.utf8.substr(sign));
}

Value expandtabs_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const Int size = bound.integer(0, 8);
  if (size > INT32_MAX || size < INT32_MIN) throw Failure("Python int too large to convert to C int");
  const std::string& text = self_text(self).utf8;
  std::string out;
  Int column = 0;
  for (const char c : text) {
    if (c == '\t') {
      const Int add = size > 0 ? size - column % size : 0;
      i.runtime.charge(static_cast<size_t>(add));
      if (out.size() + static_cast<size_t>(add) > i.runtime.options.max_output) {
        throw Failure("the template makes a text that is too long");
      }
      out.append(static_cast<size_t>(add), ' ');
      column += add;
    } else {
      out += c;
      if ((c & 0xC0) != 0x80) ++column;
      if (c == '\n' || c == '\r') column = 0;
    }
  }
  return same_kind(i, self_text(self), std::move(out));
}

Value removeprefix_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("removeprefix", arguments, {""}, 1);
  const std::string& text = self_text(self).utf8;
  const std::string& prefix = bound.text(0).utf8;
  return text.starts_with(prefix) ? same_kind(i, self_text(self), text.substr(prefix.size())) : self;
}

Value removesuffix_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("removesuffix", arguments, {""}, 1);
  const std::string& text = self_text(self).utf8;
  const std::string& suffix = bound.text(0).utf8;
  return text.ends_with(suffix) ? same_kind(i, self_text(self), text.substr(0, text.size() - suffix.size())) : self;
}

Value format_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const auto keyword = [&](const std::string& name) {
    for (const auto& [known, value] : arguments.keywords) {
      if (known == name) return value;
    }
    throw Failure(fmt::format("KeyError: '{}'", name));
  };
  return same_kind(i, self_text(self), str_format(i, self_text(self), arguments.positional, keyword));
}

Value format_map_method(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("format_map", arguments, {""}, 1);
  const auto keyword = [&](const std::string& name) {
    Value value;
    if (!subscript(i.runtime, bound[0], make_text(i.runtime, name), value)) {
      throw Failure(fmt::format("KeyError: '{}'", name));
    }
    return value;
  };
  return same_kind(i, self_text(self), str_format(i, self_text(self), {}, keyword));
}

Value unsupported_method(Interpreter&, const Value&, Arguments&) {
  throw Failure("str.encode, str.translate and str.maketrans are not supported: chat templates handle text");
}

constexpr std::pair<std::string_view, Builtin> kMethods[] = {{"strip", strip_method<true, true>},
                                                             {"split", split_method<false>},
                                                             {"startswith", starts_or_ends<true>},
                                                             {"endswith", starts_or_ends<false>},
                                                             {"replace", replace_method},
                                                             {"upper", map_text<upper>},
                                                             {"lower", map_text<lower>},
                                                             {"title", map_text<title>},
                                                             {"capitalize", map_text<capitalize>},
                                                             {"lstrip", strip_method<true, false>},
                                                             {"rstrip", strip_method<false, true>},
                                                             {"join", join_method},
                                                             {"format", format_method},
                                                             {"find", find_method_of<false, false>},
                                                             {"rfind", find_method_of<true, false>},
                                                             {"index", find_method_of<false, true>},
                                                             {"rindex", find_method_of<true, true>},
                                                             {"count", count_method},
                                                             {"rsplit", split_method<true>},
                                                             {"splitlines", splitlines_method},
                                                             {"partition", partition_method<false>},
                                                             {"rpartition", partition_method<true>},
                                                             {"casefold", map_text<casefold>},
                                                             {"swapcase", map_text<swapcase>},
                                                             {"center", justify_method<Side::kCenter>},
                                                             {"ljust", justify_method<Side::kLeft>},
                                                             {"rjust", justify_method<Side::kRight>},
                                                             {"zfill", zfill_method},
                                                             {"expandtabs", expandtabs_method},
                                                             {"removeprefix", removeprefix_method},
                                                             {"removesuffix", removesuffix_method},
                                                             {"format_map", format_map_method},
                                                             {"isalpha", all_code_points<is_alpha, false>},
                                                             {"isdigit", all_code_points<is_digit, false>},
                                                             {"isdecimal", all_code_points<is_decimal, false>},
                                                             {"isnumeric", all_code_points<is_numeric, false>},
                                                             {"isalnum", all_code_points<is_alnum, false>},
                                                             {"isspace", all_code_points<is_space, false>},
                                                             {"isprintable", all_code_points<is_printable, true>},
                                                             {"islower", has_case<is_lower, is_upper>},
                                                             {"isupper", has_case<is_upper, is_lower>},
                                                             {"istitle", is_title_text},
                                                             {"isascii", is_ascii},
                                                             {"isidentifier", is_identifier},
                                                             {"encode", unsupported_method},
                                                             {"translate", unsupported_method},
                                                             {"maketrans", unsupported_method}};
}  // namespace

Builtin find_string_method(std::string_view name) {
  for (const auto& [known, method] : kMethods) {
    if (known == name) return method;
  }
  return nullptr;
}

}  // namespace thimble::jinja
