#!/usr/bin/env bash
# The command `llm` (pip install llm): the server's model beside those that it knows already.
set -euo pipefail
server=${THIMBLE:-http://127.0.0.1:8080}
cat > "$(dirname "$(llm logs path)")/extra-openai-models.yaml" <<YAML
- model_id: thimble
  model_name: $MODEL
  api_base: "$server/v1"
  supports_tools: true
  supports_schema: true
YAML

llm -m thimble -o max_tokens 30 -o temperature 0 "What is the capital of France?"
llm -m thimble -o max_tokens 100 --no-stream --schema 'name, age int' "Ada is 36 years old."
