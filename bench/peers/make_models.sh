#!/usr/bin/env bash
# The files that inference.py compares on, made once: MODEL.gguf in five types by llama-quantize, and random weights in
# the dimensions of larger models. Usage: make_models.sh LLAMA_BIN PYTHON MODEL.gguf FOLDER; prints the files' paths.
set -euo pipefail
bin=$1 python=$2 model=$3 folder=$4
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"

# Weights that were quantised once are quantised again: the speed is that of the type, the text is not looked at.
for type in Q4_0 Q4_1 Q8_0 BF16 Q4_K_M; do
  file=$folder/135m-${type,,}.gguf
  if [ ! -s "$file" ]; then
    "$bin/llama-quantize" --allow-requantize "$model" "$file.part" "$type" > "$folder/quantize.log" 2>&1 ||
      { tail -5 "$folder/quantize.log" >&2; exit 1; }
    mv "$file.part" "$file"
  fi
  echo "$file"
done
for shape in 0.5b 1.5b; do
  file=$folder/$shape-q4_0.gguf
  if [ ! -s "$file" ]; then
    "$python" "$here/make_shape.py" "$shape" "$file.part" --vocabulary "$model" > /dev/null
    mv "$file.part" "$file"
  fi
  echo "$file"
done
