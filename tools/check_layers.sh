#!/usr/bin/env bash
# Dependencies point down only: a file of one room may include headers of its own room and of those before it.
set -euo pipefail
src=${1:-src}
rooms=(core tensor kernels formats text calls data models infer train retrieve route agent eval serve cli)
declare -A rank
for i in "${!rooms[@]}"; do rank[${rooms[$i]}]=$i; done
bad=0; checked=0
while IFS=: read -r file line text; do
  room=$(echo "${file#"$src"/}" | cut -d/ -f1)
  used=$(echo "$text" | sed -n 's|.*#include "\([a-z_]*\)/.*|\1|p')
  [ -n "$used" ] || continue
  checked=$((checked + 1))
  if [ -z "${rank[$room]:-}" ] || [ -z "${rank[$used]:-}" ]; then
    echo "$file:$line: unknown room in '$text'; add it to tools/check_layers.sh and docs/dev/map.md"; bad=1
  elif [ "${rank[$used]}" -gt "${rank[$room]}" ]; then
    echo "$file:$line: $room may not use $used, which stands above it"; bad=1
  fi
done < <(grep -rn '#include "' "$src" --include='*.h' --include='*.cpp')
[ "$checked" -gt 0 ] || { echo "no includes found under $src: nothing was checked"; exit 1; }
exit $bad
