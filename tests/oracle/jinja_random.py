"""Random expressions and templates, to find where our engine and Python's jinja2 differ."""
import random

import jinja_cases

STRINGS = ["''", "'a'", "'Ab c'", "'%s'", "'é😀ß'", "' x\\n y '", "'a,b,c'", "'12'", "'-3.5'", "'<&>'", "'{}'", "'{:>4}'", "'%d|%5s'", "'ΣΑΣ'", "'\\u2028q\\r\\n'", "'0x1F'", "'abcabc'"]
NUMBERS = ["0", "1", "-1", "2", "7", "3.5", "-0.5", "1e16", "1e-5", "100", "10 ** 18", "0.1", "2.675", "1e22", "255"]
CONSTANTS = ["none", "true", "false", "undefined_name"]
NAMES = ["s", "empty", "u", "n", "z", "neg", "f", "t", "no", "nothing", "list", "words", "nested", "d", "deep", "quote", "ws", "floats", "users", "messages", "items"]
STR_METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip()", "lstrip()", "rstrip()", "split()", "splitlines()", "isalpha()", "isdigit()", "isalnum()", "isspace()", "islower()", "isupper()", "istitle()", "casefold()", "isprintable()", "isidentifier()", "isnumeric()",
               "strip({s})", "split({s})", "split({s}, {i})", "rsplit({s}, {i})", "rsplit(none, {i})", "split(none, {i})", "replace({s}, {s})", "replace({s}, {s}, {i})", "find({s})", "rfind({s})", "find({s}, {i}, {i})", "count({s})", "count({s}, {i}, {i})", "startswith({s})", "endswith({s}, {i}, {i})", "partition({s})", "rpartition({s})", "join({e})", "center({i})", "center({i}, 'x')", "ljust({i}, '-')", "rjust({i})", "zfill({i})", "format({e})", "format({e}, {e})", "removeprefix({s})", "removesuffix({s})", "expandtabs({i})", "index({s})", "rindex({s}, {i})"]
