#!/bin/sh
# Packet scripts: each exchange in tests/script/tcp is played against src/stack, with a clock of its own, and against this kernel.
# limit: 170
set -u
prog=${HV_BUILD:-build}/pktscript
[ -x "$prog" ] || { echo "script: $prog is not built"; exit 77; }
[ -c /dev/net/tun ] || { echo "script: no /dev/net/tun"; exit 77; }
cd "${HV_SRC:-.}/tests/script" || exit 1
[ "${HV_QUICK:-0}" = 1 ] && set -- --v4
"$prog" --core tcp/*.pkt || exit 1
exec "$prog" --kernel --jobs 16 "$@" tcp/*.pkt
