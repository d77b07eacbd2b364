#!/usr/bin/env bash
# No SDK at all: every API of the server with curl.
set -euo pipefail
server=${THIMBLE:-http://127.0.0.1:8080}
ask() {
  curl -sS --fail-with-body -N -H "Authorization: Bearer ${THIMBLE_KEY:-none}" -H "Content-Type: application/json" "$@"
  echo
}

ask "$server/v1/models"

ask "$server/v1/chat/completions" -d @- <<JSON
{"model": "$MODEL", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20, "stream": true}
JSON

ask "$server/v1/responses" -d @- <<JSON
{"model": "$MODEL", "input": "Ada is 36 years old.", "max_output_tokens": 100, "text": {"format": {
  "type": "json_schema", "name": "person", "schema": {
    "type": "object", "required": ["name", "age"], "additionalProperties": false,
    "properties": {"name": {"type": "string", "maxLength": 20},
                   "age": {"type": "integer", "minimum": 0, "maximum": 150}}}}}}
JSON

ask "$server/v1/messages" -d @- <<JSON
{"model": "$MODEL", "max_tokens": 100, "messages": [{"role": "user", "content": "Add 2 and 3."}],
 "tools": [{"name": "add", "input_schema": {"type": "object", "required": ["a", "b"], "additionalProperties": false,
   "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9},
                  "b": {"type": "integer", "minimum": 0, "maximum": 9}}}}],
 "tool_choice": {"type": "any", "disable_parallel_tool_use": true}}
JSON
