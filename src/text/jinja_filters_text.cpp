#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// Filters that turn a value into text.
namespace thimble::jinja {

namespace {
using Args = Arguments;

template <std::string (*F)(std::string_view)>
Value map_filter(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("filter", arguments);
  const Value text = soft_text(i.runtime, self);
  i.runtime.charge_text(text.text()->utf8.size() * 3);
  return make_text(i.runtime, F(text.text()->utf8), text.text()->markup);
}

// jinja2's title: words begin behind spaces, hyphens and opening brackets only.
std::string title_words(std::string_view text) {
  std::string out;
  const auto separates = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const bool gap = separates(decode_at(text, at));
    while (at < text.size()) {
      size_t next = at;
      if (separates(decode_at(text, next)) != gap) break;
      at = next;
    }
    const std::string_view run = text.substr(begin, at - begin);
    size_t first = 0;
    decode_at(run, first);
    out += upper(run.substr(0, first)) + lower(run.substr(first));
  }
  return out;
}

Value trim(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  const Value text = soft_text(i.runtime, self);
  return strip(i.runtime, *text.text(), bound[0], true, true);
}

Value replace(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const Value text = make_text(i.runtime, str(i.runtime, self));
  const Int count = bound.has(2) && !bound[2].is_none() ? bound.integer(2, -1) : -1;
  return make_text(i.runtime,
                   replace_all(i.runtime, *text.text(), str(i.runtime, bound[0]), str(i.runtime, bound[1]), count));
}

Value center(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("center", arguments, {"width"});
  const Value text = soft_text(i.runtime, self);
  return center_text(i.runtime, *text.text(), bound.integer(0, 80), " ");
}

const Text& needs_text(const Value& value, const char* filter) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.text() == nullptr) throw Failure(fmt::format("{} needs a str, not {}", filter, type_name(value)));
  return *value.text();
}

Value indent(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  const Text& text = needs_text(self, "indent");
  std::string indention;
  if (bound.has(0) && bound[0].text() != nullptr) {
    indention = bound[0].text()->utf8;
  } else {
    const Int width = bound.integer(0, 4);
    if (width > 1'000'000) throw Failure("the template makes a text that is too long");
    indention = std::string(static_cast<size_t>(std::max<Int>(0, width)), ' ');
  }
  const bool blank = bound.flag(2, false);
  i.runtime.charge(text.utf8.size() * 2);
  const std::string source = text.utf8 + "\n";
  const auto lines = split_lines(source, false);
  std::string out = bound.flag(1, false) ? indention : "";
  for (size_t k = 0; k < lines.size(); ++k) {
    if (k > 0) out += '\n';
    if (k > 0 && (blank || !lines[k].empty())) out += indention;
    out += lines[k];
    i.runtime.charge(lines[k].size() + indention.size());
    if (out.size() > i.runtime.options.max_output) throw Failure("the template makes a text that is too long");
  }
  return make_text(i.runtime, std::move(out), text.markup);
}

Value truncate(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const Int length = bound.integer(0, 255);
  const std::string end = bound.has(2) ? bound.text(2).utf8 : "...";
  const Int leeway = bound.has(3) && !bound[3].is_none() ? bound.integer(3, 5) : 5;
  const auto end_length = static_cast<Int>(count_code_points(end));
  if (length < end_length)
    throw Failure(fmt::format("expected length >= {}, got {}", int_text(end_length), int_text(length)));
  if (leeway < 0) throw Failure(fmt::format("expected leeway >= 0, got {}", int_text(leeway)));
  Int size;
  if (!length_of(self, size)) throw Failure(fmt::format("object of type '{}' has no len()", type_name(self)));
  if (size <= length + leeway) return self;
  const Text& text = needs_text(self, "truncate");
  std::string cut = text.utf8.substr(0, byte_offset(text.utf8, static_cast<size_t>(length - end_length)));
  if (!bound.flag(1, false)) {
    const size_t space = cut.rfind(' ');
    if (space != std::string::npos) cut.resize(space);
  }
  return make_text(i.runtime, cut + end, text.markup);
}

Value wordcount(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("wordcount", arguments);
  const std::string text = str(i.runtime, self);
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const bool word = is_word(decode_at(text, at));
    count += word && !inside;
    inside = word;
  }
  return Value(count);
}

Value to_string(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("string", arguments);
  return soft_text(i.runtime, self);
}

Value safe(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("safe", arguments);
  return make_text(i.runtime, str(i.runtime, self), true);
}

Value escape(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("escape", arguments);
  return escaped(i.runtime, self);
}

Value forceescape(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("forceescape", arguments);
  return escaped(i.runtime, make_text(i.runtime, str(i.runtime, self)));
}

