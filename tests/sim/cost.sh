#!/bin/sh
# The TCP core's fast path in instructions, and the memory of an idle connection: none above its limit. Counted by callgrind, so the same everywhere.
set -u
core=${HV_BUILD:-build}/bench/core
[ -x "$core" ] || { echo "cost: $core is not built"; exit 77; }
command -v python3 >/dev/null || { echo "cost: python3 is not installed"; exit 77; }
exec python3 "${HV_SRC:-.}/bench/core.py" --build "${HV_BUILD:-build}" --gate
