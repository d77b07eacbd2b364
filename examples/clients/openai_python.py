#!/usr/bin/env python3
"""openai-python: pip install openai. Asks for a call, runs it, and asks again with what came of it."""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("THIMBLE", "http://127.0.0.1:8080") + "/v1",
                api_key=os.environ.get("THIMBLE_KEY", "none"))
model = os.environ.get("MODEL") or client.models.list().data[0].id

tools = [{"type": "function", "function": {
    "name": "opening_hours", "description": "When a shop is open on a day.",
    "parameters": {"type": "object", "required": ["shop", "day"], "additionalProperties": False, "properties": {
        "shop": {"type": "string", "enum": ["bakery", "library"]},
        "day": {"type": "string", "enum": ["monday", "sunday"]}}}}}]
messages = [{"role": "user", "content": "When is the library open on Sunday?"}]

answer = client.chat.completions.create(model=model, messages=messages, tools=tools, tool_choice="required",
                                        parallel_tool_calls=False, temperature=0)
message = answer.choices[0].message
call = message.tool_calls[0]
arguments = json.loads(call.function.arguments)  # always fits the schema
print(f"{call.function.name}({arguments})")

messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "10:00 to 16:00"}]
for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=60, temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

# The same server speaks the Responses API, and remembers what it answered.
first = client.responses.create(model=model, input="My name is Ada.", max_output_tokens=30)
second = client.responses.create(model=model, input="What is my name?", previous_response_id=first.id,
                                 max_output_tokens=30)
print(second.output_text)
