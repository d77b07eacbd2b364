#!/usr/bin/env python3
"""Asks a running server as the official SDKs do, and holds every answer to their types: checks.py ADDRESS MODELS

MODELS are names with commas between, the one whose answers need not make sense first. Every case is asked whole and as
a stream, with one seed: each event is validated strictly, and both must say the same. Prints what went wrong and
`N requests in M cases: F failed`.
"""

import argparse
import collections
import concurrent.futures
import functools
import json
import pathlib
import re
import sys
import threading
import time
import traceback
import urllib.request

import anthropic
import openai
import pydantic

import cases
import chat_client
import messages_client
import responses_client
from answers import Asked, expect, keeps_to, same, validated

CLIENTS = {"chat": chat_client, "responses": responses_client, "messages": messages_client}


class Checker:
    def __init__(self, address, models, count):
        self.address, self.small, self.models, self.count = address, models[0], models[1:], count
        self.requests = collections.Counter()
        self.lock = threading.Lock()
        hooks = {"request": [self.note]}
        self.openai = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0, timeout=300,
                                    http_client=openai.DefaultHttpxClient(event_hooks=hooks))
        self.anthropic = anthropic.Anthropic(base_url=address, api_key="none", max_retries=0, timeout=300,
                                             http_client=anthropic.DefaultHttpxClient(event_hooks=hooks))

    def note(self, request):
        with self.lock:
            self.requests[re.sub(r"/resp_\w+", "/ID", request.url.path)] += 1

    def client(self, api):
        return self.anthropic if api == "messages" else self.openai

    def request(self, case):
        body = CLIENTS[case.api].body(case.asked)
        own = {"temperature", "top_p"} | {"chat": {"seed", "presence_penalty", "frequency_penalty"}, "responses": set(),
                                          "messages": {"top_k"}}[case.api]
        body |= {name: value for name, value in case.sampling.items() if name in own}
        beyond = {name: value for name, value in case.sampling.items() if name not in own}
        body["extra_body"] = body.get("extra_body", {}) | beyond
        if case.api == "messages":  # which the SDK marks as things of the past
            body["extra_body"] |= {name: body.pop(name) for name in ("temperature", "top_p", "top_k") if name in body}
        if case.api == "responses":
            body |= {"model": case.model, "input": case.text, "store": case.kind in ("remembered", "stored")}
        else:
            body |= {"model": case.model, "messages": [{"role": "user", "content": case.text}]}
        if case.kind == "logprobs":
            body |= {"logprobs": True, "top_logprobs": 3} if case.api == "chat" else {
                "include": ["message.output_text.logprobs"], "top_logprobs": 3}
        if case.kind == "n":
            body["n"] = case.extra["n"]
        if case.kind == "bias":
            body["logit_bias"] = {"5": -100, "7": 3}
        if case.kind == "instructions":
            body["instructions"] = "Answer in one word."
        if case.kind == "system":
            body["system"] = [{"type": "text", "text": "Answer in one word.", "cache_control": {"type": "ephemeral"}}]
        return body

    def both(self, case, request):
        """Whole and streamed; gives the SDK's object and what was seen."""
        api = CLIENTS[case.api]
        answer, whole = api.whole(self.client(case.api), **request)
        streamed = api.streamed(self.client(case.api), **request)
        expect(len(whole) == len(streamed), "as many choices in the stream")
        for a, b in zip(whole, streamed):
            same(a, b)
        if len(whole) == 1:
            keeps_to(case.asked, whole[0])
        return answer, whole

    def run(self, case):
        if case.api == "completions":
            return self.run_text(case)
        request = self.request(case)
        answer, seen = self.both(case, request)
        if case.kind == "logprobs" and seen[0].finish == "stop" and not seen[0].reasoning:
            expect("".join(token for token, _ in seen[0].log_probs).strip() == seen[0].text.strip(),
                   "the tokens with log probabilities are the text")
        if case.kind == "helper":
            self.check_helper(case, request, seen)
        if case.kind == "turns" and seen[0].finish == "calls":
            self.go_on(case, CLIENTS[case.api].follow_up(request, answer, '{"ok": true, "größe": "12 µm"}'))
        if case.kind == "remembered" and seen[0].finish == "calls":
            self.go_on(case, {**request, "previous_response_id": answer.id,
                              "input": responses_client.outputs(answer, "done")})
        if case.kind == "stored":
            self.check_stored(answer)
        if case.kind == "counted":
            counted = self.anthropic.messages.count_tokens(model=request["model"], messages=request["messages"])
            usage = answer.usage
            expect(counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, "tokens counted before")

    def go_on(self, case, request):
        """The turn after a call's result; its answer is free."""
        asked = Asked(tools=case.asked.tools, choice="auto", most=24)
        body = CLIENTS[case.api].body(asked)
        extra = {**body.pop("extra_body", {}), **request.get("extra_body", {})}
        request = {**request, **body, "extra_body": extra}
        self.both(cases.Case(case.api, "result", case.model, "", asked), request)

    def check_helper(self, case, request, seen):
        if case.api == "chat":
            text, calls = chat_client.helped(self.openai, **request)[0]
            expect((text, calls) == (seen[0].text, seen[0].calls), "the SDK's helper has the same")
        else:
            same(seen[0], CLIENTS[case.api].helped(self.client(case.api), **request))

    def check_stored(self, answer):
        stored = self.openai.responses.retrieve(answer.id)
        expect(stored.to_dict() == answer.to_dict(), "what is stored is what was answered")
        items = self.openai.responses.input_items.list(answer.id).data
        expect(len(items) == 1 and items[0].role == "user", "the input is listed")
        self.openai.responses.delete(answer.id)
        try:
            self.openai.responses.retrieve(answer.id)
        except openai.NotFoundError:
            return
        expect(False, "what was deleted is gone")

    def run_text(self, case):
        request = {"model": case.model, "prompt": "Once upon a time", "max_tokens": case.asked.most,
                   "seed": case.sampling["seed"], "temperature": case.sampling.get("temperature", 1)}
        if case.kind == "list":
            request["prompt"] = ["Once", "The dog", "A girl"]
        if case.kind == "n":
            request["n"] = case.extra["n"]
        if case.kind == "stop":
            request["stop"] = case.asked.stop
        if case.kind == "echo":
            request["echo"] = True
        whole = chat_client.text_whole(self.openai, **request)
        streamed = chat_client.text_streamed(self.openai, **request)
        expect(whole == streamed, f"whole {whole} and streamed {streamed}")

    def refused(self, error, names, call, **request):
        """Gives the error, which must name these."""
        try:
            call(**request)
        except error as e:
            expect(all(name in e.message for name in names), f"{names} are not named in: {e.message}")
            return e
        expect(False, f"{names} were not refused")

    def refusals(self):
        say = [{"role": "user", "content": "Hi"}]
        bad, none = openai.BadRequestError, openai.NotFoundError
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        tool = {"type": "function", "function": cases.TOOLS[0]}
        wild = {"type": "function", "function": {"name": "x", "parameters": {"type": "object", "wild": 1}}}
        other = {"type": "function", "function": {"name": "other"}}
        for error, names, request in (
                (none, ["none", self.small], {"model": "none"}),
                (bad, ["foo"], {"extra_body": {"foo": 1}}),
                (bad, ["image_url"], {"messages": image}),
                (bad, ["temperature"], {"temperature": -1}),
                (bad, ["context"], {"max_tokens": 1 << 20}),
                (bad, ["tool"], {"tools": [], "tool_choice": "required"}),
                (bad, ["wild"], {"tools": [wild]}),
                (bad, ["other"], {"tools": [tool], "tool_choice": other})):
            yield functools.partial(self.refused, error, names, self.openai.chat.completions.create,
                                    **{"model": self.small, "messages": say, **request})
        lost = [{"type": "function_call_output", "call_id": "call_none", "output": "1"}]
        for error, names, request in (
                (none, ["none"], {"model": "none"}),
                (bad, ["web_search"], {"tools": [{"type": "web_search"}]}),
                (bad, ["background"], {"background": True}),
                (bad, ["truncation"], {"truncation": "auto"}),
                (bad, ["foo"], {"extra_body": {"foo": 1}}),
                (bad, ["call_none"], {"input": lost}),
                (bad, ["resp_none"], {"previous_response_id": "resp_none"})):
            yield functools.partial(self.refused, error, names, self.openai.responses.create,
                                    **{"model": self.small, "input": "Hi", **request})
        yield functools.partial(self.refused, none, ["resp_none"], self.openai.responses.retrieve,
                                response_id="resp_none")
        yield from self.message_refusals(say)

    def lists_models(self):
        for client in (self.openai, self.anthropic):
            models = client.models.list().data
            adapter = pydantic.TypeAdapter(type(models[0]))
            names = [validated(adapter, model).id for model in models]
            expect({self.small, *self.models} <= set(names), f"the models are {names}")
            validated(adapter, client.models.retrieve(self.small))

    def message_refusals(self, say):
        image = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]
        lost = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_none", "content": "1"}]}]
        search = {"type": "web_search_20250305", "name": "web_search"}

        def refused(name, **request):
            error = anthropic.NotFoundError if name == "none" else anthropic.BadRequestError
            said = self.refused(error, [name], self.anthropic.messages.create, **request)
            self.messages_error(said, "not_found_error" if name == "none" else "invalid_request_error")

        for name, request in (("none", {"model": "none"}), ("foo", {"extra_body": {"foo": 1}}),
                              ("web_search_20250305", {"tools": [search]}), ("image", {"messages": image}),
                              ("toolu_none", {"messages": lost}), ("max_tokens", {"max_tokens": 0}),
                              ("x", {"tool_choice": {"type": "tool", "name": "x"}}),
                              ("assistant", {"messages": [*say, {"role": "assistant", "content": "The"}]})):
            yield functools.partial(refused, name, **{"model": self.small, "max_tokens": 4, "messages": say, **request})

    def messages_error(self, error, kind):
        expect(error.body["type"] == "error" and error.body["error"]["type"] == kind, f"the body is {error.body}")

    def cancels(self):
        """Streams that their client leaves after a few events, or at once."""
        say = [{"role": "user", "content": "Tell me a long story."}]
        chat = functools.partial(self.openai.chat.completions.create, messages=say, max_tokens=400)
        respond = functools.partial(self.openai.responses.create, input="Hi", max_output_tokens=400)
        talk = functools.partial(self.anthropic.messages.create, messages=say, max_tokens=400)

        def leave(call, events):
            stream = call(model=self.small, stream=True)
            for n, _ in enumerate(stream):
                if n >= events:
                    break
            stream.close()

        for i in range(24):
            yield functools.partial(leave, (chat, respond, talk)[i % 3], i % 5)

    def all(self):
        tools = [{"name": tool["function"]["name"], "description": tool["function"]["description"],
                  "parameters": tool["function"]["parameters"]} for tool in self.job_tools]
        todo = [(f"{case.api}, {case.kind}, {case.model}: {case.text[:40]!r}", lambda case=case: self.run(case))
                for case in cases.make(self.count, self.models or [self.small], self.small)]
        if self.job:
            for text, choice in (("please reset the vpn password of jdoe", "auto"), ("thanks a lot!", "auto"),
                                 ("lock out mmuster from sap", "required"), ("unlock my account", "auto"),
                                 ("new laptop for eve", "none"), ("my vpn is down, user anna", "required")):
                for api in CLIENTS:
                    for given in (False, True):
                        asked = Asked(tools=tools if given else [], choice=choice if given else "auto", most=160)
                        case = cases.Case(api, "job", self.job, text, asked)
                        todo.append((f"{api}, job {'with' if given else 'without'} tools: {text}",
                                     lambda case=case: self.run(case)))
        todo.append(("models", self.lists_models))
        todo += [(f"refusal {n}", check) for n, check in enumerate(self.refusals())]
        todo += [(f"cancel {n}", check) for n, check in enumerate(self.cancels())]
        return todo


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("models")
    parser.add_argument("--job", default="", help="a tuned model's name")
    parser.add_argument("--tools", type=pathlib.Path, help="its tools.json")
    parser.add_argument("--cases", type=int, default=230)
    parser.add_argument("--side-by-side", type=int, default=12)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    checker = Checker(options.address, options.models.split(","), options.cases)
    checker.job = options.job
    checker.job_tools = json.loads(options.tools.read_text()) if options.tools else []
    begin = time.monotonic()
    todo = [(name, check) for name, check in checker.all() if options.only in name]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.side_by_side) as pool:
        for (name, _), result in zip(todo, [pool.submit(check) for _, check in todo]):
            try:
                result.result()
            except Exception as e:  # whatever it is, the other cases go on
                failed += 1
                where = traceback.extract_tb(e.__traceback__)[-1]
                place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
                print(f"FAIL {name}: {type(e).__name__} ({place}): {str(e)[:600]}", flush=True)
    with urllib.request.urlopen(options.address + "/health") as answer:
        expect(json.load(answer)["status"] == "ok", "the server is well")
    for path, requests in sorted(checker.requests.items()):
        print(f"     {requests:4} {path}")
    print(f"{sum(checker.requests.values())} requests in {len(todo)} cases: {failed} failed, "
          f"{time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
