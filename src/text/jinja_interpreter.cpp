#include "text/jinja_interpreter.h"

#include <fmt/format.h>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"

namespace thimble::jinja {

namespace {
using K = Expr::Kind;
}

Value& Interpreter::at(const Slot& slot, const Environment& env) {
  Activation* activation = env.activation.get();
  for (int i = 0; i < slot.hops; ++i) activation = activation->parent.get();
  return activation->slots[static_cast<size_t>(slot.index)];
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprP>& exprs, const Environment& env) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const auto& expr : exprs) values.push_back(eval(*expr, env));
  return values;
}

Value Interpreter::eval_dict(const Expr& expr, const Environment& env) {
  DictBuilder dict(runtime);
  for (size_t i = 0; i < expr.operands.size(); i += 2) {
    const Value key = eval(*expr.operands[i], env);
    dict.set(key, eval(*expr.operands[i + 1], env));
  }
  return dict.finish();
}

Value Interpreter::eval_compare(const Expr& expr, const Environment& env) {
  Value left = eval(*expr.operands[0], env);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.operands[i + 1], env);
    line_ = expr.line;
    if (!compare(runtime, expr.ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::eval(const Expr& expr, const Environment& env) {
  const DepthGuard guard(runtime);
  runtime.step();
  switch (expr.kind) {
    case K::kConst:
      return expr.value;
    case K::kName: {
      const Value& value = at(expr.slot, env);
      return value.is_missing() ? make_undefined(fmt::format("'{}' is undefined", expr.name)) : value;
    }
    case K::kTuple:
      return make_tuple(runtime, eval_all(expr.operands, env));
    case K::kList:
      return make_list(runtime, eval_all(expr.operands, env));
    case K::kDict:
      return eval_dict(expr, env);
    case K::kBinary: {
      const Value left = eval(*expr.operands[0], env);
      const Value right = eval(*expr.operands[1], env);
      line_ = expr.line;
      return binary(*this, expr.ops[0], left, right);
    }
    case K::kUnary: {
      const Value operand = eval(*expr.operands[0], env);
      line_ = expr.line;
      return unary(runtime, expr.ops[0], operand);
    }
    case K::kNot:
      return Value(!truthy(eval(*expr.operands[0], env)));
    case K::kAnd:
    case K::kOr: {
      Value left = eval(*expr.operands[0], env);
      if (truthy(left) == (expr.kind == K::kOr)) return left;
      return eval(*expr.operands[1], env);
    }
    case K::kConcat: {
      std::string out;
      for (const auto& operand : expr.operands) {
        const std::string part = str(runtime, eval(*operand, env));
        runtime.charge_text(out.size() + part.size());
        out += part;
      }
      return make_text(runtime, std::move(out));
    }
    case K::kCompare:
      return eval_compare(expr, env);
    case K::kGetattr: {
      const Value object = eval(*expr.operands[0], env);
      line_ = expr.line;
      return getattr(object, expr.name);
    }
    case K::kGetitem: {
      const Value object = eval(*expr.operands[0], env);
      const Expr& index = *expr.operands[1];
      if (index.kind == K::kSlice) {
        Value parts[3];
        for (size_t i = 0; i < 3; ++i) {
          if (index.operands[i]) parts[i] = eval(*index.operands[i], env);
        }
        line_ = expr.line;
        return slice(runtime, object, parts[0], parts[1], parts[2]);
      }
      const Value key = eval(index, env);
      line_ = expr.line;
      return getitem(object, key);
    }
    case K::kCall:
      return eval_call(expr, env, nullptr);
    case K::kFilter:
      return eval_filter(expr, env, eval(*expr.operands[0], env));
    case K::kTest:
      return eval_filter(expr, env, eval(*expr.operands[0], env));
    case K::kConditional:
      if (truthy(eval(*expr.operands[0], env))) return eval(*expr.operands[1], env);
      if (expr.operands[2]) return eval(*expr.operands[2], env);
      return make_undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
    case K::kNamespaceRef:
    case K::kSlice:
      break;
  }
  throw Failure("a slice stands where a value is needed");
}

Value Interpreter::eval_filter(const Expr& expr, const Environment& env, const Value& input) {
  if (expr.builtin == nullptr) {
    throw Failure(fmt::format("No {} named '{}' found.", expr.kind == K::kFilter ? "filter" : "test", expr.name));
  }
  Arguments arguments = eval_arguments(expr.arguments, env);
  line_ = expr.line;
  return expr.builtin(*this, input, arguments);
}

Arguments Interpreter::eval_arguments(const CallArguments& given, const Environment& env) {
  Arguments arguments;
  arguments.positional = eval_all(given.positional, env);
  if (given.star) {
    for (auto& value : to_vector(runtime, eval(*given.star, env))) arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, value] : given.keywords) arguments.keywords.emplace_back(name, eval(*value, env));
  if (given.star_star) {
    const Value mapping = eval(*given.star_star, env);
    const auto* dict = mapping.get<DictP>();
    if (dict == nullptr) throw Failure("argument after ** must be a mapping, not " + type_name(mapping));
    runtime.charge((*dict)->items.size() * sizeof(Value));
    for (const auto& [key, value] : (*dict)->items) {
      const Text* name = key.text();
      if (name == nullptr) throw Failure("keywords must be strings");
      for (const auto& known : given.keywords) {
        if (known.first == name->utf8) {
          throw Failure(fmt::format("got multiple values for keyword argument '{}'", name->utf8));
        }
      }
      arguments.keywords.emplace_back(name->utf8, value);
    }
  }
  return arguments;
}

Value Interpreter::eval_call(const Expr& expr, const Environment& env, const Value* caller) {
  const Expr& target = *expr.operands[0];
  const auto arguments_of = [&] {
    Arguments arguments = eval_arguments(expr.arguments, env);
    if (caller != nullptr) arguments.keywords.emplace_back("caller", *caller);
    line_ = expr.line;
    return arguments;
  };
  if (target.kind == K::kGetattr) {  // a method, called without making a bound one first
    const Value object = eval(*target.operands[0], env);
    line_ = target.line;
    if (const Builtin method = find_method(object, target.name)) {
      Arguments arguments = arguments_of();
      return method(*this, object, arguments);
    }
    const Value callee = getattr(object, target.name);
    Arguments arguments = arguments_of();
    return call(callee, arguments);
  }
  const Value callee = eval(target, env);
  Arguments arguments = arguments_of();
  return call(callee, arguments);
}

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  const DepthGuard guard(runtime);
  if (const auto* function = callee.get<FunctionP>()) return (*function)->call(*this, arguments);
  if (const auto* macro = callee.get<MacroP>()) {
    const int line = line_;
    Value result = call_macro(**macro, arguments);
    line_ = line;
    return result;
  }
  if (const auto* loop = callee.get<LoopP>()) {
    const Bound bound("loop", arguments, {"iterable"}, 1);
    if (!(*loop)->recurse) {
      throw Failure("The loop must have the 'recursive' marker to be called recursively.");
    }
    return (*loop)->recurse(bound[0], (*loop)->depth0 + 1);
  }
  if (const auto* joiner = callee.get<JoinerP>()) {
    no_arguments("joiner", arguments);
    if ((*joiner)->used) return make_text(runtime, (*joiner)->separator);
    (*joiner)->used = true;
    return make_text(runtime, "");
  }
  if (callee.is_undefined()) fail_undefined(callee);
  throw Failure(fmt::format("'{}' object is not callable", type_name(callee)));
}

