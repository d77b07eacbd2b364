"""OpenAI's chat completions and completions through openai-python."""

from typing import Literal

from openai.types import Completion, CompletionChoice
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from answers import Seen, expect, validated


class TextChunkChoice(CompletionChoice):
    """The SDK has one type for whole answers and chunks, whose choices end in the last one only."""
    finish_reason: Literal["stop", "length"] | None = None


class TextChunk(Completion):
    choices: list[TextChunkChoice]


WHOLE, CHUNK, TEXT = TypeAdapter(ChatCompletion), TypeAdapter(ChatCompletionChunk), TypeAdapter(Completion)
TEXT_CHUNK = TypeAdapter(TextChunk)
FINISH = {"stop": "stop", "length": "length", "tool_calls": "calls"}


def body(asked):
    out = {"max_tokens": asked.most}
    if asked.tools:
        out["tools"] = [{"type": "function", "function": tool} for tool in asked.tools]
        out["parallel_tool_calls"] = asked.parallel
        out["tool_choice"] = (asked.choice if asked.choice in ("auto", "none", "required") else
                              {"type": "function", "function": {"name": asked.choice}})
    if asked.schema is not None:
        out["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": asked.schema,
                                                                         "strict": True}}
    if asked.stop:
        out["stop"] = asked.stop
    return out


def log_probs_of(choice):
    return [(one.token, one.logprob) for one in (choice.logprobs.content if choice.logprobs else None) or []]


def whole(client, **request):
    """The answer, and its choices as seen."""
    answer = validated(WHOLE, client.chat.completions.create(**request))
    seen = []
    for choice in answer.choices:
        message = choice.message
        seen.append(Seen(message.content or "", getattr(message, "reasoning_content", None) or "",
                         [(call.function.name, call.function.arguments) for call in message.tool_calls or []],
                         FINISH[choice.finish_reason], 0, log_probs_of(choice)))
    seen[0].tokens = answer.usage.completion_tokens
    thought = answer.usage.completion_tokens_details.reasoning_tokens
    expect((thought > 0) == any(one.reasoning for one in seen), f"{thought} tokens of reasoning")
    expect(answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, "usage adds up")
    return answer, seen


def streamed(client, **request):
    seen, ids = {}, set()
    usage = None
    stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **request)
    for chunk in stream:
        validated(CHUNK, chunk)
        ids.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            expect(usage is None, "the usage comes last")
            one = seen.setdefault(choice.index, Seen())
            expect(not one.finish, "nothing comes after a choice's end")
            one.text += choice.delta.content or ""
            one.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or []:
                if call.index == len(one.calls):
                    expect(call.id and call.function.name, "a call begins with its id and name")
                    one.calls.append([call.function.name, ""])
                expect(call.index == len(one.calls) - 1, "calls come one after the other")
                one.calls[call.index][1] += call.function.arguments or ""
            one.log_probs += log_probs_of(choice)
            if choice.finish_reason:
                one.finish = FINISH[choice.finish_reason]
    expect(len(ids) == 1, f"one answer has the ids {ids}")
    out = [seen[index] for index in sorted(seen)]
    for one in out:
        one.calls = [tuple(call) for call in one.calls]
    out[0].tokens = usage.completion_tokens
    return out


def helped(client, **request):
    """The same through the SDK's own accumulating stream."""
    with client.chat.completions.stream(**request) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    return [(choice.message.content or "",
             [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []])
            for choice in final.choices]


def follow_up(request, answer, result):
    """The request after the calls of an answer were run."""
    message = answer.choices[0].message
    return {**request, "messages": [*request["messages"], message,
                                    *({"role": "tool", "tool_call_id": call.id, "content": result}
                                      for call in message.tool_calls)]}


def text_whole(client, **request):
    answer = validated(TEXT, client.completions.create(**request))
    return [(choice.text, choice.finish_reason) for choice in answer.choices]


def text_streamed(client, **request):
    texts, ends = {}, {}
    for chunk in client.completions.create(stream=True, **request):
        validated(TEXT_CHUNK, chunk)
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    return [(texts[index], ends[index]) for index in sorted(texts)]
