#!/bin/sh
# run.sh [SECONDS [TARGET...]] - builds the fuzz targets with clang and runs each for SECONDS (default 10, with --quick 3) on the seed corpus.
# The long form is SECONDS large; what crashes is left in TMPDIR as fuzz_TARGET-crash-*, new inputs are thrown away with the build.
# Without libFuzzer the corpus is replayed by a plain build. Exit 0: nothing found; 77: no compiler.
# limit: 600
set -u
here=$(cd "$(dirname "$0")" && pwd)
src=$(cd "${HV_SRC:-$here/../..}" && pwd)
seconds=${1:-10}
[ $# -eq 0 ] && [ "${HV_QUICK:-0}" = 1 ] && seconds=3
[ $# -gt 0 ] && shift
targets=${*:-frame opt tcp image}
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT INT TERM
flags="-std=gnu11 -D_GNU_SOURCE -O1 -g -fno-strict-aliasing -fno-omit-frame-pointer -I$src/src"
san=-fsanitize=address,undefined
rig="$src/tests/sim/host.c $src/tests/sim/twin.c $src/tests/sim/seg.c"
rc=0
# What all targets share is compiled once.
mkdir "$dir/o"
# shellcheck disable=SC2086
(cd "$dir/o" && clang $flags $san,fuzzer-no-link -fno-sanitize-recover=undefined -c $rig "$src"/src/stack/*.c) 2>"$dir/cc" || rm -rf "$dir/o"
for t in $targets; do
	corpus=$here/corpus/$t
	# shellcheck disable=SC2086
	if [ -d "$dir/o" ] && clang $flags $san,fuzzer -fno-sanitize-recover=undefined "$here/fuzz_$t.c" "$dir"/o/*.o -o "$dir/$t" 2>"$dir/cc"; then
		mkdir "$dir/c_$t"
		"$dir/$t" -close_fd_mask=1 -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=1500 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix="${TMPDIR:-/tmp}/fuzz_$t-" "$dir/c_$t" "$corpus" >"$dir/log" 2>&1 || { cat "$dir/log"; rc=1; }
		echo "$t: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log") inputs in $seconds s"
	elif cc $flags "$here/fuzz_$t.c" "$here/replay.c" $rig "$src"/src/stack/*.c -o "$dir/$t" 2>"$dir/cc"; then
		"$dir/$t" "$corpus"/* || rc=1
	else
		cat "$dir/cc"
		command -v cc >/dev/null 2>&1 || exit 77
		exit 1
	fi
done
exit $rc
