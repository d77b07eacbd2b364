#!/usr/bin/env python3
"""Anthropic's SDK: pip install anthropic. The server speaks the Messages API, too."""

import os

from anthropic import Anthropic

client = Anthropic(base_url=os.environ.get("THIMBLE", "http://127.0.0.1:8080"),
                   api_key=os.environ.get("THIMBLE_KEY", "none"))
model = os.environ.get("MODEL") or client.models.list().data[0].id

tools = [{"name": "book_room", "description": "Books a meeting room.",
          "input_schema": {"type": "object", "required": ["room", "people"], "additionalProperties": False,
                           "properties": {"room": {"type": "string", "enum": ["north", "south"]},
                                          "people": {"type": "integer", "minimum": 1, "maximum": 20}}}}]
messages = [{"role": "user", "content": "Book the north room for five people."}]

answer = client.messages.create(model=model, max_tokens=200, messages=messages, tools=tools,
                                tool_choice={"type": "any", "disable_parallel_tool_use": True})
call = next(block for block in answer.content if block.type == "tool_use")
print(f"{call.name}({call.input})")

messages += [{"role": "assistant", "content": answer.content},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "booked"}]}]
with client.messages.stream(model=model, max_tokens=60, messages=messages) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
