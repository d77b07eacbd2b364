#include "text/jinja_operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "text/jinja_unicode.h"

// Comparisons, membership, slices and subscripts.
namespace thimble::jinja {

using Op = Expr::Op;

bool compare(Runtime& runtime, Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEq: return equal(runtime, a, b);
    case Op::kNe: return !equal(runtime, a, b);
    case Op::kLt: return less(runtime, a, b, "<");
    case Op::kLe: return less(runtime, a, b, "<=") || equal(runtime, a, b);
    case Op::kGt: return less(runtime, b, a, ">");
    case Op::kGe: return less(runtime, b, a, ">=") || equal(runtime, a, b);
    case Op::kIn: return contains(runtime, b, a);
    default: return !contains(runtime, b, a);
  }
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    const Text* part = item.text();
    if (part == nullptr) {
      throw Failure(fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
    }
    runtime.charge((text->utf8.size() + part->utf8.size()) / 8);
    if (part->utf8.empty()) return true;
    return memmem(text->utf8.data(), text->utf8.size(), part->utf8.data(), part->utf8.size()) != nullptr;
  }
  if (const auto* dict = container.get<DictP>()) return dict_find(runtime, **dict, item) != nullptr;
  if (const auto* view = container.get<DictViewP>(); view && (*view)->kind == DictView::Kind::kKeys) {
    return dict_find(runtime, *(*view)->dict, item) != nullptr;
  }
  if (const auto* range = container.get<RangeP>()) {
    Int i;
    double d;
    if (!as_int(item, i)) {
      if (!as_number(item, d) || std::floor(d) != d || std::fabs(d) > 1e30) return false;
      i = static_cast<Int>(d);
    }
    const Range& r = **range;
    const bool inside = r.step > 0 ? i >= r.start && i < r.stop : i <= r.start && i > r.stop;
    return inside && (i - r.start) % r.step == 0;
  }
  if (!is_iterable(container)) {
    throw Failure(fmt::format("argument of type '{}' is not iterable", type_name(container)));
  }
  const IteratorP iterator = iterate(runtime, container);
  Value candidate;
  while (iterator->next(candidate)) {
    if (equal(runtime, candidate, item)) return true;
  }
  return false;
}

Int to_index(const Value& value, const char* what) {
  Int index;
  if (as_int(value, index)) return index;
  if (value.is_undefined()) fail_undefined(value);
  throw Failure(fmt::format("{}: '{}' object cannot be interpreted as an integer", what, type_name(value)));
}

namespace {
// PySlice_AdjustIndices: bounds within [0, size], and how many items.
size_t adjust_slice(Int size, const Value& start, const Value& stop, const Value& step, Int& first, Int& last,
                    Int& stride) {
  const auto given = [](const Value& v) { return !v.is_missing() && !v.is_none(); };
  const auto index = [](const Value& v) {
    Int i;
    if (!as_int(v, i)) throw Failure("slice indices must be integers or None or have an __index__ method");
    return i;
  };
  stride = given(step) ? index(step) : 1;
  if (stride == 0) throw Failure("slice step cannot be zero");
  const Int low = stride < 0 ? -1 : 0, high = stride < 0 ? size - 1 : size;
  const auto bound = [&](const Value& v, Int fallback) {
    if (!given(v)) return fallback;
    Int i = index(v);
    if (i < 0) i += size;
    return std::clamp(i, low, high);
  };
  first = bound(start, stride < 0 ? high : low);
  last = bound(stop, stride < 0 ? low : high);
  const Int distance = stride < 0 ? first - last : last - first;
  if (distance <= 0) return 0;
  const Int magnitude = stride < 0 ? checked_negate(stride) : stride;
  return static_cast<size_t>((distance - 1) / magnitude + 1);
}

std::vector<size_t> code_point_starts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80) starts.push_back(i);
  }
  starts.push_back(text.size());
  return starts;
}

