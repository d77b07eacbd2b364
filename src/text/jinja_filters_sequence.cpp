#include <algorithm>

#include <fmt/format.h>

#include "text/jinja_attribute_path.h"
#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_sort.h"
#include "text/jinja_unicode.h"

// Filters on sequences that give their result at once.
namespace thimble::jinja {

AttributePath::AttributePath(Interpreter& interpreter, const Value& attribute) : interpreter_(interpreter) {
  if (attribute.is_missing() || attribute.is_none()) return;
  const Text* path = attribute.text();
  if (path == nullptr) {
    parts_.push_back(attribute);
    return;
  }
  const std::string& text = path->utf8;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('.', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool number = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(number ? Value(static_cast<int64_t>(std::stoll(part))) : make_text(interpreter.runtime, part));
    at = end + 1;
  }
}

Value AttributePath::get(const Value& item, const Value& fallback) const {
  Value value = item;
  for (const auto& part : parts_) {
    value = interpreter_.getitem(value, part);
    if (value.is_undefined() && !fallback.is_missing() && !fallback.is_none()) value = fallback;
  }
  return value;
}

Value ignore_case(Runtime& runtime, const Value& value) {
  const Text* text = value.text();
  return text != nullptr ? make_text(runtime, lower(text->utf8)) : value;
}

namespace {
using Args = Arguments;

Value length(Interpreter&, const Value& self, Args& arguments) {
  no_arguments("length", arguments);
  Int size;
  if (!length_of(self, size)) throw Failure(fmt::format("object of type '{}' has no len()", type_name(self)));
  return size;
}

Value first(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("first", arguments);
  Value item;
  if (iterate(i.runtime, self)->next(item)) return item;
  return make_undefined("No first item, sequence was empty.");
}

// What Python's reversed() walks; false for what it refuses.
bool reversed_items(Interpreter& i, const Value& value, std::vector<Value>& out) {
  Int size;
  if (!length_of(value, size)) return false;
  out = to_vector(i.runtime, value);
  std::reverse(out.begin(), out.end());
  return true;
}

Value last(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("last", arguments);
  Int size;
  if (!length_of(self, size)) throw Failure(fmt::format("'{}' object is not reversible", type_name(self)));
  if (size == 0) return make_undefined("No last item, sequence was empty.");
  if (const auto* list = self.get<ListP>()) return (*list)->items.back();
  return to_vector(i.runtime, self).back();
}

Value reverse(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("reverse", arguments);
  if (self.text() != nullptr) return slice(i.runtime, self, {}, {}, Value(-1));
  std::vector<Value> items;
  if (!reversed_items(i, self, items)) {
    if (!is_iterable(self)) throw Failure("argument must be iterable");
    items = to_vector(i.runtime, self);
    std::reverse(items.begin(), items.end());
    return make_list(i.runtime, std::move(items));
  }
  return make_iterator(i.runtime, "list_reverseiterator", depth_of(self) + 1,
                       [items = std::move(items), at = size_t{0}](Value& out) mutable {
                         if (at >= items.size()) return false;
                         out = items[at++];
                         return true;
                       });
}

Value list(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("list", arguments);
  return make_list(i.runtime, to_vector(i.runtime, self));
}

Value join(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? str(i.runtime, bound[0]) : "";
  const AttributePath path(i, bound[1]);
  const IteratorP iterator = iterate(i.runtime, self);
  std::string out;
  Value item;
  for (bool first_item = true; iterator->next(item); first_item = false) {
    i.runtime.step();
    if (!first_item) out += separator;
    out += str(i.runtime, path.get(item));
    i.runtime.charge(separator.size());
    if (out.size() > i.runtime.options.max_output) throw Failure("the template makes a text that is too long");
  }
  return make_text(i.runtime, std::move(out));
}

using Keys = std::vector<Value>;

// Python's order of lists of keys: the first pair that differs decides. A single key is compared at once, so that
// equal ones without an order fail.
bool keys_less(Runtime& runtime, const Keys& a, const Keys& b, bool single) {
  if (single) return less(runtime, a[0], b[0]);
  for (size_t k = 0; k < a.size(); ++k) {
    if (!equal(runtime, a[k], b[k])) return less(runtime, a[k], b[k]);
  }
  return false;
}

// Stable, by the keys; the order in which sorted(key=..., reverse=...) puts the items.
std::vector<size_t> sorted_order(Runtime& runtime, const std::vector<Keys>& keys, bool reverse, bool single) {
  std::vector<size_t> order(keys.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  merge_sort(order, [&](size_t a, size_t b) {
    return reverse ? keys_less(runtime, keys[b], keys[a], single) : keys_less(runtime, keys[a], keys[b], single);
  });
  return order;
}

Value sort(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool folded = !bound.flag(1, false);
  std::vector<AttributePath> paths;
  if (bound.has(2) && bound[2].text() != nullptr) {
    const std::string& all = bound[2].text()->utf8;
    for (size_t at = 0; at <= all.size();) {
      const size_t end = std::min(all.find(',', at), all.size());
      paths.emplace_back(i, make_text(i.runtime, all.substr(at, end - at)));
      at = end + 1;
    }
  } else {
    paths.emplace_back(i, bound[2]);
  }
  const auto items = to_vector(i.runtime, self);
  std::vector<Keys> keys;
  for (const auto& item : items) {
    Keys key;
    for (const auto& path : paths) {
      const Value value = path.get(item);
      key.push_back(folded ? ignore_case(i.runtime, value) : value);
    }
    keys.push_back(std::move(key));
  }
  std::vector<Value> out;
  for (const size_t k : sorted_order(i.runtime, keys, bound.flag(0, false), false)) out.push_back(items[k]);
  return make_list(i.runtime, std::move(out));
}

Value dictsort(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.has(1) ? bound.text(1).utf8 : "key";
  if (by != "key" && by != "value") throw Failure("You can only sort by either \"key\" or \"value\"");
  if (self.is_undefined()) fail_undefined(self);
  const auto* dict = self.get<DictP>();
  if (dict == nullptr) throw Failure(fmt::format("'{} object' has no attribute 'items'", type_name(self)));
  std::vector<Keys> keys;
  for (const auto& [key, value] : (*dict)->items) {
    const Value& chosen = by == "key" ? key : value;
    keys.push_back({bound.flag(0, false) ? chosen : ignore_case(i.runtime, chosen)});
  }
  std::vector<Value> out;
  for (const size_t k : sorted_order(i.runtime, keys, bound.flag(2, false), true)) {
    const auto& [key, value] = (*dict)->items[k];
    out.push_back(make_tuple(i.runtime, {key, value}));
  }
  return make_list(i.runtime, std::move(out));
}

template <bool Max>
Value extreme(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound(Max ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const IteratorP iterator = iterate(i.runtime, self);
  const AttributePath path(i, bound[1]);
  const auto key_of = [&](const Value& item) {
    const Value value = path.get(item);
    return bound.flag(0, false) ? value : ignore_case(i.runtime, value);
  };
  Value best;
  if (!iterator->next(best)) return make_undefined("No aggregated item, sequence was empty.");
  Value best_key = key_of(best), item;
  while (iterator->next(item)) {
    i.runtime.step();
    Value key = key_of(item);
    if (Max ? less(i.runtime, best_key, key, ">") : less(i.runtime, key, best_key)) {
      best = item;
      best_key = std::move(key);
    }
  }
  return best;
}

Value sum(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributePath path(i, bound[0]);
  Value total = bound.has(1) ? bound[1] : Value(0);
  if (total.text() != nullptr) throw Failure("sum() can't sum strings [use ''.join(seq) instead]");
  const IteratorP iterator = iterate(i.runtime, self);
  Value item;
  while (iterator->next(item)) {
    i.runtime.step();
    total = add(i.runtime, total, path.get(item));
  }
  return total;
}

Value groupby(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(i, bound[0]);
  const bool folded = !bound.flag(2, false);
  const auto items = to_vector(i.runtime, self);
  std::vector<Keys> keys;
  for (const auto& item : items) {
    const Value value = path.get(item, bound[1]);
    keys.push_back({folded ? ignore_case(i.runtime, value) : value});
  }
  const auto order = sorted_order(i.runtime, keys, false, true);
  std::vector<Value> groups;
  for (size_t k = 0; k < order.size();) {
    const size_t begin = k;
    std::vector<Value> members;
    for (; k < order.size() && equal(i.runtime, keys[order[k]][0], keys[order[begin]][0]); ++k) {
      members.push_back(items[order[k]]);
    }
    if (k == begin) members.push_back(items[order[k++]]);  // nan differs from itself
    const Value name = path.get(items[order[begin]], bound[1]);
    groups.push_back(make_tuple(i.runtime, {name, make_list(i.runtime, std::move(members))}, true));
  }
  return make_list(i.runtime, std::move(groups));
}
}  // namespace

Builtin find_sequence_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kFilters[] = {
      {"length", length}, {"count", length}, {"first", first}, {"last", last}, {"reverse", reverse}, {"list", list},
      {"join", join}, {"sort", sort}, {"dictsort", dictsort}, {"min", extreme<false>}, {"max", extreme<true>},
      {"sum", sum}, {"groupby", groupby}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace thimble::jinja
