#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_format.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace thimble::jinja {

namespace {
// string.Formatter.vformat, as jinja2's sandbox runs it: fields go through the interpreter's attribute look-up.
class BraceFormat {
 public:
  BraceFormat(Interpreter& interpreter, const std::vector<Value>& positional,
              const std::function<Value(const std::string&)>& keyword, bool markup)
      : interpreter_(interpreter), positional_(positional), keyword_(keyword), markup_(markup) {}

  std::string run(std::string_view format, int levels) {
    if (levels < 0) throw Failure("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at++];
      if ((c == '{' || c == '}') && at < format.size() && format[at] == c) {
        out += c;
        ++at;
      } else if (c == '}') {
        throw Failure("Single '}' encountered in format string");
      } else if (c == '{') {
        const size_t begin = at;
        int depth = 1;
        while (at < format.size() && depth > 0) {
          depth += format[at] == '{' ? 1 : format[at] == '}' ? -1 : 0;
          ++at;
        }
        if (begin >= format.size()) throw Failure("Single '{' encountered in format string");
        if (depth > 0) throw Failure("expected '}' before end of string");
        out += field(format.substr(begin, at - begin - 1), levels);
      } else {
        out += c;
      }
      if (out.size() > interpreter_.runtime.options.max_output) {
        throw Failure("the template makes a text that is too long");
      }
    }
    interpreter_.runtime.charge_text(out.size());
    return out;
  }

 private:
  std::string field(std::string_view text, int levels) {
    Runtime& runtime = interpreter_.runtime;
    size_t end = 0;
    bool bracket = false;
    for (; end < text.size(); ++end) {
      if (text[end] == '[') bracket = true;
      if (text[end] == ']') bracket = false;
      if (!bracket && (text[end] == ':' || text[end] == '!')) break;
      if (text[end] == '{') throw Failure("unexpected '{' in field name");
    }
    const std::string_view name = text.substr(0, end);
    char conversion = 0;
    std::string spec;
    if (end < text.size() && text[end] == '!') {
      if (end + 1 >= text.size()) throw Failure("end of string while looking for conversion specifier");
      conversion = text[end + 1];
      end += 2;
      if (end < text.size() && text[end] != ':') throw Failure("expected ':' after conversion specifier");
    }
    Value value = lookup(name);  // before the specification's own fields, which numbers them as Python does
    if (end < text.size()) spec = run(text.substr(end + 1), levels - 1);
    switch (conversion) {
      case 0: break;
      case 's': value = make_text(runtime, str(runtime, value)); break;
      case 'r': value = make_text(runtime, repr(runtime, value)); break;
      case 'a': value = make_text(runtime, ascii_repr(runtime, value)); break;
      default: throw Failure(fmt::format("Unknown conversion specifier {}", conversion));
    }
    const std::string out = format_value(runtime, value, spec);
    const bool safe = value.text() != nullptr && value.text()->markup;
    return markup_ && !safe ? escape_html(out) : out;
  }

  static bool all_digits(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  Value lookup(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    std::string first(name.substr(0, at));
    if (first.empty()) {
      if (next_ < 0) throw Failure("cannot switch from manual field specification to automatic field numbering");
      first = std::to_string(next_++);
    } else if (all_digits(first)) {
      if (next_ > 0) throw Failure("cannot switch from manual field specification to automatic field numbering");
      next_ = -1;
    }
    Value value;
    if (all_digits(first)) {
      const size_t index = first.size() > 9 ? positional_.size() : std::stoul(first);
      if (index >= positional_.size()) {
        throw Failure(fmt::format("Replacement index {} out of range for positional args tuple", first));
      }
      value = positional_[index];
    } else {
      value = keyword_(first);
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) throw Failure("Empty attribute in format string");
        value = interpreter_.getattr(value, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) throw Failure("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) throw Failure("Empty attribute in format string");
        if (end + 1 < name.size() && name[end + 1] != '.' && name[end + 1] != '[') {
          throw Failure("Only '.' or '[' may follow ']' in format field specifier");
        }
        const bool index = all_digits(key) && key.size() < 18;
        value = interpreter_.getitem(
            value, index ? Value(static_cast<int64_t>(std::stoll(std::string(key))))
                         : make_text(interpreter_.runtime, std::string(key)));
        at = end + 1;
      }
    }
    return value;
  }

  Interpreter& interpreter_;
  const std::vector<Value>& positional_;
  const std::function<Value(const std::string&)>& keyword_;
  bool markup_;
  int next_ = 0;  // automatic numbering; -1 once a field was numbered by hand
};
}  // namespace

std::string str_format(Interpreter& interpreter, const Text& format, const std::vector<Value>& positional,
                       const std::function<Value(const std::string&)>& keyword) {
  return BraceFormat(interpreter, positional, keyword, format.markup).run(format.utf8, 2);
}

}  // namespace thimble::jinja
