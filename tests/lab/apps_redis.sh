#!/bin/bash
# apps_redis.sh - a redis-server under the library in the VM, redis-benchmark with 50 connections at the peer, the VF going and coming; then the
# data that was written is read back and compared.
# limit: 180
set -u
. "$(dirname "$0")/lib_lab.sh"
command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || skip "redis is not installed"
moves=10 pause=1.2
[ "${HV_QUICK:-0}" = 0 ] || moves=3
lab_start
(cd "$tmp" && hv vm redis-server --port 6379 --bind 10.77.0.2 --protected-mode no --save '' --appendonly no >"$tmp/redis.log" 2>"$tmp/redis.err") &
wait_port vm 6379 || exit 1
churn $moves $pause >"$tmp/churn" 2>&1 &
c=$!
runs=0 bad=0
while kill -0 $c 2>/dev/null; do
	lab exec peer -- timeout 60 redis-benchmark -h 10.77.0.2 -c 50 -n 60000 -r 10000 -d 100 -t set,get,lpush -q >"$tmp/bench" 2>&1 || bad=$((bad + 1))
	grep -iq error "$tmp/bench" && { bad=$((bad + 1)); cat "$tmp/bench"; }
	runs=$((runs + 1))
done
wait $c
check "the VF went and came back $moves times" test $? = 0
sed 's/^/   /' "$tmp/churn"
tr '\r' '\n' <"$tmp/bench" | grep 'requests per second' | sed 's/^/   /'
check "redis-benchmark ran $runs times without error" test $bad = 0

# One connection, many keys, values compared: every reply is the right one.
cat >"$tmp/verify.py" <<'PY'
import hashlib, socket, sys
s = socket.create_connection(('10.77.0.2', 6379))
f = s.makefile('rb')
def cmd(*a):
    s.sendall(b'*%d\r\n' % len(a) + b''.join(b'$%d\r\n%s\r\n' % (len(x), x) for x in a))
def val(i): return (hashlib.sha256(b'%d' % i).hexdigest().encode() * 40)[:i % 2500 + 1]
for i in range(20000):
    cmd(b'SET', b'v%d' % i, val(i))
    assert f.readline() == b'+OK\r\n', i
for i in range(20000):
    cmd(b'GET', b'v%d' % i)
    n = int(f.readline()[1:])
    assert f.read(n + 2)[:-2] == val(i), i
print('20000 values right')
PY
churn 3 0.4 >"$tmp/churn" 2>&1 &
c=$!
check "20,000 values written and read back" lab exec peer -- timeout 100 python3 "$tmp/verify.py"
wait $c
sed 's/^/   /' "$tmp/churn"
# BGSAVE forks: clients are demoted for it, and come back to the VF when the child has written its file.
cat >"$tmp/bgsave.py" <<'PY'
import socket, time
s = socket.create_connection(('10.77.0.2', 6379))
f = s.makefile('rb')
def cmd(*a):
    s.sendall(b'*%d\r\n' % len(a) + b''.join(b'$%d\r\n%s\r\n' % (len(x), x) for x in a))
    r = f.readline()
    if r[:1] != b'$': return r
    return f.read(int(r[1:]) + 2)
def busy(sec):
    end = time.time() + sec
    while time.time() < end: assert cmd(b'PING') == b'+PONG\r\n'
busy(1)
assert cmd(b'BGSAVE').startswith(b'+Background'), 'bgsave'
while b'rdb_bgsave_in_progress:1' in cmd(b'INFO', b'persistence'): pass
busy(1)
print(s.getsockname()[1])
PY
port=$(lab exec peer -- timeout 60 python3 "$tmp/bgsave.py")
check "a client through a BGSAVE" test -n "$port"
lab exec peer -- redis-cli -h 10.77.0.2 shutdown nosave >/dev/null 2>&1
for ((i = 0; i < 200; i++)); do [ -s "$tmp/summary-vm" ] && break; sleep 0.05; done
check "nothing on redis-server's standard error" test ! -s "$tmp/redis.err"
cat "$tmp/redis.err"
check "that client was promoted again after the fork" python3 - "$tmp/summary-vm" ":$port" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    forked = False
    for e in json.loads(line)['events']:
        if not e['socket'].endswith(sys.argv[2]): continue
        forked |= e['what'] == 'demote' and 'child process' in e['why']
        if e['what'] == 'promote' and forked: sys.exit(0)
sys.exit(1)
PY
check "connections were on the VF" test "$(summary vm promotions)" -ge 50
check "the VF's loss moved some of them" test "$(summary vm demoted_because.VF_LOST)" -ge 1
check "no resets" no_resets
echo "   promotions $(summary vm promotions), demotions $(summary vm demotions), VF losses $(summary vm vf.losses)"
verdict
