#include <fmt/format.h>

#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

// The methods and properties of values other than str, and how arguments meet parameters.
namespace thimble::jinja {

Bound::Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
             size_t required)
    : function_(function), values_(parameters.size()) {
  if (arguments.positional.size() > parameters.size()) {
    throw Failure(fmt::format("{}() takes at most {} arguments ({} given)", function, parameters.size(),
                              arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.keywords) {
    size_t at = 0;
    for (const auto parameter : parameters) {
      if (!parameter.empty() && parameter == name) break;
      ++at;
    }
    if (at == parameters.size()) {
      throw Failure(fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    }
    if (has(at)) throw Failure(fmt::format("{}() got multiple values for argument '{}'", function, name));
    values_[at] = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!has(i)) throw Failure(fmt::format("{}() misses a required argument (number {})", function, i + 1));
  }
}

bool Bound::flag(size_t i, bool fallback) const { return has(i) ? truthy(values_[i]) : fallback; }

Int Bound::integer(size_t i, Int fallback) const { return has(i) ? to_index(values_[i], function_.c_str()) : fallback; }

const Text& Bound::text(size_t i) const {
  if (const Text* text = values_[i].text()) return *text;
  if (values_[i].is_undefined()) fail_undefined(values_[i]);
  throw Failure(fmt::format("{}() argument {} must be str, not {}", function_, i + 1, type_name(values_[i])));
}

void no_arguments(std::string_view function, const Arguments& arguments) { Bound(function, arguments, {}); }

namespace {
Value dict_get(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("get", arguments, {"", ""}, 1);
  const Value* found = dict_find(i.runtime, **self.get<DictP>(), bound[0]);
  if (found != nullptr) return *found;
  return bound.has(1) ? bound[1] : Value(None{});
}

template <DictView::Kind K>
Value dict_view(Interpreter& i, const Value& self, Arguments& arguments) {
  no_arguments("dict view", arguments);
  i.runtime.charge(64);
  return std::make_shared<const DictView>(DictView{K, *self.get<DictP>()});
}

Value copy_self(Interpreter& i, const Value& self, Arguments& arguments) {
  no_arguments("copy", arguments);
  i.runtime.charge(64);
  return self;  // values never change, so that a copy is the value itself
}

Value dict_fromkeys(Interpreter& i, const Value&, Arguments& arguments) {
  const Bound bound("fromkeys", arguments, {"", ""}, 1);
  DictBuilder dict(i.runtime);
  for (const auto& key : to_vector(i.runtime, bound[0])) dict.set(key, bound.has(1) ? bound[1] : Value(None{}));
  return dict.finish();
}

const std::vector<Value>& items_of(const Value& self) {
  if (const auto* list = self.get<ListP>()) return (*list)->items;
  return (*self.get<TupleP>())->items;
}

Value sequence_count(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {""}, 1);
  int64_t count = 0;
  for (const auto& item : items_of(self)) count += equal(i.runtime, item, bound[0]);
  return Value(count);
}

Value sequence_index(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {"", "", ""}, 1);
  const auto& items = items_of(self);
  const auto size = static_cast<Int>(items.size());
  const auto place = [&](size_t k, Int fallback) {
    Int n = bound.integer(k, fallback);
    if (n < 0) n = std::max<Int>(0, n + size);
    return std::min(n, size);
  };
  for (Int k = place(1, 0), end = place(2, size); k < end; ++k) {
    if (equal(i.runtime, items[static_cast<size_t>(k)], bound[0])) return k;
  }
  throw Failure(fmt::format("{} is not in {}", repr(i.runtime, bound[0]), type_name(self)));
}

Value range_count(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {""}, 1);
  return Value(static_cast<int>(contains(i.runtime, self, bound[0])));
}

Value range_index(Interpreter& i, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {""}, 1);
  if (!contains(i.runtime, self, bound[0])) throw Failure(repr(i.runtime, bound[0]) + " is not in range");
  const Range& range = **self.get<RangeP>();
  Int value;
  if (!as_int(bound[0], value)) value = static_cast<Int>(*bound[0].get<double>());
  return (value - range.start) / range.step;
}

Value bit_length(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("bit_length", arguments);
  Int value;
  as_int(self, value);
  int bits = 0;
  for (auto rest = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
       rest != 0; rest >>= 1) {
    ++bits;
  }
  return Value(bits);
}

