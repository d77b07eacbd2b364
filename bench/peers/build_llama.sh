#!/usr/bin/env bash
# Builds llama.cpp for this machine from the sdist of llama-cpp-python, which holds it whole, once.
# Prints the folder of its programs.
set -euo pipefail
version=0.3.36
root=${THIMBLE_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/thimble/deps}/llama-cpp-python-$version
if [ ! -x "$root/build/bin/llama-server" ]; then
  mkdir -p "$root"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
    "llama-cpp-python==$version" -d "$work" >&2
  tar xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
  cmake -G Ninja -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$root/build" -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF -DBUILD_SHARED_LIBS=OFF >&2
  cmake --build "$root/build" --target llama-bench llama-batched-bench llama-quantize llama-perplexity llama-server \
    -j "$(nproc)" >&2
fi
echo "$root/build/bin"
