"""What an answer came to, whichever API gave it, and whether it kept to what was asked."""

import json
from dataclasses import dataclass, field

import jsonschema


class Wrong(Exception):
    """An answer that is not what its request or its API's own types say."""


def expect(good, what):
    if not good:
        raise Wrong(what)


@dataclass
class Seen:
    text: str = ""
    reasoning: str = ""
    calls: list = field(default_factory=list)  # (name, JSON text of the arguments)
    finish: str = ""                           # stop, length or calls
    tokens: int = 0                            # written
    log_probs: list = field(default_factory=list)  # (token, log probability)


@dataclass
class Asked:
    """What a request demands, whichever API it goes to."""
    tools: list = field(default_factory=list)  # {"name", "description", "parameters"}
    choice: str = "auto"                       # auto, none, required, or a tool's name
    parallel: bool = True
    schema: dict | None = None
    stop: list = field(default_factory=list)
    most: int = 64


def validated(adapter, thing):
    """The object that an SDK made of an answer, once more and strictly: SDKs themselves take whatever comes."""
    adapter.validate_python(thing.to_dict(mode="python"))
    return thing


def keeps_to(asked, seen):
    cut = seen.finish == "length"
    expect(seen.tokens <= asked.most, f"{seen.tokens} tokens instead of at most {asked.most}")
    expect(not any(stop in seen.text for stop in asked.stop), f"a stop string is in {seen.text!r}")
    if asked.choice == "none":
        expect(not seen.calls, f"calls {seen.calls} although none were allowed")
    if asked.choice not in ("auto", "none"):
        expect(seen.calls or cut, "no call although one was required")
    if seen.calls and not cut:
        expect(seen.finish == "calls", f"calls, but it ended with {seen.finish}")
    if not asked.parallel:
        expect(len(seen.calls) <= 1, f"{len(seen.calls)} calls although only one was allowed")
    tools = {tool["name"]: tool for tool in asked.tools}
    whole = seen.calls[:-1] if cut else seen.calls
    for name, arguments in whole:
        if asked.tools:
            expect(name in tools, f"calls '{name}', which is not among {sorted(tools)}")
            jsonschema.validate(json.loads(arguments), tools[name]["parameters"])
        else:
            json.loads(arguments)
        if asked.choice not in ("auto", "required"):
            expect(name == asked.choice, f"calls '{name}' instead of '{asked.choice}'")
    if asked.schema is not None and not cut and not seen.calls:
        jsonschema.validate(json.loads(seen.text), asked.schema)


def same(whole, streamed):
    for name in ("text", "reasoning", "calls", "finish", "tokens"):
        a, b = getattr(whole, name), getattr(streamed, name)
        expect(a == b, f"{name} differs between the whole answer and the stream: {a!r} and {b!r}")
    expect([t for t, _ in whole.log_probs] == [t for t, _ in streamed.log_probs],
           f"log probabilities are of other tokens in the stream: {whole.log_probs} and {streamed.log_probs}")
