#!/usr/bin/env bash
# Installs what building and testing need on Debian 12 (or a system with the same package names), builds the one
# library that no distribution packages, and leaves a stamp so that the next run is quick.
# Usage: tools/setup.sh [build|clients|test|oracle]
#   build   compilers and libraries for the program (the default)
#   clients the above and what a virtual environment needs; `make clients` makes it
#   test    compilers and libraries, GoogleTest and clang for the sanitizer and fuzzing builds
#   oracle  the above and a virtual environment in .venv with the Python oracles
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

build_packages=(g++ cmake ninja-build pkg-config ccache mold python3 python3-pip ca-certificates
  libfmt-dev nlohmann-json3-dev libsimdjson-dev libcurl4-openssl-dev libssl-dev zlib1g-dev
  libpcre2-dev libutf8proc-dev libcli11-dev libedit-dev libtomlplusplus-dev
  libboost1.81-dev libseccomp-dev libsqlite3-dev)
test_packages=(chromium openssl libgtest-dev libgmock-dev clang-19 libclang-rt-19-dev)
oracle_packages=(python3-venv)

packages=("${build_packages[@]}")
if [ "$what" = test ] || [ "$what" = oracle ]; then packages+=("${test_packages[@]}"); fi
if [ "$what" = clients ] || [ "$what" = oracle ]; then packages+=("${oracle_packages[@]}"); fi

# Any node from 18 on builds the server's page; the distribution's where there is none.
command -v npm > /dev/null || packages+=(nodejs npm)

# Where other architectures are enabled too (tools/test_arm.sh), a package may be there more than once.
missing=()
native=$(dpkg --print-architecture)
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status} ${Architecture}\n' "$package" 2>/dev/null \
    | grep -qxE "install ok installed ($native|all)" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || { echo "setup: these packages are missing and only root can install them: ${missing[*]}" >&2; exit 2; }
    sudo=sudo
  fi
  echo "setup: installing ${missing[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

tools/build_xgrammar.sh

# What the server's web page is built of. Without it the program builds all the same, and its page says how to get it.
if ! cmp -s ui/package-lock.json ui/node_modules/.stamp \
  || { [ "$what" != build ] && [ ! -d ui/node_modules/playwright-core ]; }; then
  without=(--omit=dev)
  if [ "$what" != build ]; then without=(); fi  # the driver of the browser, for tests/ui
  if (cd ui && npm ci --no-progress --loglevel=error "${without[@]}"); then
    cp ui/package-lock.json ui/node_modules/.stamp
  else
    echo "setup: the page's npm packages could not be installed, so the server will have no web page" >&2
  fi
fi

if [ "$what" = oracle ]; then
  [ -x .venv/bin/python ] || python3 -m venv .venv
  # torch first and by its exact version: any other brings gigabytes that nothing here uses.
  .venv/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
  .venv/bin/python -m pip install -q --disable-pip-version-check -r tests/oracle/requirements.txt
fi
