#!/usr/bin/env bash
# Runs the engine's and the thread pool's tests under AddressSanitizer with UndefinedBehaviorSanitizer, then under
# ThreadSanitizer, with 10,000 requests queued and cancelled at random.
# Usage: tools/sanitize.sh [requests]
set -euo pipefail
cd "$(dirname "$0")/.."
export THIMBLE_STRESS_REQUESTS=${1:-10000}
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 TSAN_OPTIONS=halt_on_error=1
for sanitizer in address,undefined thread; do
  build=build-${sanitizer%%,*}
  cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTHIMBLE_TESTS=ON \
    -DTHIMBLE_SANITIZE="$sanitizer" > /dev/null
  cmake --build "$build" -j "${JOBS:-$(nproc)}" --target test_core test_infer
  for program in test_core test_infer; do
    "$build/tests/$program" --gtest_brief=1
  done
  echo "$sanitizer: nothing found"
done