Value bit_count(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("bit_count", arguments);
  Int value;
  as_int(self, value);
  int bits = 0;
  for (auto rest = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
       rest != 0; rest >>= 1) {
    bits += static_cast<int>(rest & 1);
  }
  return Value(bits);
}

Value conjugate(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("conjugate", arguments);
  Int value;
  return as_int(self, value) ? Value(value) : self;
}

Value is_integer(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("is_integer", arguments);
  const double value = *self.get<double>();
  return Value(std::isfinite(value) && std::floor(value) == value);
}

Value loop_cycle(Interpreter&, const Value& self, Arguments& arguments) {
  if (!arguments.keywords.empty()) throw Failure("cycle() got an unexpected keyword argument");
  if (arguments.positional.empty()) throw Failure("no items for cycling given");
  const auto count = static_cast<int64_t>(arguments.positional.size());
  return arguments.positional[static_cast<size_t>(std::max<int64_t>(0, (*self.get<LoopP>())->index0) % count)];
}

Value loop_changed(Interpreter& i, const Value& self, Arguments& arguments) {
  if (!arguments.keywords.empty()) throw Failure("changed() got an unexpected keyword argument");
  Loop& loop = **self.get<LoopP>();
  const Value values = make_tuple(i.runtime, arguments.positional);
  if (loop.last_changed && equal(i.runtime, *loop.last_changed, values)) return Value(false);
  loop.last_changed = std::make_unique<Value>(values);
  return Value(true);
}

Value cycler_next(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("next", arguments);
  Cycler& cycler = **self.get<CyclerP>();
  const Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return item;
}

Value cycler_reset(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("reset", arguments);
  (*self.get<CyclerP>())->position = 0;
  return None{};
}

constexpr std::pair<std::string_view, Builtin> kDictMethods[] = {{"get", dict_get},
                                                                 {"items", dict_view<DictView::Kind::kItems>},
                                                                 {"keys", dict_view<DictView::Kind::kKeys>},
                                                                 {"values", dict_view<DictView::Kind::kValues>},
                                                                 {"copy", copy_self},
                                                                 {"fromkeys", dict_fromkeys}};
constexpr std::pair<std::string_view, Builtin> kListMethods[] = {
    {"index", sequence_index}, {"count", sequence_count}, {"copy", copy_self}};
constexpr std::pair<std::string_view, Builtin> kTupleMethods[] = {{"index", sequence_index}, {"count", sequence_count}};
constexpr std::pair<std::string_view, Builtin> kRangeMethods[] = {{"index", range_index}, {"count", range_count}};
constexpr std::pair<std::string_view, Builtin> kIntMethods[] = {
    {"bit_length", bit_length}, {"bit_count", bit_count}, {"conjugate", conjugate}};
constexpr std::pair<std::string_view, Builtin> kFloatMethods[] = {{"is_integer", is_integer}, {"conjugate", conjugate}};
constexpr std::pair<std::string_view, Builtin> kLoopMethods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};
constexpr std::pair<std::string_view, Builtin> kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

template <size_t N>
Builtin find_in(const std::pair<std::string_view, Builtin> (&table)[N], std::string_view name) {
  for (const auto& [known, method] : table) {
    if (known == name) return method;
  }
  return nullptr;
}

template <size_t N>
bool one_of(const std::string_view (&names)[N], std::string_view name) {
  for (const auto known : names) {
    if (known == name) return true;
  }
  return false;
}

// The item after the current one; false at the end.
bool peek_next(Loop& loop, Value& out) {
  if (loop.ahead.empty()) {
    Value item;
    if (!loop.source || !loop.source->next(item)) return false;
    loop.ahead.push_back(std::move(item));
  }
  out = loop.ahead.back();
  return true;
}

