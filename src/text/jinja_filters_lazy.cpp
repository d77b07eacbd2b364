#include <fmt/format.h>

#include "text/jinja_attribute_path.h"
#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"

// Filters that are generators in Python: nothing runs before the first item is asked for, always true, walked once.
namespace thimble::jinja {

namespace {
using Args = Arguments;
using Step = std::function<Value(const Value&)>;  // item -> mapped item
using Keep = std::function<bool(const Value&)>;   // item -> kept?

// A generator over `source`: `start` runs at the first item, and what it returns then makes each next one.
Value generator(Interpreter& i, const Value& source, std::function<std::function<bool(Iterator&, Value&)>()> start) {
  const auto next = [&i, source, start = std::move(start), iterator = IteratorP(),
                     body = std::function<bool(Iterator&, Value&)>(), done = false](Value& out) mutable {
    if (done) return false;
    const DepthGuard guard(i.runtime);
    i.runtime.step();
    if (!body) {
      if (!truthy(source)) {
        done = true;
        return false;
      }
      body = start();
      iterator = iterate(i.runtime, source);
    }
    if (body(*iterator, out)) return true;
    done = true;
    return false;
  };
  return make_iterator(i.runtime, "generator", depth_of(source) + 1, next);
}

int depth_of(const Args& arguments) {
  int depth = 0;
  for (const auto& value : arguments.positional) depth = std::max(depth, jinja::depth_of(value));
  for (const auto& [name, value] : arguments.keywords) depth = std::max(depth, jinja::depth_of(value));
  return depth;
}

void check_depth(const Args& arguments) {
  if (depth_of(arguments) >= kMaxDepth) throw Failure("values are nested too deep");
}

Step mapping(Interpreter& i, Args arguments) {
  if (arguments.positional.empty() && !arguments.keywords.empty()) {
    Value attribute, fallback;
    for (auto& [name, value] : arguments.keywords) {
      if (name == "attribute") {
        attribute = std::move(value);
      } else if (name == "default") {
        fallback = std::move(value);
      } else {
        throw Failure(fmt::format("Unexpected keyword argument '{}'", name));
      }
    }
    if (attribute.is_missing()) throw Failure("map requires a filter argument");
    return [path = AttributePath(i, attribute), fallback](const Value& item) { return path.get(item, fallback); };
  }
  if (arguments.positional.empty()) throw Failure("map requires a filter argument");
  const Value name = arguments.positional[0];
  arguments.positional.erase(arguments.positional.begin());
  return [&i, name, arguments](const Value& item) {
    Args copy = arguments;
    return i.call_filter(name, item, copy);
  };
}

Value map(Interpreter& i, const Value& self, Args& arguments) {
  check_depth(arguments);
  return generator(i, self, [&i, arguments] {
    return [step = mapping(i, arguments)](Iterator& source, Value& out) {
      Value item;
      if (!source.next(item)) return false;
      out = step(item);
      return true;
    };
  });
}

Keep selection(Interpreter& i, Args arguments, bool keep, bool by_attribute) {
  Value attribute;
  size_t used = 0;
  if (by_attribute) {
    if (arguments.positional.empty()) throw Failure("Missing parameter for attribute name");
    attribute = arguments.positional[used++];
  }
  Value test;
  if (arguments.positional.size() > used) test = arguments.positional[used++];
  arguments.positional.erase(arguments.positional.begin(), arguments.positional.begin() + static_cast<ptrdiff_t>(used));
  return [&i, keep, test, arguments, path = AttributePath(i, attribute)](const Value& item) {
    const Value value = path.get(item);
    if (test.is_missing()) return truthy(value) == keep;
    Args copy = arguments;
    return i.call_test(test, value, copy) == keep;
  };
}

template <bool KeepIt, bool ByAttribute>
Value select(Interpreter& i, const Value& self, Args& arguments) {
  check_depth(arguments);
  return generator(i, self, [&i, arguments] {
    return [&i, keep = selection(i, arguments, KeepIt, ByAttribute)](Iterator& source, Value& out) {
      while (source.next(out)) {
        i.runtime.step();
        if (keep(out)) return true;
      }
      return false;
    };
  });
}

Value unique(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const bool folded = !bound.flag(0, false);
  const AttributePath path(i, bound[1]);
  const auto next = [&i, self, path, folded, iterator = IteratorP(),
                     seen = std::make_shared<Dict>()](Value& out) mutable {
    if (!iterator) iterator = iterate(i.runtime, self);
    const DepthGuard guard(i.runtime);
    while (iterator->next(out)) {
      i.runtime.step();
      const Value value = path.get(out);
      const Value key = folded ? ignore_case(i.runtime, value) : value;
      if (dict_find(i.runtime, *seen, key) != nullptr) continue;
      dict_set(i.runtime, *seen, key, None{});
      return true;
    }
    return false;
  };
  return make_iterator(i.runtime, "generator", jinja::depth_of(self) + 1, next);
}

Value batch(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  Int count = -1;  // what is not a number is never reached
  if (!as_int(bound[0], count) && bound.has(1) && !bound[1].is_none()) to_index(bound[0], "batch");
  const Value fill = bound[1];
  const auto next = [&i, self, count, fill, iterator = IteratorP(), held = std::vector<Value>(),
                     done = false](Value& out) mutable {
    if (done) return false;
    const DepthGuard guard(i.runtime);
    if (!iterator) iterator = iterate(i.runtime, self);
    Value item;
    std::vector<Value> row = std::move(held);
    held.clear();
    bool full = false;
    while (!full && iterator->next(item)) {
      i.runtime.step();
      full = static_cast<Int>(row.size()) == count;
      (full ? held : row).push_back(item);
    }
    if (!full) {
      done = true;
      if (row.empty()) return false;
      if (!fill.is_missing() && !fill.is_none()) {
        const Int missing = count - static_cast<Int>(row.size());
        if (missing > 0) i.runtime.charge(static_cast<uint64_t>(std::min<Int>(missing, Int{1} << 40)) * sizeof(Value));
        for (Int k = 0; k < missing; ++k) row.push_back(fill);
      }
    }
    out = make_list(i.runtime, std::move(row));
    return true;
  };
  return make_iterator(i.runtime, "generator", jinja::depth_of(self) + 1, next);
}

Value slice_filter(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const Int slices = bound.integer(0, 0);
  const Value fill = bound[1];
  const auto next = [&i, self, slices, fill, items = std::vector<Value>(), started = false, number = Int{0},
                     offset = Int{0}](Value& out) mutable {
    const DepthGuard guard(i.runtime);
    if (!started) items = to_vector(i.runtime, self);
    started = true;
    if (slices == 0) throw Failure("integer division or modulo by zero");
    if (number >= slices) return false;
    const auto size = static_cast<Int>(items.size());
    const Int each = size / slices, extra = size % slices;
    const Int begin = offset + number * each;
    if (number < extra) ++offset;
    const Int end = offset + (number + 1) * each;
    std::vector<Value> row(items.begin() + static_cast<ptrdiff_t>(begin), items.begin() + static_cast<ptrdiff_t>(end));
    if (!fill.is_missing() && !fill.is_none() && number >= extra) row.push_back(fill);
    ++number;
    out = make_list(i.runtime, std::move(row));
    return true;
  };
  return make_iterator(i.runtime, "generator", jinja::depth_of(self) + 1, next);
}

Value items(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("items", arguments);
  const auto next = [&i, self, at = size_t{0}](Value& out) mutable {
    if (self.is_undefined()) return false;
    const auto* dict = self.get<DictP>();
    if (dict == nullptr) throw Failure("Can only get item pairs from a mapping.");
    if (at >= (*dict)->items.size()) return false;
    const auto& [key, value] = (*dict)->items[at++];
    out = make_tuple(i.runtime, {key, value});
    return true;
  };
  return make_iterator(i.runtime, "generator", jinja::depth_of(self) + 1, next);
}
}  // namespace

Builtin find_lazy_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Builtin> kFilters[] = {{"map", map},
                                                                      {"select", select<true, false>},
                                                                      {"reject", select<false, false>},
                                                                      {"selectattr", select<true, true>},
                                                                      {"rejectattr", select<false, true>},
                                                                      {"unique", unique},
                                                                      {"batch", batch},
                                                                      {"slice", slice_filter},
                                                                      {"items", items}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace thimble::jinja
