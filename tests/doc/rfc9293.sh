#!/bin/bash
# rfc9293.sh - tests/rfc9293.md: every MUST and SHOULD of the RFC has exactly one row, no cell is empty, and each test that it names exists.
set -u
src=${HV_SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
doc=$src/tests/rfc9293.md
bad=0 tests=0
fail() { echo "rfc9293.md: $*"; bad=1; }

want=$({ seq -f 'MUST-%g' 69; seq -f 'SHLD-%g' 31; } | sort)
have=$(sed -n 's/^| \(MUST-[0-9]*\|SHLD-[0-9]*\) |.*/\1/p' "$doc" | sort)
[ "$want" = "$have" ] || { fail "rows missing, double or unknown:"; diff <(echo "$want") <(echo "$have"); }

while IFS= read -r row; do
	id=$(cut -d'|' -f2 <<<"$row")
	[ "$(tr -cd '|' <<<"$row" | wc -c)" = 5 ] || fail "$id: not four cells"
	grep -q '|[[:space:]]*|' <<<"$row" && fail "$id: empty cell"
	# no test: then it has to say so
	grep -q '`tests/\|Gap:' <<<"$row" || fail "$id: neither a test nor a gap"
done < <(grep -E '^\| (MUST|SHLD)-' "$doc")

while IFS= read -r ref; do
	tests=$((tests + 1))
	file=${ref%%: *} name=
	[ "$file" = "$ref" ] || name=${ref#*: }
	[ -f "$src/$file" ] || { fail "no file $file"; continue; }
	[ -z "$name" ] && continue
	# a case in a table of strings, or a function that the program really runs: defined, and mentioned once more
	if ! grep -q "\"$name\"" "$src/$file"; then
		grep -Eq "^static void $name\(" "$src/$file" && [ "$(grep -cw -- "$name" "$src/$file")" -ge 2 ] || fail "no test $name in $file"
	fi
done < <(grep -E '^\| (MUST|SHLD)-' "$doc" | grep -o '`tests/[^`]*`' | tr -d '`' | sort -u)

[ "$tests" -ge 50 ] || fail "only $tests tests named"
[ $bad = 0 ] && echo "$tests tests named, all there"
exit $bad