bool loop_property(Interpreter& i, Loop& loop, std::string_view name, Value& out) {
  const auto number = [&](int64_t n) { return out = Value(n), true; };
  if (name == "index") return number(loop.index0 + 1);
  if (name == "index0") return number(loop.index0);
  if (name == "first") return out = Value(loop.index0 == 0), true;
  if (name == "depth") return number(loop.depth0 + 1);
  if (name == "depth0") return number(loop.depth0);
  if (name == "length") return number(loop_length(i.runtime, loop));
  if (name == "revindex") return number(loop_length(i.runtime, loop) - loop.index0);
  if (name == "revindex0") return number(loop_length(i.runtime, loop) - loop.index0 - 1);
  if (name == "last") {
    Value next;
    return out = Value(!peek_next(loop, next)), true;
  }
  if (name == "nextitem") {
    if (!peek_next(loop, out)) out = make_undefined("there is no next item");
    return true;
  }
  if (name == "previtem") {
    const bool none = loop.index0 == 0 || !loop.before;
    out = none ? make_undefined("there is no previous item") : *loop.before;
    return true;
  }
  return false;
}

bool macro_property(Interpreter& i, const Macro& macro, std::string_view name, Value& out) {
  if (name == "name") {
    return out = macro.name.empty() ? Value(None{}) : make_text(i.runtime, macro.name), true;
  }
  if (name == "arguments") {
    std::vector<Value> names;
    for (const auto& parameter : macro.code->parameters) names.push_back(make_text(i.runtime, parameter));
    return out = make_tuple(i.runtime, std::move(names)), true;
  }
  if (name == "catch_kwargs") return out = Value(macro.code->kwargs_slot >= 0), true;
  if (name == "catch_varargs") return out = Value(macro.code->varargs_slot >= 0), true;
  if (name == "caller") return out = Value(macro.code->caller_slot >= 0 || macro.code->explicit_caller), true;
  return false;
}
}  // namespace

Builtin find_method(const Value& object, std::string_view name) {
  if (object.text() != nullptr) return find_string_method(name);
  if (object.is<DictP>()) return find_in(kDictMethods, name);
  if (object.is<ListP>()) return find_in(kListMethods, name);
  if (object.is<TupleP>()) return find_in(kTupleMethods, name);
  if (object.is<LoopP>()) return find_in(kLoopMethods, name);
  if (object.is<RangeP>()) return find_in(kRangeMethods, name);
  if (object.is<Int>() || object.is<bool>()) return find_in(kIntMethods, name);
  if (object.is<double>()) return find_in(kFloatMethods, name);
  if (object.is<CyclerP>()) return find_in(kCyclerMethods, name);
  return nullptr;
}

bool find_property(Interpreter& i, const Value& object, std::string_view name, Value& out) {
  Int integer;
  if (const auto* loop = object.get<LoopP>()) return loop_property(i, **loop, name, out);
  if (const auto* macro = object.get<MacroP>()) return macro_property(i, **macro, name, out);
  if (const auto* range = object.get<RangeP>()) {
    const Range& r = **range;
    if (name != "start" && name != "stop" && name != "step") return false;
    return out = name == "start" ? r.start : name == "stop" ? r.stop : r.step, true;
  }
  if (const auto* tuple = object.get<TupleP>(); tuple && (*tuple)->group) {
    if (name != "grouper" && name != "list") return false;
    return out = (*tuple)->items[name == "list" ? 1 : 0], true;
  }
  if (const auto* cycler = object.get<CyclerP>()) {
    if (name == "current") return out = (*cycler)->items[(*cycler)->position], true;
    if (name == "pos") return out = Value((*cycler)->position), true;
    if (name == "items") return out = make_tuple(i.runtime, (*cycler)->items), true;
    return false;
  }
  if (const auto* joiner = object.get<JoinerP>()) {
    if (name == "sep") return out = make_text(i.runtime, (*joiner)->separator), true;
    if (name == "used") return out = Value((*joiner)->used), true;
    return false;
  }
  if (as_int(object, integer)) {
    if (name == "real" || name == "numerator") return out = integer, true;
    if (name == "imag") return out = Value(0), true;
    if (name == "denominator") return out = Value(1), true;
    return false;
  }
  if (const auto* number = object.get<double>()) {
    if (name == "real") return out = Value(*number), true;
    if (name == "imag") return out = Value(0.0), true;
  }
  return false;
}

bool is_unsafe_attribute(const Value& object, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kContainer[] = {"__contains__", "__getitem__", "__iter__", "__len__",
                                                    "__reversed__"};
  if (object.is<DictP>() && (one_of(kDict, name) || one_of(kContainer, name))) return true;
  return object.is<ListP>() && one_of(kList, name);
}

}  // namespace thimble::jinja
