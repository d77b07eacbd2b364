#include <fmt/format.h>

#include <clocale>
#include <ctime>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"

// The functions that every template has: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
namespace thimble::jinja {

namespace {
Value range(Interpreter& i, Arguments& arguments) {
  const Bound bound("range", arguments, {"", "", ""}, 1);
  Int numbers[3] = {0, 0, 1};
  const size_t count = bound.has(2) ? 3 : bound.has(1) ? 2 : 1;
  for (size_t k = 0; k < count; ++k) {
    const Int n = bound.integer(k, 0);
    if (n > INT64_MAX || n < INT64_MIN) throw Failure("range(): the number is too large");
    numbers[count == 1 ? 1 : k] = n;
  }
  if (numbers[2] == 0) throw Failure("range() arg 3 must not be zero");
  const Range range{numbers[0], numbers[1], numbers[2]};
  if (range.size() > 100'000) {
    throw Failure("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  i.runtime.charge(sizeof(Range));
  return std::make_shared<const Range>(range);
}

// dict(mapping or pairs, **keywords), for dict and namespace.
void fill_dict(Interpreter& i, const char* function, Arguments& arguments, Dict& dict) {
  if (arguments.positional.size() > 1) throw Failure(fmt::format("{} expected at most 1 argument", function));
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is_undefined()) fail_undefined(source);
    if (const auto* other = source.get<DictP>()) {
      for (const auto& [key, value] : (*other)->items) dict_set(i.runtime, dict, key, value);
    } else {
      for (const auto& pair : to_vector(i.runtime, source)) {
        const auto parts = to_vector(i.runtime, pair);
        if (parts.size() != 2) {
          throw Failure(fmt::format("dictionary update sequence element has length {}; 2 is required", parts.size()));
        }
        dict_set(i.runtime, dict, parts[0], parts[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.keywords) dict_set(i.runtime, dict, make_text(i.runtime, name), value);
}

Value dict(Interpreter& i, Arguments& arguments) {
  auto result = std::make_shared<Dict>();
  fill_dict(i, "dict", arguments, *result);
  return DictP(std::move(result));
}

Value namespace_(Interpreter& i, Arguments& arguments) {
  const NamespaceP space = i.make_namespace();
  fill_dict(i, "namespace", arguments, space->attributes);
  for (const auto& [key, value] : space->attributes.items) {
    if (const Text* name = key.text(); name != nullptr && name->utf8.starts_with("_")) {
      throw Failure(
          fmt::format("Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. "
                      "Please rename the attribute.",
                      quoted(name->utf8)));
    }
  }
  return space;
}

Value cycler(Interpreter& i, Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keywords.empty()) {
    throw Failure("cycler: at least one item has to be provided");
  }
  make_tuple(i.runtime, arguments.positional);  // checks the depth
  return std::make_shared<Cycler>(Cycler{arguments.positional, 0});
}

Value joiner(Interpreter& i, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  i.runtime.charge(64);
  return std::make_shared<Joiner>(Joiner{bound.has(0) ? bound.text(0).utf8 : ", ", false});
}

Value lipsum(Interpreter&, Arguments&) { throw Failure("lipsum is not supported: a chat template has no random text"); }

Value raise_exception(Interpreter& i, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw Failure(str(i.runtime, bound[0]), true);
}

// datetime.now().strftime(format), in the C locale.
Value strftime_now(Interpreter& i, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  std::tm now{};
  if (i.runtime.options.now) {
    now = *i.runtime.options.now;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &now);
  }
  const std::string& given = bound.text(0).utf8;
  std::string format;
  for (size_t at = 0; at < given.size(); ++at) {
    if (given[at] != '%' || at + 1 >= given.size()) {
      format += given[at];
      continue;
    }
    const char c = given[++at];
    if (c == 'f') {
      format += "000000";
    } else if (c != 'z' && c != 'Z') {  // a naive datetime has no zone
      format += std::string("%") + c;
    }
  }
  format += ' ';  // so that an empty result differs from one that is too long
  std::string out(format.size() + 4096, '\0');
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  const size_t size = strftime_l(out.data(), out.size(), format.c_str(), &now, plain);
  if (size == 0) throw Failure("strftime_now: the format is too long");
  out.resize(size - 1);
  return make_text(i.runtime, std::move(out));
}
}  // namespace

void add_globals(Interpreter& interpreter, Context& context) {
  (void)interpreter;
  const auto add = [&](const char* name, Value (*function)(Interpreter&, Arguments&)) {
    context.set(name, make_function(name, function));
  };
  add("range", range);
  add("dict", dict);
  add("namespace", namespace_);
  add("cycler", cycler);
  add("joiner", joiner);
  add("lipsum", lipsum);
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
}

}  // namespace thimble::jinja
