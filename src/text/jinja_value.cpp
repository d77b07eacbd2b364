#include "text/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/jinja_macro.h"
#include "text/jinja_unicode.h"

namespace thimble::jinja {

namespace {
template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

int depth_of_all(const std::vector<Value>& items) {
  int depth = 0;
  for (const auto& item : items) depth = std::max(depth, depth_of(item));
  return depth;
}

int checked_depth(int depth) {
  if (depth > kMaxDepth) throw Failure("values are nested too deep");
  return depth;
}
}  // namespace

Int Range::size() const {
  if (step > 0) return start < stop ? (stop - start - 1) / step + 1 : 0;
  return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

Value make_text(Runtime& runtime, std::string utf8, bool markup) {
  runtime.charge_text(utf8.size());
  const size_t length = count_code_points(utf8);
  return std::make_shared<const Text>(Text{std::move(utf8), length, markup});
}

Value make_list(Runtime& runtime, std::vector<Value> items) {
  runtime.charge(64 + items.size() * sizeof(Value));
  const int depth = checked_depth(1 + depth_of_all(items));
  return std::make_shared<const List>(List{std::move(items), depth});
}

Value make_tuple(Runtime& runtime, std::vector<Value> items, bool group) {
  runtime.charge(64 + items.size() * sizeof(Value));
  const int depth = checked_depth(1 + depth_of_all(items));
  return std::make_shared<const Tuple>(Tuple{std::move(items), depth, group});
}

Value make_undefined(std::string message) { return Undefined{std::make_shared<const std::string>(std::move(message))}; }

Value make_function(std::string name, std::function<Value(Interpreter&, Arguments&)> call, const Value* self) {
  Function function{name, std::move(call), 1, ""};
  if (self != nullptr) {
    function.depth = checked_depth(1 + depth_of(*self));
    function.repr = fmt::format("<built-in method {} of {} object>", name, type_name(*self));
  } else {
    function.repr = fmt::format("<function {}>", name);
  }
  return std::make_shared<const Function>(std::move(function));
}

Value make_iterator(Runtime& runtime, std::string type, int depth, std::function<bool(Value&)> next) {
  runtime.charge(256);
  return std::make_shared<Iterator>(Iterator{std::move(next), std::move(type), checked_depth(depth)});
}

Value from_json(Runtime& runtime, const nlohmann::ordered_json& json) {
  const DepthGuard guard(runtime, kMaxDepth);
  runtime.step();
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null:
      return None{};
    case Type::boolean:
      return Value(json.get<bool>());
    case Type::number_integer:
      return Value(json.get<int64_t>());
    case Type::number_unsigned:
      return Value(static_cast<Int>(json.get<uint64_t>()));
    case Type::number_float:
      return Value(json.get<double>());
    case Type::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (const size_t at = find_invalid_utf8(text); at != std::string::npos) {
        throw Failure(fmt::format("a string of the input is not valid UTF-8 at byte {}", at));
      }
      return make_text(runtime, text);
    }
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(runtime, item));
      return make_list(runtime, std::move(items));
    }
    case Type::object: {
      DictBuilder dict(runtime);
      for (const auto& [key, value] : json.items()) dict.set(key, from_json(runtime, value));
      return dict.finish();
    }
    default:
      throw Failure("the input holds a value that JSON does not have");
  }
}

void dict_set(Runtime& runtime, Dict& dict, const Value& key, Value value) {
  runtime.charge(2 * sizeof(Value) + 32);
  dict.depth = checked_depth(std::max(dict.depth, 1 + std::max(depth_of(key), depth_of(value))));
  const size_t hash = hash_of(runtime, key);
  const auto [begin, end] = dict.index.equal_range(hash);
  for (auto at = begin; at != end; ++at) {
    if (equal(runtime, dict.items[at->second].first, key)) {
      dict.items[at->second].second = std::move(value);
      return;
    }
  }
  dict.index.emplace(hash, dict.items.size());
  dict.items.emplace_back(key, std::move(value));
}

