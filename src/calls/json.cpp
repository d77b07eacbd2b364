#include "calls/json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <unordered_set>
#include <vector>

#include "core/error.h"

namespace thimble {
namespace {

constexpr size_t kMaxDepth = 200;

// Builds a Json, refusing what nlohmann's own parser lets pass: duplicate keys and unbounded depth. Only the
// innermost open container grows, so pointers to the outer ones stay valid.
class StrictBuilder {
 public:
  Json root;
  std::string problem;
  size_t position = 0;

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(Json::number_integer_t value) { return put(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) {
    if (!open(Json::object())) return false;
    keys_.emplace_back();
    return true;
  }
  bool start_array(size_t) { return open(Json::array()); }
  bool key(std::string& value) {
    if (!keys_.back().insert(value).second) {
      problem = fmt::format("the key \"{}\" stands twice in one object", value);
      return false;
    }
    key_ = std::move(value);
    return true;
  }
  bool end_object() {
    keys_.pop_back();
    open_.pop_back();
    return true;
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  template <class Exception>
  bool parse_error(size_t at, const std::string&, const Exception& error) {
    position = at;
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at ...: syntax error ..."
    if (const size_t colon = what.find(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    problem = what;
    return false;
  }

 private:
  template <class Value>
  bool put(Value&& value) {
    place(Json(std::forward<Value>(value)));
    return true;
  }
  Json* place(Json value) {
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }
  bool open(Json container) {
    if (open_.size() >= kMaxDepth) {
      problem = fmt::format("it is nested more than {} levels deep", kMaxDepth);
      return false;
    }
    open_.push_back(place(std::move(container)));
    return true;
  }

  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
};

void write(const Json& value, std::string& out);

// Python's repr of a float: the shortest digits that read back the same, an exponent below 1e-4 and from 1e16 on.
void write_float(double value, std::string& out) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), end, exponent);
  if (std::signbit(value)) out += '-';
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out.append(".").append(digits, 1);
    out += fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (exponent < 0) {
    out.append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(digits);
  } else if (count <= exponent + 1) {
    out.append(digits).append(static_cast<size_t>(exponent + 1 - count), '0').append(".0");
  } else {
    out.append(digits, 0, static_cast<size_t>(exponent + 1))
        .append(".")
        .append(digits, static_cast<size_t>(exponent + 1));
  }
}

void write_string(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write(const Json& value, std::string& out) {
  switch (value.type()) {
    case Json::value_t::object: {
      out += '{';
      bool first = true;
      for (const auto& [key, member] : value.get_ref<const Json::object_t&>()) {
        if (!first) out += ", ";
        first = false;
        write_string(key, out);
        out += ": ";
        write(member, out);
      }
      out += '}';
      break;
    }
    case Json::value_t::array: {
      out += '[';
      bool first = true;
      for (const auto& item : value) {
        if (!first) out += ", ";
        first = false;
        write(item, out);
      }
      out += ']';
      break;
    }
    case Json::value_t::string:
      write_string(value.get_ref<const std::string&>(), out);
      break;
    case Json::value_t::number_float:
      write_float(value.get<double>(), out);
      break;
    case Json::value_t::number_integer:
      out += std::to_string(value.get<int64_t>());
      break;
    case Json::value_t::number_unsigned:
      out += std::to_string(value.get<uint64_t>());
      break;
    case Json::value_t::boolean:
      out += value.get<bool>() ? "true" : "false";
      break;
    default:
      out += "null";
  }
}

// The 64-bit mantissa of long double (x86; more on ARM) holds every int64, uint64 and double.
long double number(const Json& value) {
  if (value.is_number_unsigned()) return static_cast<long double>(value.get<uint64_t>());
  if (value.is_number_integer()) return static_cast<long double>(value.get<int64_t>());
  return static_cast<long double>(value.get<double>());
}

bool parse(std::string_view text, StrictBuilder& builder) {
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    if (builder.problem.empty()) builder.problem = "it is not valid JSON";
    return false;
  }
  return true;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  StrictBuilder builder;
  if (!parse(text, builder)) {
    const std::string place = builder.position > 0 ? fmt::format(" (byte {})", builder.position) : "";
    throw Error(fmt::format("{}{}: not usable JSON: {}.", where, place, builder.problem));
  }
  return std::move(builder.root);
}

std::optional<Json> try_parse_json(std::string_view text, std::string* reason) {
  StrictBuilder builder;
  if (parse(text, builder)) return std::move(builder.root);
  if (reason != nullptr) *reason = builder.problem;
  return std::nullopt;
}

std::string write_json(const Json& value) {
  std::string out;
  write(value, out);
  return out;
}

std::string write_json_string(std::string_view text) {
  std::string out;
  write_string(text, out);
  return out;
}

bool same_json(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.type() != b.type()) return false;
  if (a.is_array()) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!same_json(a[i], b[i])) return false;
    }
    return true;
  }
  if (a.is_object()) {
    if (a.size() != b.size()) return false;
    for (const auto& [key, member] : a.get_ref<const Json::object_t&>()) {
      const auto other = b.find(key);
      if (other == b.end() || !same_json(member, *other)) return false;
    }
    return true;
  }
  return a == b;
}

int compare_numbers(const Json& a, const Json& b) {
  const long double x = number(a);
  const long double y = number(b);
  return x < y ? -1 : x > y ? 1 : 0;
}

bool is_whole(const Json& value) {
  if (value.is_number_integer()) return true;
  return value.is_number_float() && std::floor(value.get<double>()) == value.get<double>();
}

}  // namespace thimble