OTHER_METHODS = ["items()", "keys()", "values()", "get({e})", "get({e}, {e})", "index({e})", "count({e})", "copy()", "append({e})", "x", "name", "0", "items", "upper", "pop('a')", "get('a')", "bit_length()", "is_integer()"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "first", "last", "list", "sort", "reverse|list", "join", "join({s})", "string", "tojson", "tojson(indent=2)", "int", "float", "abs", "round", "round({i})", "round({i}, 'ceil')", "round(1, 'floor')", "default({e})", "d({e}, true)", "replace({s}, {s})", "indent", "indent({i}, true)", "truncate(5)", "truncate(4, true, '', {i})", "wordcount", "unique|list", "sum", "min", "max", "items|list", "dictsort", "batch({i})|list", "slice({i})|list", "map('upper')|list", "map(attribute={e})|list", "select|list", "reject|list", "select({t})|list", "selectattr('a')|list", "selectattr('age', 'gt', {i})|list", "map('default', {e})|list", "e", "escape|string", "safe", "urlencode", "format({e})", "center({i})", "filesizeformat", "sort(reverse=true)", "sort(case_sensitive=true)", "groupby(0)", "groupby('age')", "int({e})", "int(0, {i})", "float({e})", "attr('x')", "tojson(true)", "tojson(sort_keys=true)", "tojson(separators=({s}, {s}))", "map('int')|sum", "count", "forceescape", "xmlattr"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true", "false", "callable", "odd", "even", "lower", "upper", "divisibleby({i})", "eq({e})", "in({e})", "lt({e})", "ge({e})", "escaped"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def fill(self, pattern, depth):
        while "{s}" in pattern or "{e}" in pattern or "{i}" in pattern or "{t}" in pattern:
            pattern = pattern.replace("{s}", self.random.choice(STRINGS).replace("{", "\x01"), 1) if "{s}" in pattern else pattern
            pattern = pattern.replace("{i}", self.random.choice(["0", "1", "2", "-1", "3", "-2", "5", "none"]), 1) if "{i}" in pattern else pattern
            pattern = pattern.replace("{t}", repr(self.random.choice(TESTS).split("(")[0]), 1) if "{t}" in pattern else pattern
            pattern = pattern.replace("{e}", self.expression(depth - 1).replace("{", "\x01"), 1) if "{e}" in pattern else pattern
        return pattern.replace("\x01", "{")

    def atom(self):
        kind = self.random.random()
        return self.random.choice(NAMES if kind < 0.5 else STRINGS if kind < 0.7 else NUMBERS if kind < 0.9 else CONSTANTS)

    def expression(self, depth):
        if depth <= 0:
            return self.atom()
        r = self.random
        kind = r.randrange(13)
        inner = lambda: self.expression(depth - 1 - r.randrange(2))
        if kind == 0:
            return f"({inner()} {r.choice(OPERATORS)} {inner()})"
        if kind == 1:
            return f"{inner()} {r.choice(OPERATORS)} {inner()}"
        if kind == 2:
            return f"({inner()}).{self.fill(r.choice(STR_METHODS), depth)}"
        if kind == 3:
            return f"{r.choice(STRINGS + ['s', 'u', 'ws'])}.{self.fill(r.choice(STR_METHODS), depth)}"
        if kind == 4:
            return f"({inner()}).{self.fill(r.choice(OTHER_METHODS), depth)}"
        if kind in (5, 6):
            return f"({inner()})|{self.fill(r.choice(FILTERS), depth)}"
        if kind == 7:
            return f"({inner()} is {r.choice(['', 'not '])}{self.fill(r.choice(TESTS), depth)})"
        if kind == 8:
            return f"({inner()})[{inner()}]"
        if kind == 9:
            part = lambda: r.choice(["", "", "0", "1", "-1", "2", "-3", "none"])
            return f"{r.choice(NAMES)}[{part()}:{part()}" + r.choice(["]", f":{r.choice(['', '1', '2', '-1', '-2'])}]"])
        if kind == 10:
            return "[" + ", ".join(inner() for _ in range(r.randrange(4))) + "]"
        if kind == 11:
            return r.choice(["({} if {} else {})", "({} if {})", "(not {})", "(-{})", "{{{}: {}}}"]).format(inner(), inner(), inner())
        return r.choice(["range({})|list", "dict(a={})", "namespace(a={}).a", "({},)", "{}, {}"]).format(inner(), inner())

    def body(self, depth):
        return "".join(self.statement(depth - 1) for _ in range(self.random.randrange(1, 4)))

    def statement(self, depth):
        r = self.random
        e = lambda: self.expression(r.randrange(3))
        name = lambda: r.choice(["n", "s", "x", "y", "list"])
        trim = lambda: r.choice(["", "", "", "-", "+"])
        tag = lambda text: f"{{%{r.choice(['', '', '-', '+'])} {text} {trim()}%}}"
        space = lambda: r.choice(["", "", " ", "\n", "\n  ", "  \n", "a", "b\n"])
        kind = r.randrange(12) if depth > 0 else r.randrange(3)
        if kind == 0:
            return space() + "{{" + r.choice(["", "-"]) + " " + e() + " " + r.choice(["", "-"]) + "}}" + space()
        if kind == 1:
            return tag(f"set {name()} = {e()}") + space()
        if kind == 2:
            return "{{ " + name() + " }}" + space()
        b = lambda: space() + self.body(depth) + space()
        if kind in (3, 4):
            otherwise = tag("else") + b() if r.random() < 0.4 else ""
            other = tag(f"elif {e()}") + b() if r.random() < 0.3 else ""
            return tag(f"if {e()}") + b() + other + otherwise + tag("endif")
        if kind in (5, 6):
            test = f" if {name()}" if r.random() < 0.2 else ""
            otherwise = tag("else") + b() if r.random() < 0.3 else ""
            extra = r.choice(["", "", "{{ loop.index }}", "{{ loop.last }}", "{{ loop.length }}{{ loop.previtem }}", tag("break"), tag("if y") + tag("continue") + tag("endif")])
            return tag(f"for {name()} in {r.choice(['list', 'words', 'users', 'd', 's', e()])}{test}") + extra + b() + otherwise + tag("endfor")
        if kind == 7:
            return tag(f"set {name()}") + b() + tag("endset")
        if kind == 8:
            return tag(f"with {name()} = {e()}") + b() + tag("endwith")
        if kind == 9:
            macro = r.choice(["m", "x"])
            return tag(f"macro {macro}({name()}, q={e()})") + b() + tag("endmacro") + "{{ " + f"{macro}({e()})" + " }}"
        if kind == 10:
            return tag(f"filter {r.choice(['upper', 'trim', 'length', 'replace(1, 2)'])}") + b() + tag("endfilter")
        return tag("generation") + b() + tag("endgeneration")


def cases(count, seed):
    generator = Generator(seed)
    for i in range(count):
        if i % 3 < 2:
            yield "{{ " + generator.expression(4) + " }}", jinja_cases.CONTEXT
        else:
            yield generator.body(4), jinja_cases.CONTEXT