const Value* dict_find(Runtime& runtime, const Dict& dict, const Value& key) {
  const auto [begin, end] = dict.index.equal_range(hash_of(runtime, key));
  for (auto at = begin; at != end; ++at) {
    if (equal(runtime, dict.items[at->second].first, key)) return &dict.items[at->second].second;
  }
  return nullptr;
}

const Value* dict_find(const Dict& dict, std::string_view key) {
  const auto [begin, end] = dict.index.equal_range(std::hash<std::string_view>{}(key));
  for (auto at = begin; at != end; ++at) {
    const Text* text = dict.items[at->second].first.text();
    if (text != nullptr && text->utf8 == key) return &dict.items[at->second].second;
  }
  return nullptr;
}

void DictBuilder::set(const Value& key, Value value) { dict_set(runtime_, *dict_, key, std::move(value)); }
void DictBuilder::set(const std::string& key, Value value) { set(make_text(runtime_, key), std::move(value)); }
Value DictBuilder::finish() {
  runtime_.charge(128);
  return DictP(std::move(dict_));
}

int depth_of(const Value& value) {
  return std::visit(
      Overloaded{[](const ListP& v) { return v->depth; }, [](const TupleP& v) { return v->depth; },
                 [](const DictP& v) { return v->depth; }, [](const DictViewP& v) { return v->dict->depth + 1; },
                 [](const IteratorP& v) { return v->depth; }, [](const FunctionP& v) { return v->depth; },
                 [](const auto&) { return 0; }},
      value.variant());
}

std::string type_name(const Value& value) {
  return std::visit(
      Overloaded{
          [](const Missing&) -> std::string { return "missing"; },
          [](const Undefined&) -> std::string { return "Undefined"; },
          [](const None&) -> std::string { return "NoneType"; }, [](const bool&) -> std::string { return "bool"; },
          [](const Int&) -> std::string { return "int"; }, [](const double&) -> std::string { return "float"; },
          [](const TextP& v) -> std::string { return v->markup ? "Markup" : "str"; },
          [](const ListP&) -> std::string { return "list"; }, [](const TupleP&) -> std::string { return "tuple"; },
          [](const DictP&) -> std::string { return "dict"; },
          [](const DictViewP& v) -> std::string {
            using Kind = DictView::Kind;
            return v->kind == Kind::kKeys ? "dict_keys" : v->kind == Kind::kValues ? "dict_values" : "dict_items";
          },
          [](const RangeP&) -> std::string { return "range"; },
          [](const IteratorP& v) -> std::string { return v->type; },
          [](const NamespaceP&) -> std::string { return "Namespace"; },
          [](const LoopP&) -> std::string { return "LoopContext"; },
          [](const CyclerP&) -> std::string { return "Cycler"; },
          [](const JoinerP&) -> std::string { return "Joiner"; },
          [](const FunctionP&) -> std::string { return "function"; },
          [](const MacroP&) -> std::string { return "Macro"; }},
      value.variant());
}

bool truthy(const Value& value) {
  return std::visit(
      Overloaded{[](const Missing&) { return false; }, [](const Undefined&) { return false; },
                 [](const None&) { return false; }, [](const bool& v) { return v; },
                 [](const Int& v) { return v != 0; }, [](const double& v) { return v != 0; },
                 [](const TextP& v) { return !v->utf8.empty(); }, [](const ListP& v) { return !v->items.empty(); },
                 [](const TupleP& v) { return !v->items.empty(); }, [](const DictP& v) { return !v->items.empty(); },
                 [](const DictViewP& v) { return !v->dict->items.empty(); },
                 [](const RangeP& v) { return v->size() != 0; }, [](const auto&) { return true; }},
      value.variant());
}

bool as_int(const Value& value, Int& out) {
  if (const auto* v = value.get<Int>()) return out = *v, true;
  if (const auto* v = value.get<bool>()) return out = *v, true;
  return false;
}

bool as_number(const Value& value, double& out) {
  if (const auto* v = value.get<double>()) return out = *v, true;
  Int integer;
  if (!as_int(value, integer)) return false;
  out = static_cast<double>(integer);
  return true;
}

