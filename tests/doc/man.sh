#!/bin/bash
# Manual pages: no formatter warnings; libhvaccel(7) has every tunable with range and default; each tool's page knows every option and command of its --help.
set -u
fail=0
say() { echo "$*"; fail=1; }
command -v groff >/dev/null || { echo "groff is not installed (package groff-base)"; exit 77; }

page7=$HV_BUILD/man/libhvaccel.7
[ -f "$page7" ] || { echo "$page7 was not generated"; exit 1; }
for page in "$page7" "$HV_SRC"/man/*.[1-8]; do
	[ -f "$page" ] || continue
	out=$(groff -man -Tutf8 -ww -z "$page" 2>&1)
	[ -z "$out" ] || say "$page: $out"
done

text() { groff -man -Tascii -rLL=1000n -P-c -P-b -P-o -P-u "$1" 2>/dev/null | tr -s ' \n' '  '; }
seven=$(text "$page7")
n=0
while IFS= read -r line; do
	name=$(sed 's/^HV_[A-Z]*(\([A-Z_0-9]*\),.*/\1/' <<<"$line")
	words=$(sed 's/^.*"\([^"]*\)")[^"]*$/\1/' <<<"$line")
	case $line in
	HV_INT*)
		read -r def min max unit < <(sed 's/^HV_INT([A-Z_0-9]*, *[a-z_0-9]*, *\(-\{0,1\}[0-9]*\), *\(-\{0,1\}[0-9]*\), *\(-\{0,1\}[0-9]*\), *"\([^"]*\)".*/\1 \2 \3 \4/' <<<"$line")
		want="Allowed: $min..$max $unit. Default: $def."
		;;
	HV_STR*)
		IFS='|' read -r def allowed < <(sed 's/^HV_STR([A-Z_0-9]*, *[a-z_0-9]*, *"\([^"]*\)", *"\([^"]*\)".*/\1|\2/' <<<"$line")
		want="Allowed: $allowed. Default: ${def:-empty}."
		;;
	HV_ENUM*)
		IFS=' ' read -r i list < <(sed 's/^HV_ENUM([A-Z_0-9]*, *[a-z_0-9]*, *\([0-9]*\), *"\([^"]*\)".*/\1 \2/' <<<"$line")
		want="Allowed: $list. Default: $(cut -d'|' -f$((i + 1)) <<<"$list")."
		;;
	esac
	want=" HVACCEL_$name $words $want"
	[[ $seven == *"$want"* ]] || say "the page lacks:$want"
	n=$((n + 1))
done < <(grep '^HV_' "$HV_SRC/src/base/tunables.def")
[ $n -gt 10 ] || say "only $n tunables found in tunables.def: is this test still reading it right?"

for page in "$HV_SRC"/man/*.[18]; do
	[ -f "$page" ] || continue
	tool=$(basename "${page%.*}")
	bin=$(command -v "$tool") || { say "$page describes a tool that isn't built: $tool"; continue; }
	body=$(text "$page")
	for word in $("$bin" --help 2>&1 | grep -o '^ *\(--[a-z-]*\|[a-z][a-z-]*  \|[a-z][a-z-]* [A-Z]\)' | grep -o '[a-z-]*' | sort -u); do
		[[ $body == *"$word"* ]] || say "$page lacks '$word' of $tool --help"
	done
done
[ $fail = 0 ] && echo "$n tunables described"
exit $fail
