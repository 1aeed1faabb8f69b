#!/bin/bash
# What libhvaccel.so exports and needs, against symbols.def and the C library of this machine: every interposed name and nothing else, no name of libc's that is
# another door to an interposed function, no library but libc.
set -u
[ -f "${HV_LIB:-}" ] || { echo "the library is not built: ${HV_LIB:-HV_LIB unset}"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
same() { # DESCRIPTION EXPECTED-FILE ACTUAL-FILE
	if diff "$2" "$3"; then echo "ok: $1"; else echo "FAILED: $1 (< expected, > found)"; failed=1; fi
}

libc=$(ldd "$HV_LIB" | sed -n 's|.*libc\.so\.6 => \([^ ]*\) .*|\1|p')
[ -f "$libc" ] || { echo "where is libc?"; exit 1; }
sed -n 's/^HV_[A-Z]*(\([A-Za-z0-9_]*\).*/\1/p' "$HV_SRC/src/preload/symbols.def" | sort >"$tmp/table"
[ "$(wc -l <"$tmp/table")" -ge 90 ] || { echo "FAILED: symbols.def couldn't be read"; exit 1; }
same "no name is listed twice" <(sort -u "$tmp/table") "$tmp/table"

nm -D --defined-only "$HV_LIB" | awk '{ print $3 }' | sort >"$tmp/exported"
same "exactly the names of the table are exported, without versions" "$tmp/table" "$tmp/exported"

nm -D --defined-only "$libc" | awk '$2 ~ /[TWi]/ { v = $3; sub(/@.*/, "", $3); sub(/.*@/, "", v); print $1, $3, v }' >"$tmp/libc"
# Younger than the oldest libc that we run on; they stay stand-ins there.
young="_Fork close_range closefrom epoll_pwait2 execveat preadv2 preadv64v2 pwritev2 pwritev64v2"
comm -23 "$tmp/table" <(awk '{ print $2 }' "$tmp/libc" | sort -u) | grep -vxF "$(tr ' ' '\n' <<<"$young")" >"$tmp/unknown"
same "libc has every name" /dev/null "$tmp/unknown"

# Another name at the same address is another way in. GLIBC_PRIVATE ones are libc's own affair.
awk -v table="$tmp/table" 'BEGIN { while ((getline l < table) > 0) ours[l] = 1 }
	{ names[$1] = names[$1] " " $2; if ($3 != "GLIBC_PRIVATE") public[$2] = 1; if ($2 in ours) hit[$1] = 1 }
	END { for (a in hit) { n = split(names[a], x, " "); for (i = 1; i <= n; i++) if ((x[i] in public) && !(x[i] in ours)) print x[i] } }' "$tmp/libc" | sort -u >"$tmp/doors"
same "no other public name of libc leads to an interposed function" /dev/null "$tmp/doors"

# A fortified form of an interposed function goes past it, unless it is interposed too (or only checks and then calls a function that is none of ours).
awk '{ print $2 }' "$tmp/libc" | sed -n 's/^__\(.*\)_chk$/\1/p' | sort -u | comm -12 - "$tmp/table" | sed 's/.*/__&_chk/' | comm -23 - "$tmp/table" >"$tmp/chk"
same "every fortified form is interposed" /dev/null "$tmp/chk"

readelf -d "$HV_LIB" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vx 'ld-linux.*' >"$tmp/needed"
same "libc is the only library needed" <(echo libc.so.6) "$tmp/needed"
readelf -d "$HV_LIB" | grep -q 'FLAGS.*NOW' && echo "ok: bound at load time" || { echo "FAILED: not linked with -z now"; failed=1; }
# Thread-local storage that is allocated at first use would call malloc from hooks.
readelf -r "$HV_LIB" | grep -cE 'DTPMOD|TLSDESC' >"$tmp/dynamic-tls"
same "all thread-local storage is static" <(echo 0) "$tmp/dynamic-tls"
exit $failed
