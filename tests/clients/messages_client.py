"""Anthropic's messages through its own SDK."""

import json

from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from answers import Seen, expect, validated

WHOLE, EVENT = TypeAdapter(Message), TypeAdapter(RawMessageStreamEvent)
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "calls"}
DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


def body(asked):
    out = {"max_tokens": asked.most}
    if asked.tools:
        out["tools"] = [{"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
                        for tool in asked.tools]
        kind = {"auto": "auto", "none": "none", "required": "any"}.get(asked.choice, "tool")
        out["tool_choice"] = {"type": kind}
        if kind == "tool":
            out["tool_choice"]["name"] = asked.choice
        if kind != "none":
            out["tool_choice"]["disable_parallel_tool_use"] = not asked.parallel
    if asked.schema is not None:
        out["output_config"] = {"format": {"type": "json_schema", "schema": asked.schema}}
    if asked.stop:
        out["stop_sequences"] = asked.stop
    return out


def seen_of(message, stops=()):
    out = Seen(finish=FINISH[message.stop_reason], tokens=message.usage.output_tokens)
    expect((message.stop_sequence is not None) == (message.stop_reason == "stop_sequence"), "which sequence stopped it")
    expect(message.stop_sequence is None or message.stop_sequence in stops, f"stopped by {message.stop_sequence!r}")
    for block in message.content:
        if block.type == "thinking":
            out.reasoning += block.thinking
        elif block.type == "tool_use":
            out.calls.append((block.name, json.dumps(block.input)))
        else:
            out.text += block.text
    return out


def whole(client, **request):
    answer = validated(WHOLE, client.messages.create(**request))
    return answer, [seen_of(answer, request.get("stop_sequences", ()))]


def streamed(client, **request):
    """Put together here from the bare events, whose order is checked."""
    message, blocks, open_block, usage, ended = None, [], None, None, False
    for event in client.messages.create(stream=True, **request):
        validated(EVENT, event)
        expect(not ended, f"{event.type} comes after the end")
        if event.type == "message_start":
            expect(message is None and not event.message.content, "a message begins once, and empty")
            message = event.message
        elif event.type == "content_block_start":
            expect(open_block is None and event.index == len(blocks), "blocks come one after the other")
            open_block = event.content_block
            blocks.append([open_block.type, getattr(open_block, "name", ""), ""])
        elif event.type == "content_block_delta":
            expect(open_block is not None and event.index == len(blocks) - 1, "a delta belongs to the open block")
            if event.delta.type == "signature_delta":
                expect(open_block.type == "thinking", "thinking is signed")
                continue
            expect(event.delta.type == DELTAS[open_block.type], f"{event.delta.type} in a block of {open_block.type}")
            delta = event.delta
            blocks[-1][2] += {"text_delta": lambda: delta.text, "thinking_delta": lambda: delta.thinking,
                              "input_json_delta": lambda: delta.partial_json}[delta.type]()
        elif event.type == "content_block_stop":
            expect(open_block is not None and event.index == len(blocks) - 1, "the open block ends")
            open_block = None
        elif event.type == "message_delta":
            expect(open_block is None, "all blocks have ended")
            message.stop_reason, usage = event.delta.stop_reason, event.usage
        elif event.type == "message_stop":
            ended = True
    expect(ended and usage is not None, "the message has an end")
    out = Seen(finish=FINISH[message.stop_reason], tokens=usage.output_tokens)
    for kind, name, text in blocks:
        if kind == "text":
            out.text += text
        elif kind == "thinking":
            out.reasoning += text
        elif out.finish == "length" and not complete(text):
            out.calls.append((name, "{}"))  # what the whole answer has of a call that was cut off
        else:
            out.calls.append((name, json.dumps(json.loads(text))))
    return [out]


def complete(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def helped(client, **request):
    with client.messages.stream(**request) as stream:
        for _ in stream:
            pass
        return seen_of(stream.get_final_message(), request.get("stop_sequences", ()))


def follow_up(request, answer, result):
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": result}
               for block in answer.content if block.type == "tool_use"]
    return {**request, "messages": [*request["messages"], {"role": "assistant", "content": answer.content},
                                    {"role": "user", "content": results}]}
