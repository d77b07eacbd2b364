#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "text/jinja_macro.h"
#include "text/jinja_sort.h"
#include "text/jinja_unicode.h"
#include "text/jinja_value.h"

// The text forms of values: str(), repr() and json.dumps().
namespace thimble::jinja {

std::string int_text(Int value, int base) {
  if (value == 0) return "0";
  const bool negative = value < 0;
  auto rest = negative ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  std::string digits;
  while (rest != 0) {
    digits += "0123456789abcdef"[static_cast<int>(rest % static_cast<unsigned>(base))];
    rest /= static_cast<unsigned>(base);
  }
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// The shortest digits that read back as the same number, in Python's layout: exponents below -4 and from 16 on.
std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (text[0] == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  int exponent = 0;
  const char* number = text.data() + e + 1 + (text[e + 1] == '+' ? 1 : 0);
  std::from_chars(number, text.data() + text.size(), exponent);
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  const auto point = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

std::string quoted(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = single ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = decode_at(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += text.substr(begin, at - begin);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return out + quote;
}

namespace {
// Appends to one string, and checks its size as it grows: values may share parts, so that a small value can have
// an immense text.
class Writer {
 public:
  explicit Writer(Runtime& runtime) : runtime_(runtime) {}
  void add(std::string_view text) {
    runtime_.charge(text.size());
    if (out_.size() + text.size() > runtime_.options.max_output) {
      throw Failure("the template makes a text that is too long");
    }
    out_ += text;
  }
  Runtime& runtime() { return runtime_; }
  std::string take() { return std::move(out_); }

 private:
  Runtime& runtime_;
  std::string out_;
};

void write_repr(Writer& out, const Value& value);

void write_items(Writer& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.add(", ");
    write_repr(out, items[i]);
  }
}

void write_dict(Writer& out, const Dict& dict) {
  out.add("{");
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out.add(", ");
    write_repr(out, dict.items[i].first);
    out.add(": ");
    write_repr(out, dict.items[i].second);
  }
  out.add("}");
}

void write_view(Writer& out, const DictView& view) {
  using Kind = DictView::Kind;
  out.add(view.kind == Kind::kKeys ? "dict_keys([" : view.kind == Kind::kValues ? "dict_values([" : "dict_items([");
  for (size_t i = 0; i < view.dict->items.size(); ++i) {
    const auto& [key, item] = view.dict->items[i];
    if (i > 0) out.add(", ");
    if (view.kind == Kind::kItems) out.add("(");
    if (view.kind != Kind::kValues) write_repr(out, key);
    if (view.kind == Kind::kItems) out.add(", ");
    if (view.kind != Kind::kKeys) write_repr(out, item);
    if (view.kind == Kind::kItems) out.add(")");
  }
  out.add("])");
}

void write_repr(Writer& out, const Value& value) {
  const DepthGuard guard(out.runtime());
  out.runtime().step();
  if (value.is_undefined()) {
    out.add("Undefined");
  } else if (value.is_none()) {
    out.add("None");
  } else if (const auto* boolean = value.get<bool>()) {
    out.add(*boolean ? "True" : "False");
  } else if (const auto* integer = value.get<Int>()) {
    out.add(int_text(*integer));
  } else if (const auto* number = value.get<double>()) {
    out.add(float_repr(*number));
  } else if (const Text* text = value.text()) {
    out.runtime().charge(text->utf8.size());
    if (text->markup) out.add("Markup(");
    out.add(quoted(text->utf8));
    if (text->markup) out.add(")");
  } else if (const auto* list = value.get<ListP>()) {
    out.add("[");
    write_items(out, (*list)->items);
    out.add("]");
  } else if (const auto* tuple = value.get<TupleP>()) {
    out.add("(");
    write_items(out, (*tuple)->items);
    out.add((*tuple)->items.size() == 1 ? ",)" : ")");
  } else if (const auto* dict = value.get<DictP>()) {
    write_dict(out, **dict);
  } else if (const auto* view = value.get<DictViewP>()) {
    write_view(out, **view);
  } else if (const auto* range = value.get<RangeP>()) {
    const auto& r = **range;
    out.add(fmt::format("range({}, {}", int_text(r.start), int_text(r.stop)));
    out.add(r.step == 1 ? ")" : fmt::format(", {})", int_text(r.step)));
  } else if (const auto* space = value.get<NamespaceP>()) {
    out.add("<Namespace ");
    write_dict(out, (*space)->attributes);
    out.add(">");
  } else if (const auto* loop = value.get<LoopP>()) {
    out.add(fmt::format("<LoopContext {}/{}>", (*loop)->index0 + 1, loop_length(out.runtime(), **loop)));
  } else if (const auto* macro = value.get<MacroP>()) {
    out.add(fmt::format("<Macro {}>", (*macro)->name.empty() ? "anonymous" : quoted((*macro)->name)));
  } else if (const auto* function = value.get<FunctionP>()) {
    out.add((*function)->repr);
  } else {
    out.add("<" + type_name(value) + " object>");
  }
}
}  // namespace

std::string repr(Runtime& runtime, const Value& value) {
  Writer out(runtime);
  write_repr(out, value);
  return out.take();
}

std::string str(Runtime& runtime, const Value& value) {
  if (const Text* text = value.text()) {
    runtime.charge(text->utf8.size());
    return text->utf8;
  }
  if (value.is_undefined()) return "";
  return repr(runtime, value);
}

Value soft_text(Runtime& runtime, const Value& value) {
  if (value.text() != nullptr) return value;
  return make_text(runtime, str(runtime, value));
}

namespace {
std::string json_string(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = decode_at(text, at);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\f': out += "\\f"; break;
      case '\b': out += "\\b"; break;
      default:
        if (c < 0x20 || (ensure_ascii && c > 0x7E && c < 0x10000)) {
          out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
        } else if (ensure_ascii && c >= 0x10000) {
          const auto rest = static_cast<uint32_t>(c) - 0x10000;
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
        } else {
          out += text.substr(begin, at - begin);
        }
    }
  }
  return out + "\"";
}

std::string json_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return float_repr(value);
}

