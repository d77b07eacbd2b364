"""OpenAI's responses through openai-python."""

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from answers import Seen, expect, validated

WHOLE, EVENT = TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)


def body(asked):
    out = {"max_output_tokens": asked.most}
    if asked.tools:
        out["tools"] = [{"type": "function", "strict": True, **tool} for tool in asked.tools]
        out["parallel_tool_calls"] = asked.parallel
        out["tool_choice"] = (asked.choice if asked.choice in ("auto", "none", "required") else
                              {"type": "function", "name": asked.choice})
    if asked.schema is not None:
        out["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": asked.schema, "strict": True}}
    if asked.stop:
        out["extra_body"] = {"stop": asked.stop}
    return out


def seen_of(response):
    out = Seen(tokens=response.usage.output_tokens)
    for item in response.output:
        if item.type == "reasoning":
            out.reasoning += "".join(part.text for part in item.content)
        elif item.type == "function_call":
            out.calls.append((item.name, item.arguments))
        else:
            for part in item.content:
                out.text += part.text
                out.log_probs += [(one.token, one.logprob) for one in part.logprobs or []]
    expect(response.output_text == out.text, "output_text is the text")
    if response.status == "incomplete":
        expect(response.incomplete_details.reason == "max_output_tokens", "why it is incomplete")
        out.finish = "length"
    else:
        expect(response.status == "completed", f"status {response.status}")
        out.finish = "calls" if out.calls else "stop"
    return out


def whole(client, **request):
    answer = validated(WHOLE, client.responses.create(**request))
    return answer, [seen_of(answer)]


def streamed(client, **request):
    """What the last event holds; the events before it must tell the same."""
    told, order, final = {}, [], None
    number = 0
    for event in client.responses.create(stream=True, **request):
        validated(EVENT, event)
        expect(event.sequence_number == number, f"event {number} says that it is {event.sequence_number}")
        number += 1
        expect(final is None, f"{event.type} comes after the end")
        order.append(event.type)
        if event.type == "response.output_item.added":
            expect(event.output_index == len(told), "items come one after the other")
            told[event.output_index] = ""
        elif event.type.endswith(".delta"):
            told[event.output_index] += event.delta
        elif event.type in ("response.output_text.done", "response.reasoning_text.done"):
            expect(event.text == told[event.output_index], "deltas add up to the text")
        elif event.type == "response.function_call_arguments.done":
            expect(event.arguments == told[event.output_index], "deltas add up to the arguments")
        elif event.type in ("response.completed", "response.incomplete"):
            final = event.response
    expect(order[:2] == ["response.created", "response.in_progress"], f"begins with {order[:2]}")
    expect(final is not None, "the stream has an end")
    for name in ("output_item", "content_part"):
        expect(order.count(f"response.{name}.added") == order.count(f"response.{name}.done"), f"every {name} ends")
    expect(len(told) == len(final.output), "every item was told of")
    return [seen_of(final)]


def helped(client, **request):
    with client.responses.stream(**request) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    return seen_of(final)


def follow_up(request, answer, result):
    """The request after the calls of an answer were run, without the server's memory."""
    items = request["input"] if isinstance(request["input"], list) else [{"role": "user", "content": request["input"]}]
    return {**request, "input": [*items, *(item.to_dict() for item in answer.output), *outputs(answer, result)]}


def outputs(answer, result):
    return [{"type": "function_call_output", "call_id": item.call_id, "output": result}
            for item in answer.output if item.type == "function_call"]
