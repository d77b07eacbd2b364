#!/usr/bin/env bash
# Cross-compiles the kernels and their tests for 64-bit ARM on a Debian x86-64 machine and runs them under QEMU: on a
# processor that has every instruction set, then on ones that lack the newer, which shows that the choice at run time
# keeps to what is there. With --program also the whole program: it continues a text with the 260 K-parameter model on
# every level, which must be what build/thimble (or $THIMBLE) writes on this machine's plain level.
# Usage: tools/test_arm.sh [--program]
# Installs the cross compiler, QEMU and arm64 libraries the first time. Emulation says nothing about speed.
set -euo pipefail
cd "$(dirname "$0")/.."
program=false
[ "${1:-}" = --program ] && program=true
build=$(realpath -m "${BUILD_ARM:-build-arm}")

packages=(g++-aarch64-linux-gnu qemu-user cmake ninja-build pkg-config nlohmann-json3-dev
  libfmt-dev:arm64 libssl-dev:arm64 libgtest-dev:arm64 libgmock-dev:arm64)
if $program; then
  packages+=(libcurl4-openssl-dev:arm64 zlib1g-dev:arm64 libpcre2-dev:arm64 libutf8proc-dev:arm64 libcli11-dev
    libedit-dev:arm64 libtomlplusplus-dev:arm64)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q "install ok installed" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || { echo "test_arm: only root can install: ${missing[*]}" >&2; exit 2; }
    sudo=sudo
  fi
  echo "test_arm: installing ${missing[*]}"
  $sudo dpkg --add-architecture arm64
  $sudo apt-get update -qq
  # Never in the place of the machine's own packages.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" \
    > /dev/null
fi

last_room=kernels
if $program; then
  last_room=
  # This one can't be installed beside the machine's own, so it is only unpacked.
  if [ ! -d "$build/packages/usr" ]; then
    mkdir -p "$build/packages"
    (cd "$build/packages" && apt-get download -qq libsimdjson-dev:arm64 libsimdjson14:arm64 &&
      for package in *.deb; do dpkg-deb -x "$package" .; done)
  fi
  export THIMBLE_DEPS=$build/deps
  CMAKE_TOOLCHAIN_FILE=$PWD/cmake/aarch64.cmake tools/build_xgrammar.sh
fi
cmake -G Ninja -S . -B "$build" -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DCMAKE_BUILD_TYPE=Release \
  -DTHIMBLE_TESTS=ON -DTHIMBLE_LAST_ROOM=$last_room -DCMAKE_PREFIX_PATH="$build/packages/usr" > /dev/null
targets=(test_tensor test_kernels)
if $program; then targets+=(thimble); fi
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${targets[@]}"

for cpu in max neoverse-n1 cortex-a72; do
  for test in tensor kernels; do
    echo "test_arm: $test on $cpu"
    qemu-aarch64 -cpu "$cpu" "$build/tests/test_$test" --gtest_brief=1
  done
done

$program || exit 0
stories=../shared/data/stories260K
if [ ! -d "$stories" ]; then
  echo "test_arm: no $stories, so the program was built and not run"
  exit 0
fi
python3 tests/oracle/make_stories.py "$stories" "$build/stories"
continue_text() {  # level, then the program and what runs it
  THIMBLE_CPU=$1 "${@:2}" run -m "$build/stories" -p "Once upon a time" -n 200 --greedy 2> /dev/null
}
continue_text plain "${THIMBLE:-build/thimble}" > "$build/expected.txt"
for level in plain neon neondot neonbf16; do
  continue_text "$level" qemu-aarch64 -cpu max "$build/thimble" > "$build/$level.txt"
  cmp "$build/expected.txt" "$build/$level.txt"
  echo "test_arm: $level continues the text as x86-64's plain level does ($(wc -c < "$build/$level.txt") bytes)"
done