// jinja2.runtime.Macro.__call__: positional arguments, keywords, then caller, kwargs and varargs.
Value Interpreter::call_macro(const Macro& macro, Arguments& arguments) {
  const MacroCode& code = *macro.code;
  const std::string who = macro.name.empty() ? "None" : fmt::format("'{}'", macro.name);
  const auto take = [&](const std::string& name) {
    for (auto it = arguments.keywords.begin(); it != arguments.keywords.end(); ++it) {
      if (it->first != name) continue;
      Value value = std::move(it->second);
      arguments.keywords.erase(it);
      return value;
    }
    return Value();
  };
  runtime.charge(sizeof(Activation) + static_cast<size_t>(code.slots) * sizeof(Value));
  auto activation = std::make_shared<Activation>();
  activation->slots.resize(static_cast<size_t>(code.slots));
  activation->parent = macro.closure;

  const size_t count = code.parameters.size();
  std::vector<bool> given(count);
  for (size_t i = 0; i < count; ++i) {
    Value value = i < arguments.positional.size() ? arguments.positional[i] : take(code.parameters[i]);
    given[i] = !value.is_missing();
    activation->slots[static_cast<size_t>(code.parameter_slots[i])] = std::move(value);
  }
  if (code.caller_slot >= 0) {
    Value caller = take("caller");
    if (caller.is_missing() || caller.is_none()) caller = make_undefined("No caller defined");
    activation->slots[static_cast<size_t>(code.caller_slot)] = std::move(caller);
  }
  if (code.kwargs_slot >= 0) {
    DictBuilder kwargs(runtime);
    for (auto& [name, value] : arguments.keywords) kwargs.set(name, std::move(value));
    activation->slots[static_cast<size_t>(code.kwargs_slot)] = kwargs.finish();
  } else if (!arguments.keywords.empty()) {
    throw Failure(fmt::format("macro {} takes no keyword argument '{}'", who, arguments.keywords[0].first));
  }
  if (code.varargs_slot >= 0) {
    std::vector<Value> rest;
    for (size_t i = count; i < arguments.positional.size(); ++i) rest.push_back(arguments.positional[i]);
    activation->slots[static_cast<size_t>(code.varargs_slot)] = make_tuple(runtime, std::move(rest));
  } else if (arguments.positional.size() > count) {
    throw Failure(fmt::format("macro {} takes not more than {} argument(s)", who, count));
  }

  const ActivationGuard guard(*this, activation);
  const Environment env{std::move(activation), macro.context};
  enter(code.frame, env);
  const size_t first_default = count - code.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    Value value = i >= first_default
                      ? eval(*code.defaults[i - first_default], env)
                      : make_undefined(fmt::format("parameter '{}' was not provided", code.parameters[i]));
    env.activation->slots[static_cast<size_t>(code.parameter_slots[i])] = std::move(value);
  }
  Output out;
  exec(code.body, env, out);
  return make_text(runtime, std::move(out.text));
}

