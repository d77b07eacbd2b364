#!/usr/bin/env bash
# Thimble beside its peers in one sitting: llama.cpp for inference, perplexity and merged models, PyTorch + PEFT for
# training, tokenizers for tokenizing.
# Needs `tools/setup.sh oracle` (make peers does it). Arguments go to inference.py, such as `--tests prefill,decode`,
# which takes minutes where all tests take an hour. Exit status 1 where a bar is missed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
python=.venv/bin/python
llama_version=0.3.36  # of llama-cpp-python, as in build_llama.sh
status=0

cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release > /dev/null
cmake --build "$build" --target thimble bench_train bench_tokenizer -j "$(nproc)"
model=$("$build/thimble" pull smollm2-135m-instruct)

bin=$(bench/peers/build_llama.sh)
folder=$(dirname "$(dirname "$bin")")/models
files=$(bench/peers/make_models.sh "$bin" "$python" "$model" "$folder")
small=(--model "$model") large=()
for file in $files; do
  case $file in */135m-*) small+=(--model "$file") ;; *) large+=(--model "$file") ;; esac
done
compare=(python3 bench/peers/inference.py --thimble "$build/thimble" --llama-bin "$bin")
"${compare[@]}" "${small[@]}" "$@" || status=1
"${compare[@]}" "${large[@]}" --tests prefill,decode,batch --pairs 3 "$@" || status=1
python3 bench/peers/constrained_rows.py --thimble "$build/thimble" --llama-server "$bin/llama-server" \
  --model "$model" || status=1
python3 bench/peers/serving.py --thimble "$build/thimble" --llama-server "$bin/llama-server" \
  --model "$folder/135m-q8_0.gguf" || status=1
english=../shared/data/wikitext/wiki.test.raw
if [ -f "$english" ]; then
  python3 bench/peers/perplexity.py --thimble "$build/thimble" --llama-perplexity "$bin/llama-perplexity" \
    --model "$model" --text "$english" || status=1
else
  echo "perplexity beside llama.cpp: skipped, $english is not on this machine"
fi
"$python" bench/peers/train.py --thimble-bench "$build/bench/bench_train" --model "$model" || status=1
texts=(src)
if [ -f "$english" ]; then texts+=("$english"); else echo "no $english: tokenizing English is left out" >&2; fi
"$python" bench/peers/tokenizer.py --thimble-bench "$build/bench/bench_tokenizer" --model "$model" "${texts[@]}" \
  || status=1

if ! "$python" -c 'import llama_cpp' 2> /dev/null; then
  echo "building llama-cpp-python, once (ten minutes on two cores)" >&2
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF" "$python" -m pip install -q \
    --disable-pip-version-check --no-binary llama-cpp-python "llama-cpp-python==$llama_version"
fi
"$python" bench/peers/llama_merge.py --thimble "$build/thimble" --model "$model" || status=1
exit $status