void fail_undefined(const Value& value) {
  const auto& message = value.get<Undefined>()->message;
  throw Failure(message ? *message : "the value is undefined");
}

Value one_code_point(Runtime& runtime, std::string_view utf8) {
  runtime.charge(64);
  return std::make_shared<const Text>(Text{std::string(utf8), 1, false});
}

bool length_of(const Value& value, Int& out) {
  return std::visit(
      Overloaded{[&](const Undefined&) { return out = 0, true; },
                 [&](const TextP& v) { return out = static_cast<Int>(v->length), true; },
                 [&](const ListP& v) { return out = static_cast<Int>(v->items.size()), true; },
                 [&](const TupleP& v) { return out = static_cast<Int>(v->items.size()), true; },
                 [&](const DictP& v) { return out = static_cast<Int>(v->items.size()), true; },
                 [&](const DictViewP& v) { return out = static_cast<Int>(v->dict->items.size()), true; },
                 [&](const RangeP& v) { return out = v->size(), true; }, [](const auto&) { return false; }},
      value.variant());
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.text() || value.is<ListP>() || value.is<TupleP>() || value.is<DictP>() ||
         value.is<DictViewP>() || value.is<RangeP>() || value.is<IteratorP>() || value.is<LoopP>();
}

IteratorP iterate(Runtime& runtime, const Value& value) {
  if (const auto* v = value.get<IteratorP>()) return *v;
  const auto make = [&](const char* type, std::function<bool(Value&)> next) {
    return *make_iterator(runtime, type, depth_of(value) + 1, std::move(next)).get<IteratorP>();
  };
  const auto over = [&](const auto& held, const char* type) {  // keeps the container alive
    return make(type, [held, i = size_t{0}](Value& out) mutable {
      if (i >= held->items.size()) return false;
      out = held->items[i++];
      return true;
    });
  };
  if (const auto* v = value.get<ListP>()) return over(*v, "list_iterator");
  if (const auto* v = value.get<TupleP>()) return over(*v, "tuple_iterator");
  if (const auto* v = value.get<DictP>()) {
    return make("dict_keyiterator", [held = *v, i = size_t{0}](Value& out) mutable {
      if (i >= held->items.size()) return false;
      out = held->items[i++].first;
      return true;
    });
  }
  if (const auto* v = value.get<DictViewP>()) {
    return make("dict_iterator", [&runtime, view = *v, i = size_t{0}](Value& out) mutable {
      if (i >= view->dict->items.size()) return false;
      const auto& [key, item] = view->dict->items[i++];
      using Kind = DictView::Kind;
      out = view->kind == Kind::kKeys ? key : view->kind == Kind::kValues ? item : make_tuple(runtime, {key, item});
      return true;
    });
  }
  if (const auto* v = value.get<TextP>()) {
    return make("str_iterator", [&runtime, held = *v, at = size_t{0}](Value& out) mutable {
      if (at >= held->utf8.size()) return false;
      const size_t begin = at;
      decode_at(held->utf8, at);
      out = one_code_point(runtime, std::string_view(held->utf8).substr(begin, at - begin));
      return true;
    });
  }
  if (const auto* v = value.get<RangeP>()) {
    return make("range_iterator", [range = *v, i = Int{0}](Value& out) mutable {
      if (i >= range->size()) return false;
      out = range->start + range->step * i++;
      return true;
    });
  }
  if (const auto* v = value.get<LoopP>()) return (*v)->source;
  if (value.is_undefined()) {
    return make("generator", [](Value&) { return false; });
  }
  throw Failure(fmt::format("'{}' object is not iterable", type_name(value)));
}

std::vector<Value> to_vector(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  const IteratorP iterator = iterate(runtime, value);
  Value item;
  while (iterator->next(item)) {
    runtime.step();
    runtime.charge(sizeof(Value));
    items.push_back(item);
  }
  return items;
}

}  // namespace thimble::jinja