Value format(Interpreter& i, const Value& self, Args& arguments) {
  if (!arguments.positional.empty() && !arguments.keywords.empty()) {
    throw Failure("can't handle positional and keyword arguments at the same time");
  }
  const Value text = soft_text(i.runtime, self);
  Value values;
  if (arguments.keywords.empty()) {
    values = make_tuple(i.runtime, arguments.positional);
  } else {
    DictBuilder dict(i.runtime);
    for (auto& [name, value] : arguments.keywords) dict.set(name, std::move(value));
    values = dict.finish();
  }
  return make_text(i.runtime, percent_format(i, *text.text(), values), text.text()->markup);
}

std::string url_quote(Runtime& runtime, const Value& value, bool in_query) {
  const std::string text = str(runtime, value);
  runtime.charge_text(text.size() * 3);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x80 && std::isalnum(byte)) || c == '_' || c == '.' || c == '-' || c == '~' ||
        (c == '/' && !in_query)) {
      out += c;
    } else if (c == ' ' && in_query) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

Value urlencode(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("urlencode", arguments);
  if (self.text() != nullptr || !is_iterable(self)) return make_text(i.runtime, url_quote(i.runtime, self, false));
  std::string out;
  const auto add = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += url_quote(i.runtime, key, true) + "=" + url_quote(i.runtime, value, true);
    if (out.size() > i.runtime.options.max_output) throw Failure("the template makes a text that is too long");
  };
  if (const auto* dict = self.get<DictP>()) {
    for (const auto& [key, value] : (*dict)->items) add(key, value);
  } else {
    for (const auto& pair : to_vector(i.runtime, self)) {
      const auto parts = to_vector(i.runtime, pair);
      if (parts.size() != 2) throw Failure("urlencode needs pairs of key and value");
      add(parts[0], parts[1]);
    }
  }
  return make_text(i.runtime, std::move(out));
}

Value xmlattr(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("xmlattr", arguments, {"autospace"});
  if (self.is_undefined()) fail_undefined(self);
  const auto* dict = self.get<DictP>();
  if (dict == nullptr) throw Failure("xmlattr needs a dict");
  std::string out;
  for (const auto& [key, value] : (*dict)->items) {
    if (value.is_none() || value.is_undefined()) continue;
    const Text& name = needs_text(key, "xmlattr");
    if (name.utf8.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      throw Failure("Invalid character in attribute name: " + quoted(name.utf8));
    }
    if (!out.empty()) out += ' ';
    out += escaped(i.runtime, key).text()->utf8 + "=\"" + escaped(i.runtime, value).text()->utf8 + "\"";
    if (out.size() > i.runtime.options.max_output) throw Failure("the template makes a text that is too long");
  }
  return make_text(i.runtime, (bound.flag(0, true) && !out.empty() ? " " : "") + out);
}

Value filesizeformat(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  double bytes;
  if (!as_number(self, bytes) && !(self.text() != nullptr && parse_float(self.text()->utf8, bytes))) {
    if (self.is_undefined()) fail_undefined(self);
    throw Failure(fmt::format("filesizeformat needs a number, not {}", type_name(self)));
  }
  const bool binary = bound.flag(0, false);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return make_text(i.runtime, "1 Byte");
  if (bytes < base)
    return make_text(i.runtime, fmt::format("{} Bytes", int_text(static_cast<Int>(std::max(bytes, -1e37)))));
  if (!std::isfinite(bytes)) throw Failure("filesizeformat needs a finite number");
  double unit = base;
  for (const char prefix : std::string_view(binary ? "KMGTPEZY" : "kMGTPEZY")) {
    unit *= base;
    if (bytes < unit || prefix == 'Y') {
      return make_text(i.runtime, fmt::format("{:.1f} {}{}", base * bytes / unit, prefix, binary ? "iB" : "B"));
    }
  }
  return {};
}

Value refused(Interpreter&, const Value&, Args&) {
  throw Failure("the filters pprint, random, striptags, urlize and wordwrap are not supported in chat templates");
}
}  // namespace

Builtin find_text_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kFilters[] = {{"trim", trim},
                                                                      {"upper", map_filter<upper>},
                                                                      {"lower", map_filter<lower>},
                                                                      {"capitalize", map_filter<capitalize>},
                                                                      {"title", map_filter<title_words>},
                                                                      {"replace", replace},
                                                                      {"center", center},
                                                                      {"indent", indent},
                                                                      {"truncate", truncate},
                                                                      {"wordcount", wordcount},
                                                                      {"string", to_string},
                                                                      {"safe", safe},
                                                                      {"escape", escape},
                                                                      {"e", escape},
                                                                      {"forceescape", forceescape},
                                                                      {"format", format},
                                                                      {"urlencode", urlencode},
                                                                      {"xmlattr", xmlattr},
                                                                      {"filesizeformat", filesizeformat},
                                                                      {"pprint", refused},
                                                                      {"random", refused},
                                                                      {"striptags", refused},
                                                                      {"urlize", refused},
                                                                      {"wordwrap", refused}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace thimble::jinja
