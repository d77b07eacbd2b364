#!/usr/bin/env bash
# Builds the fuzz targets under AddressSanitizer and UndefinedBehaviorSanitizer and runs each for some seconds, two at
# a time. What they find stays in build-fuzz/found; finds of one run are the next run's corpus (build-fuzz/corpus).
# Usage: tools/fuzz.sh [seconds] [target...]     seconds: 60; targets: all, or names such as gguf
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
compiler=$(command -v clang++-19 || command -v clang++) || { echo "fuzz: clang++-19 is missing; run tools/setup.sh test" >&2; exit 2; }
build=${BUILD_FUZZ:-build-fuzz}
cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER="$compiler" -DTHIMBLE_FUZZ=ON > /dev/null
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for source in tests/fuzz/*_fuzz.cpp; do names+=("$(basename "$source" _fuzz.cpp)"); done
fi
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${names[@]/#/fuzz_}"
mkdir -p "$build/found" "$build/logs"

run_one() {
  name=$1; build=$2; seconds=$3
  mkdir -p "$build/corpus/$name"
  seeds=tests/fuzz/corpus/$name
  [ -d "$seeds" ] || seeds=
  log=$build/logs/$name.log
  if UBSAN_OPTIONS=print_stacktrace=1 "$(find "$build" -name "fuzz_$name" -type f | head -1)" \
      -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 \
      -artifact_prefix="$build/found/$name-" "$build/corpus/$name" $seeds > "$log" 2>&1; then
    echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
  else
    tail -40 "$log"
    echo "fuzz_$name: FAILED, see $log and $build/found" >&2
    return 1
  fi
}
export -f run_one
printf '%s\n' "${names[@]}" | xargs -P 2 -I{} bash -c 'run_one {} "$0" "$1"' "$build" "$seconds"