Value slice_text(Runtime& runtime, const Text& text, Int first, Int stride, size_t count) {
  if (count == 0) return make_text(runtime, "", text.markup);
  if (stride == 1) {
    const auto from = static_cast<size_t>(first);
    if (text.ascii()) return make_text(runtime, text.utf8.substr(from, count), text.markup);
    const std::string_view rest = std::string_view(text.utf8).substr(byte_offset(text.utf8, from));
    runtime.charge(text.utf8.size() / 8);
    return make_text(runtime, std::string(rest.substr(0, byte_offset(rest, count))), text.markup);
  }
  runtime.charge(text.utf8.size() * sizeof(size_t));
  const auto starts = code_point_starts(text.utf8);
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(first + static_cast<Int>(i) * stride);
    out.append(text.utf8, starts[at], starts[at + 1] - starts[at]);
  }
  return make_text(runtime, std::move(out), text.markup);
}
}  // namespace

Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  Int size, first, last, stride;
  if (object.is_undefined()) fail_undefined(object);
  const auto* list = object.get<ListP>();
  const auto* tuple = object.get<TupleP>();
  const auto* range = object.get<RangeP>();
  const Text* text = object.text();
  if (!list && !tuple && !range && !text) {
    if (object.is<DictP>()) throw Failure("unhashable type: 'slice'");
    throw Failure(fmt::format("'{}' object is not subscriptable", type_name(object)));
  }
  length_of(object, size);
  const size_t count = adjust_slice(size, start, stop, step, first, last, stride);
  if (text) return slice_text(runtime, *text, first, stride, count);
  if (range) {
    const Range& r = **range;
    const auto at = [&](Int i) { return checked_add(r.start, checked_multiply(r.step, i)); };
    const Range out{at(first), at(last), checked_multiply(r.step, stride)};
    return std::make_shared<const Range>(out);
  }
  const auto& items = list ? (*list)->items : (*tuple)->items;
  runtime.charge(count * sizeof(Value));
  std::vector<Value> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(items[static_cast<size_t>(first + static_cast<Int>(i) * stride)]);
  return list ? make_list(runtime, std::move(out)) : make_tuple(runtime, std::move(out));
}

namespace {
bool is_hashable(Runtime& runtime, const Value& value) {
  runtime.step();
  if (const auto* tuple = value.get<TupleP>()) {
    return std::all_of((*tuple)->items.begin(), (*tuple)->items.end(),
                       [&](const Value& item) { return is_hashable(runtime, item); });
  }
  return !value.is<ListP>() && !value.is<DictP>() && !value.is<DictViewP>();
}
}  // namespace

bool subscript(Runtime& runtime, const Value& object, const Value& index, Value& out) {
  if (object.is_undefined()) fail_undefined(object);
  if (const auto* dict = object.get<DictP>()) {
    if (!is_hashable(runtime, index)) return false;
    const Value* found = dict_find(runtime, **dict, index);
    if (found != nullptr) out = *found;
    return found != nullptr;
  }
  Int i, size;
  if (!as_int(index, i)) return false;
  const auto* list = object.get<ListP>();
  const auto* tuple = object.get<TupleP>();
  const auto* range = object.get<RangeP>();
  const Text* text = object.text();
  if (!list && !tuple && !range && !text) return false;
  length_of(object, size);
  if (i < 0) i += size;
  if (i < 0 || i >= size) return false;
  if (list) {
    out = (*list)->items[static_cast<size_t>(i)];
  } else if (tuple) {
    out = (*tuple)->items[static_cast<size_t>(i)];
  } else if (range) {
    out = (*range)->start + (*range)->step * i;
  } else {
    size_t begin = static_cast<size_t>(i);
    if (!text->ascii()) {
      runtime.charge(text->utf8.size() / 8);
      begin = byte_offset(text->utf8, begin);
    }
    size_t end = begin;
    decode_at(text->utf8, end);
    out = make_text(runtime, text->utf8.substr(begin, end - begin), text->markup);
  }
  return true;
}

}  // namespace thimble::jinja