std::string json_key(Runtime& runtime, const Value& key) {
  if (const Text* text = key.text()) return text->utf8;
  if (const auto* number = key.get<double>()) return json_float(*number);
  if (const auto* boolean = key.get<bool>()) return *boolean ? "true" : "false";
  if (key.is_none()) return "null";
  if (key.is<Int>()) return repr(runtime, key);
  throw Failure(fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key)));
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : out_(runtime), style_(style) {}
  std::string take() { return out_.take(); }

  void write(const Value& value, int level) {
    const DepthGuard guard(out_.runtime());
    out_.runtime().step();
    if (const Text* text = value.text()) {
      out_.runtime().charge(text->utf8.size());
      out_.add(json_string(text->utf8, style_.ensure_ascii));
    } else if (value.is_none()) {
      out_.add("null");
    } else if (const auto* boolean = value.get<bool>()) {
      out_.add(*boolean ? "true" : "false");
    } else if (const auto* number = value.get<double>()) {
      out_.add(json_float(*number));
    } else if (const auto* integer = value.get<Int>()) {
      out_.add(int_text(*integer));
    } else if (const auto* list = value.get<ListP>()) {
      write_array((*list)->items, level);
    } else if (const auto* tuple = value.get<TupleP>()) {
      write_array((*tuple)->items, level);
    } else if (const auto* dict = value.get<DictP>()) {
      write_object(**dict, level);
    } else {
      throw Failure(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
    }
  }

 private:
  void line_break(int level) {
    if (!style_.indented) return;
    out_.add("\n");
    for (int i = 0; i < level; ++i) out_.add(style_.indent);
  }
  void write_array(const std::vector<Value>& items, int level) {
    if (items.empty()) return out_.add("[]");
    out_.add("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.add(style_.item_separator);
      line_break(level + 1);
      write(items[i], level + 1);
    }
    line_break(level);
    out_.add("]");
  }
  void write_object(const Dict& dict, int level) {
    if (dict.items.empty()) return out_.add("{}");
    std::vector<const std::pair<Value, Value>*> items;
    items.reserve(dict.items.size());
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      merge_sort(items, [&](const auto* a, const auto* b) {
        return less(out_.runtime(), a->first, b->first);
      });
    }
    out_.add("{");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.add(style_.item_separator);
      line_break(level + 1);
      out_.add(json_string(json_key(out_.runtime(), items[i]->first), style_.ensure_ascii));
      out_.add(style_.key_separator);
      write(items[i]->second, level + 1);
    }
    line_break(level);
    out_.add("}");
  }

  Writer out_;
  const JsonStyle& style_;
};
}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace thimble::jinja
