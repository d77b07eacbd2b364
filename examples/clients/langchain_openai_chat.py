#!/usr/bin/env python3
"""LangChain: pip install langchain-openai. Tools, an answer in a given form, and a stream."""

import os
from typing import Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

llm = ChatOpenAI(base_url=os.environ.get("THIMBLE", "http://127.0.0.1:8080") + "/v1",
                 api_key=os.environ.get("THIMBLE_KEY", "none"),
                 model=os.environ["MODEL"], temperature=0, max_tokens=200)


@tool
def light(room: Literal["kitchen", "hall"], on: bool) -> str:
    """Switches a light."""
    return f"the light in the {room} is {'on' if on else 'off'}"


question = HumanMessage("Switch on the light in the kitchen.")
answer = llm.bind_tools([light], tool_choice="required", parallel_tool_calls=False).invoke([question])
call = answer.tool_calls[0]
print(f"{call['name']}({call['args']})")
result = ToolMessage(light.invoke(call["args"]), tool_call_id=call["id"])
for chunk in llm.bind(max_tokens=60).stream([question, answer, result]):
    print(chunk.text, end="", flush=True)
print()


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


print(llm.with_structured_output(Person).invoke("Ada is 36 years old."))
