#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/jinja_runtime.h"

namespace thimble::jinja {

class Value;
class Interpreter;
struct Activation;
struct Macro;
using Int = __int128;  // Python's int as far as it goes; beyond, arithmetic fails

struct None {};
struct Missing {};  // not a value: an unset variable, an argument that was not given

// Python's jinja2.Undefined: prints as nothing, is false and empty; everything else fails with the message.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

struct Text {
  std::string utf8;
  size_t length;  // code points
  bool markup;    // a markupsafe.Markup, made by |safe and |escape
  bool ascii() const { return length == utf8.size(); }
};

// Heap values know how deep they nest, so that no template can make one that is too deep to walk or to free.
struct List {
  std::vector<Value> items;
  int depth = 1;
};
struct Tuple {
  std::vector<Value> items;
  int depth = 1;
  bool group = false;  // of |groupby: has .grouper and .list
};

// A dict: keeps insertion order, compares keys as Python does (1 == 1.0 == True).
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_multimap<size_t, size_t> index;  // hash -> position
  int depth = 1;
};
struct DictView {
  enum class Kind { kKeys, kValues, kItems } kind;
  std::shared_ptr<const Dict> dict;
};
struct Range {
  Int start, stop, step;
  Int size() const;
};
// Python's generators and iterators: can be walked once.
struct Iterator {
  std::function<bool(Value&)> next;  // false at the end
  std::string type;                  // Python's name for it
  int depth = 1;
};
// The mutable ones. The interpreter owns them until the rendering ends, and breaks their cycles then.
struct Namespace {
  Dict attributes;
};
struct Loop {
  Interpreter* interpreter;
  std::shared_ptr<Iterator> source;
  std::unique_ptr<Value> iterable;  // what is looped over, for its length
  std::vector<Value> ahead;  // items read before their turn, reversed
  int64_t index0 = -1;
  int64_t length = -1;
  int depth0 = 0;
  std::unique_ptr<Value> before, current, last_changed;
  std::function<Value(const Value&, int depth)> recurse;  // empty unless the loop is recursive
};
struct Cycler {
  std::vector<Value> items;
  size_t position = 0;
};
struct Joiner {
  std::string separator;
  bool used = false;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};
struct Function {
  std::string name;
  std::function<Value(Interpreter&, Arguments&)> call;
  int depth = 1;
  std::string repr;
};

using TextP = std::shared_ptr<const Text>;
using ListP = std::shared_ptr<const List>;
using TupleP = std::shared_ptr<const Tuple>;
using DictP = std::shared_ptr<const Dict>;
using DictViewP = std::shared_ptr<const DictView>;
using RangeP = std::shared_ptr<const Range>;
using IteratorP = std::shared_ptr<Iterator>;
using NamespaceP = std::shared_ptr<Namespace>;
using LoopP = std::shared_ptr<Loop>;
using CyclerP = std::shared_ptr<Cycler>;
using JoinerP = std::shared_ptr<Joiner>;
using FunctionP = std::shared_ptr<const Function>;
using MacroP = std::shared_ptr<const Macro>;

class Value {
 public:
  using Variant = std::variant<Missing, Undefined, None, bool, Int, double, TextP, ListP, TupleP, DictP, DictViewP,
                               RangeP, IteratorP, NamespaceP, LoopP, CyclerP, JoinerP, FunctionP, MacroP>;
  Value() = default;
  template <class T>
    requires(!std::is_same_v<std::decay_t<T>, Value> && std::is_constructible_v<Variant, T> &&
             !std::is_arithmetic_v<std::decay_t<T>> && !std::is_same_v<std::decay_t<T>, Int>)
  Value(T&& value) : variant_(std::forward<T>(value)) {}  // NOLINT: any alternative is a value
  Value(Int value) : variant_(value) {}  // NOLINT
  explicit Value(bool value) : variant_(value) {}
  explicit Value(double value) : variant_(value) {}
  explicit Value(int64_t value) : variant_(Int{value}) {}
  explicit Value(size_t value) : variant_(static_cast<Int>(value)) {}
  explicit Value(int value) : variant_(Int{value}) {}

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(variant_);
  }
  template <class T>
  const T* get() const {
    return std::get_if<T>(&variant_);
  }
  bool is_missing() const { return is<Missing>(); }
  bool is_none() const { return is<None>(); }
  bool is_undefined() const { return is<Undefined>(); }
  const Text* text() const {
    const auto* t = get<TextP>();
    return t ? t->get() : nullptr;
  }
  const Variant& variant() const { return variant_; }

 private:
  Variant variant_;
};

// Making values; each charges the runtime, and fails where a value would nest too deep.
Value make_text(Runtime& runtime, std::string utf8, bool markup = false);
Value make_list(Runtime& runtime, std::vector<Value> items);
Value make_tuple(Runtime& runtime, std::vector<Value> items, bool group = false);
Value make_undefined(std::string message);
Value make_function(std::string name, std::function<Value(Interpreter&, Arguments&)> call, const Value* self = nullptr);
Value make_iterator(Runtime& runtime, std::string type, int depth, std::function<bool(Value&)> next);
Value from_json(Runtime& runtime, const nlohmann::ordered_json& json);

class DictBuilder {
 public:
  explicit DictBuilder(Runtime& runtime) : runtime_(runtime) {}
  void set(const Value& key, Value value);  // fails for a key that Python can't hash
  void set(const std::string& key, Value value);
  Value finish();

 private:
  Runtime& runtime_;
  std::shared_ptr<Dict> dict_ = std::make_shared<Dict>();
};
void dict_set(Runtime& runtime, Dict& dict, const Value& key, Value value);
const Value* dict_find(Runtime& runtime, const Dict& dict, const Value& key);  // null where absent
const Value* dict_find(const Dict& dict, std::string_view key);

int depth_of(const Value& value);  // 0 for what holds no other values
std::string type_name(const Value& value);  // Python's: 'str', 'dict', 'NoneType'
bool truthy(const Value& value);
bool equal(Runtime& runtime, const Value& a, const Value& b);
bool less(Runtime& runtime, const Value& a, const Value& b, const char* op = "<");  // fails for types without order
size_t hash_of(Runtime& runtime, const Value& value);
bool as_int(const Value& value, Int& out);        // int and bool
bool as_number(const Value& value, double& out);  // int, bool and float
[[noreturn]] void fail_undefined(const Value& value);
Value one_code_point(Runtime& runtime, std::string_view utf8);

// Walking; fails with Python's message for what is not iterable.
bool is_iterable(const Value& value);
IteratorP iterate(Runtime& runtime, const Value& value);
std::vector<Value> to_vector(Runtime& runtime, const Value& value);
bool length_of(const Value& value, Int& out);  // false where Python's len() fails

// Text forms.
std::string str(Runtime& runtime, const Value& value);   // str(value)
std::string repr(Runtime& runtime, const Value& value);  // repr(value)
std::string float_repr(double value);
std::string int_text(Int value, int base = 10);
std::string quoted(std::string_view text);  // repr of a str
Value soft_text(Runtime& runtime, const Value& value);  // markupsafe.soft_str: a str or Markup as it is
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;  // one level's
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace thimble::jinja