namespace {
std::string described(const Value& object) {  // jinja2.utils.object_type_repr
  return object.is_none() ? "None" : type_name(object) + " object";
}

Value bound_method(const Value& object, const std::string& name, Builtin method) {
  return make_function(
      name, [object, method](Interpreter& i, Arguments& arguments) { return method(i, object, arguments); }, &object);
}

Value unsafe(const Value& object, const std::string& name) {
  return make_undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
}

// Names that every Python object has.
bool is_internal(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattribute__",
      "__gt__", "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__", "__ne__", "__new__", "__reduce__",
      "__reduce_ex__", "__repr__", "__setattr__", "__sizeof__", "__str__", "__subclasshook__"};
  for (const auto known : kNames) {
    if (known == name) return true;
  }
  return false;
}
}  // namespace

Value Interpreter::getattr(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail_undefined(object);
  if (const auto* space = object.get<NamespaceP>()) {
    const Value* found = dict_find((*space)->attributes, name);
    if (found != nullptr) return *found;
    return make_undefined(fmt::format("'Namespace object' has no attribute '{}'", name));
  }
  if (const Builtin method = find_method(object, name)) {
    runtime.charge(256);
    return bound_method(object, name, method);
  }
  Value value;
  if (find_property(*this, object, name, value)) return value;
  if (is_unsafe_attribute(object, name) || is_internal(name)) return unsafe(object, name);
  if (const auto* dict = object.get<DictP>()) {
    if (const Value* found = dict_find(**dict, name)) return *found;
  }
  return make_undefined(fmt::format("'{}' has no attribute '{}'", described(object), name));
}

Value Interpreter::getitem(const Value& object, const Value& index) {
  Value value;
  if (subscript(runtime, object, index, value)) return value;
  const Text* name = index.text();
  if (name == nullptr) {
    return make_undefined(fmt::format("{} has no element {}", described(object), repr(runtime, index)));
  }
  if (const auto* space = object.get<NamespaceP>()) {
    if (const Value* found = dict_find((*space)->attributes, name->utf8)) return *found;
  } else if (const Builtin method = find_method(object, name->utf8)) {
    return bound_method(object, name->utf8, method);
  } else if (find_property(*this, object, name->utf8, value)) {
    return value;
  } else if (is_unsafe_attribute(object, name->utf8) || is_internal(name->utf8)) {
    return unsafe(object, name->utf8);
  }
  return make_undefined(fmt::format("'{}' has no attribute {}", described(object), quoted(name->utf8)));
}

Value Interpreter::call_filter(const Value& name, const Value& self, Arguments& arguments) {
  const Builtin filter = name.text() != nullptr ? find_filter(name.text()->utf8) : nullptr;
  if (filter == nullptr) throw Failure(fmt::format("No filter named {}.", repr(runtime, name)));
  return filter(*this, self, arguments);
}

bool Interpreter::call_test(const Value& name, const Value& self, Arguments& arguments) {
  const Builtin test = name.text() != nullptr ? find_test(name.text()->utf8) : nullptr;
  if (test == nullptr) throw Failure(fmt::format("No test named {}.", repr(runtime, name)));
  return truthy(test(*this, self, arguments));
}

}  // namespace thimble::jinja
