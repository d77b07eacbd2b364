#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "text/jinja_value.h"

// Python's ==, < and hash().
namespace thimble::jinja {

namespace {
bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(runtime, a[i], b[i])) return false;
  }
  return true;
}

// -1, 0, 1, or 2 where one is not a number (nan).
int compare_numbers(const Value& a, const Value& b) {
  Int i, j;
  if (as_int(a, i) && as_int(b, j)) return i < j ? -1 : i > j;
  double x = 0, y = 0;
  as_number(a, x);
  as_number(b, y);
  if (std::isnan(x) || std::isnan(y)) return 2;
  if (std::isfinite(x) && std::isfinite(y)) {  // exact where an integer has more than 53 bits
    const auto exact = [](const Value& v, double d) {
      Int n;
      return as_int(v, n) ? static_cast<long double>(n) : static_cast<long double>(d);
    };
    const long double p = exact(a, x), q = exact(b, y);
    return p < q ? -1 : p > q;
  }
  return x < y ? -1 : x > y;
}

bool is_number(const Value& v) { return v.is<Int>() || v.is<bool>() || v.is<double>(); }
}  // namespace

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (is_number(a) && is_number(b)) return compare_numbers(a, b) == 0;
  if (a.variant().index() != b.variant().index()) return false;
  return std::visit(
      [&]<class T>(const T& x) -> bool {
        const T& y = *b.get<T>();
        if constexpr (std::is_same_v<T, Missing> || std::is_same_v<T, Undefined> || std::is_same_v<T, None>) {
          return true;
        } else if constexpr (std::is_same_v<T, TextP>) {
          runtime.charge(x->utf8.size() / 16);
          return x->utf8 == y->utf8;
        } else if constexpr (std::is_same_v<T, ListP> || std::is_same_v<T, TupleP>) {
          return x == y || equal_items(runtime, x->items, y->items);
        } else if constexpr (std::is_same_v<T, DictP>) {
          if (x == y) return true;
          if (x->items.size() != y->items.size()) return false;
          for (const auto& [key, value] : x->items) {
            const Value* other = dict_find(runtime, *y, key);
            if (other == nullptr || !equal(runtime, value, *other)) return false;
          }
          return true;
        } else if constexpr (std::is_same_v<T, DictViewP>) {
          if (x == y) return true;
          if (x->kind != y->kind || x->kind == DictView::Kind::kValues) return false;  // values compare by identity
          if (x->dict->items.size() != y->dict->items.size()) return false;
          for (const auto& [key, value] : x->dict->items) {
            const Value* other = dict_find(runtime, *y->dict, key);
            if (other == nullptr) return false;
            if (x->kind == DictView::Kind::kItems && !equal(runtime, value, *other)) return false;
          }
          return true;
        } else if constexpr (std::is_same_v<T, RangeP>) {
          const Int size = x->size();
          if (size != y->size()) return false;
          return size == 0 || (x->start == y->start && (size == 1 || x->step == y->step));
        } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, Int> || std::is_same_v<T, double>) {
          return x == y;
        } else {
          return x == y;  // identity
        }
      },
      a.variant());
}

bool less(Runtime& runtime, const Value& a, const Value& b, const char* op) {
  runtime.step();
  if (is_number(a) && is_number(b)) return compare_numbers(a, b) == -1;
  if (const Text *x = a.text(), *y = b.text(); x && y) {
    runtime.charge(std::min(x->utf8.size(), y->utf8.size()) / 16);
    return x->utf8 < y->utf8;  // UTF-8 sorts as its code points do
  }
  const std::vector<Value>*x = nullptr, *y = nullptr;
  if (a.is<ListP>() && b.is<ListP>()) {
    x = &(*a.get<ListP>())->items;
    y = &(*b.get<ListP>())->items;
  } else if (a.is<TupleP>() && b.is<TupleP>()) {
    x = &(*a.get<TupleP>())->items;
    y = &(*b.get<TupleP>())->items;
  }
  if (x != nullptr) {
    for (size_t i = 0; i < std::min(x->size(), y->size()); ++i) {
      if (!equal(runtime, (*x)[i], (*y)[i])) return less(runtime, (*x)[i], (*y)[i], op);
    }
    return x->size() < y->size();
  }
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  throw Failure(fmt::format("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b)));
}

size_t hash_of(Runtime& runtime, const Value& value) {
  runtime.step();
  Int integer;
  if (as_int(value, integer)) {
    return std::hash<uint64_t>{}(static_cast<uint64_t>(integer)) ^ static_cast<uint64_t>(integer >> 64);
  }
  if (const auto* v = value.get<double>()) {
    if (std::trunc(*v) == *v && std::fabs(*v) < 0x1p126) return hash_of(runtime, static_cast<Int>(*v));
    return std::hash<double>{}(*v);
  }
  if (const Text* text = value.text()) {
    runtime.charge(text->utf8.size() / 16);
    return std::hash<std::string_view>{}(text->utf8);
  }
  if (const auto* tuple = value.get<TupleP>()) {
    size_t hash = 0x345678;
    for (const auto& item : (*tuple)->items) hash = hash * 1000003 + hash_of(runtime, item);
    return hash;
  }
  if (value.is<ListP>() || value.is<DictP>() || value.is<DictViewP>()) {
    throw Failure(fmt::format("unhashable type: '{}'", type_name(value)));
  }
  return value.variant().index();
}

}  // namespace thimble::jinja
