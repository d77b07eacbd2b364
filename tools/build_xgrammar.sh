#!/usr/bin/env bash
# Builds xgrammar (grammar-constrained decoding) as a static library from its source package, once, into
# ${THIMBLE_DEPS:-~/.cache/thimble/deps}/xgrammar-VERSION, where src/calls/deps.cmake looks for it. About 150 s on two cores.
set -euo pipefail
version=0.2.8
sha256=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80
deps=${THIMBLE_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/thimble/deps}
target=$deps/xgrammar-$version
if [ -f "$target/lib/libxgrammar.a" ]; then
  echo "xgrammar $version is there: $target"
  exit 0
fi
mkdir -p "$deps"
work=$(mktemp -d "$deps/xgrammar-build-XXXXXX")
trap 'rm -rf "$work"' EXIT
python=$(command -v python3)
# Only xgrammar itself as source: with ":all:" pip would build cmake and ninja from source to read its metadata.
"$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary xgrammar -d "$work" "xgrammar==$version"
archive=$work/xgrammar-$version.tar.gz
echo "$sha256  $archive" | sha256sum -c --quiet - || {
  echo "xgrammar-$version.tar.gz is not the file that this version of Thimble was tested with (sha256 differs)" >&2
  exit 1
}
tar -xzf "$archive" -C "$work"
mkdir "$work/build"
echo 'set(XGRAMMAR_BUILD_PYTHON_BINDINGS OFF)' > "$work/build/config.cmake"
cmake -G Ninja -S "$work/xgrammar-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_FLAGS="-fPIC -fno-lto -Wno-error" -DCMAKE_CXX_FLAGS_RELEASE="-O2 -DNDEBUG" \
  -DCMAKE_INSTALL_PREFIX="$work/install" -DCMAKE_INSTALL_LIBDIR=lib > "$work/configure.log"
cmake --build "$work/build" --target xgrammar -j "${JOBS:-2}"
cmake --install "$work/build" > "$work/install.log"
mkdir -p "$work/install/share/xgrammar"
cp "$work/xgrammar-$version/LICENSE" "$work/xgrammar-$version/NOTICE" "$work/install/share/xgrammar/"
mv "$work/install" "$target"
echo "xgrammar $version built: $target"
