#include <fmt/format.h>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"

// The tests behind `is`.
namespace thimble::jinja {

namespace {
using Args = Arguments;

template <bool (*F)(const Value&)>
Value simple(Interpreter&, const Value& self, Args& arguments) {
  no_arguments("test", arguments);
  return Value(F(self));
}

template <Expr::Op Op>
Value comparison(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("test", arguments, {""}, 1);
  return Value(compare(i.runtime, Op, self, bound[0]));
}

bool is_true(const Value& v) { return v.is<bool>() && *v.get<bool>(); }
bool is_false(const Value& v) { return v.is<bool>() && !*v.get<bool>(); }
bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is<bool>(); }
bool is_integer(const Value& v) { return v.is<Int>(); }
bool is_float(const Value& v) { return v.is<double>(); }
bool is_number(const Value& v) { return v.is<Int>() || v.is<bool>() || v.is<double>(); }
bool is_string(const Value& v) { return v.text() != nullptr; }
bool is_mapping(const Value& v) { return v.is<DictP>(); }
bool is_sequence(const Value& v) {
  return v.text() || v.is<ListP>() || v.is<TupleP>() || v.is<DictP>() || v.is<RangeP>() || v.is_undefined();
}
bool is_callable(const Value& v) {
  return v.is<FunctionP>() || v.is<MacroP>() || v.is<LoopP>() || v.is<JoinerP>() || v.is_undefined();
}
bool is_escaped(const Value& v) { return v.text() != nullptr && v.text()->markup; }

template <int Rest>
Value parity(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("test", arguments);
  return Value(equal(i.runtime, binary(i, Expr::Op::kMod, self, Value(2)), Value(Rest)));
}

Value divisibleby(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return Value(equal(i.runtime, binary(i, Expr::Op::kMod, self, bound[0]), Value(0)));
}

template <bool Upper>
Value letter_case(Interpreter& i, const Value& self, Args& arguments) {
  no_arguments("test", arguments);
  const Value text = make_text(i.runtime, str(i.runtime, self));
  return find_string_method(Upper ? "isupper" : "islower")(i, text, arguments);
}

Value sameas(Interpreter&, const Value& self, Args& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  if (self.variant().index() != bound[0].variant().index()) return Value(false);
  return Value(std::visit(
      [&]<class T>(const T& x) {
        const T& y = *bound[0].get<T>();
        if constexpr (std::is_same_v<T, TextP>) {
          return x == y || x->utf8 == y->utf8;  // Python shares equal constants
        } else if constexpr (std::is_same_v<T, Undefined>) {
          return x.message == y.message;
        } else if constexpr (std::is_same_v<T, None> || std::is_same_v<T, Missing>) {
          return true;
        } else {
          return x == y;
        }
      },
      self.variant()));
}

Value in(Interpreter& i, const Value& self, Args& arguments) {
  const Bound bound("in", arguments, {"seq"}, 1);
  return Value(contains(i.runtime, bound[0], self));
}

Value filter(Interpreter&, const Value& self, Args& arguments) {
  no_arguments("filter", arguments);
  return Value(self.text() != nullptr && find_filter(self.text()->utf8) != nullptr);
}

Value test(Interpreter&, const Value& self, Args& arguments) {
  no_arguments("test", arguments);
  return Value(self.text() != nullptr && find_test(self.text()->utf8) != nullptr);
}
}  // namespace

Builtin find_test(std::string_view name) {
  using Op = Expr::Op;
  static constexpr std::pair<std::string_view, Builtin> kTests[] = {
      {"defined", simple<is_defined>}, {"undefined", simple<is_undefined>}, {"none", simple<is_none>},
      {"string", simple<is_string>}, {"mapping", simple<is_mapping>}, {"iterable", simple<is_iterable>},
      {"sequence", simple<is_sequence>}, {"number", simple<is_number>}, {"integer", simple<is_integer>},
      {"float", simple<is_float>}, {"boolean", simple<is_boolean>}, {"true", simple<is_true>},
      {"false", simple<is_false>}, {"callable", simple<is_callable>}, {"escaped", simple<is_escaped>},
      {"odd", parity<1>}, {"even", parity<0>}, {"divisibleby", divisibleby}, {"lower", letter_case<false>},
      {"upper", letter_case<true>}, {"sameas", sameas}, {"in", in}, {"filter", filter}, {"test", test},
      {"==", comparison<Op::kEq>}, {"eq", comparison<Op::kEq>}, {"equalto", comparison<Op::kEq>},
      {"!=", comparison<Op::kNe>}, {"ne", comparison<Op::kNe>}, {">", comparison<Op::kGt>},
      {"gt", comparison<Op::kGt>}, {"greaterthan", comparison<Op::kGt>}, {">=", comparison<Op::kGe>},
      {"ge", comparison<Op::kGe>}, {"<", comparison<Op::kLt>}, {"lt", comparison<Op::kLt>},
      {"lessthan", comparison<Op::kLt>}, {"<=", comparison<Op::kLe>}, {"le", comparison<Op::kLe>}};
  for (const auto& [known, function] : kTests) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace thimble::jinja
