#!/bin/bash
# slow_readers.sh - 300 accelerated connections whose reader sleeps while their peers send as much as they can: one more connection works on undisturbed, and
# when the readers wake up every octet is there. Without relief (src/engine/relief.c) the sleepers hold every receive buffer of the ring.
# limit: 150
set -u
. "$(dirname "$0")/lib_lab.sh"
export HVACCEL_PROMOTE=1 HVACCEL_IDLE_MS=60000
lab_start
cat >"$tmp/common.py" <<'PY'
import hashlib, random, resource, socket
N, EACH = 300, 400000
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
def data(i):
    return random.Random(i).randbytes(EACH)
def exactly(c, n):
    b = b''
    while len(b) < n:
        p = c.recv(n - len(b))
        if not p:
            raise EOFError
        b += p
    return b
PY
cat >"$tmp/server.py" <<'PY'
from common import *
import time
ls = socket.create_server(('10.77.0.2', 7900), backlog=400)
busy = ls.accept()[0]
rounds = 0
def work(until):
    global rounds
    while True:
        m = exactly(busy, 100)
        rounds += 1
        busy.sendall(m)
        if m[:1] == until:
            return
work(b'1')  # the ring is open now
asleep = {}
for i in range(N):
    c = ls.accept()[0]
    asleep[int.from_bytes(exactly(c, 4), 'big')] = c
for k in range(4):
    for c in asleep.values():
        c.sendall(b'x')
    work(b'2')
work(b'3')  # all this time nobody reads the others
bad = 0
for i, c in asleep.items():
    if exactly(c, EACH) != data(i) or c.recv(1) != b'':
        bad += 1
time.sleep(0.5)  # as in storm.c: an end that overtakes an answer that is still under way is met with a reset, by two plain kernels too
for c in asleep.values():
    c.close()
print('server: %d rounds, %d streams of %d octets, %d wrong' % (rounds, len(asleep), EACH, bad))
PY
cat >"$tmp/client.py" <<'PY'
from common import *
import selectors, threading, time
busy = socket.create_connection(('10.77.0.2', 7900))
busy.settimeout(60)
def work(kind, n):
    for k in range(n):
        m = kind if k == n - 1 else b'.'
        m += bytes([k & 255]) * 99
        busy.sendall(m)
        if exactly(busy, 100) != m:
            raise SystemExit('the busy connection got something wrong')
for k in range(200):
    time.sleep(0.002)
    work(b'1' if k == 199 else b'.', 1)
conns = []
for i in range(N):
    c = socket.create_connection(('10.77.0.2', 7900))
    c.sendall(i.to_bytes(4, 'big'))
    conns.append(c)
for k in range(4):
    time.sleep(0.05)
    work(b'2', 1)
def push(i):
    try:
        conns[i].sendall(data(i))
        conns[i].shutdown(socket.SHUT_WR)
    except OSError as e:
        print('connection %d: %s' % (i, e))
threading.stack_size(65536 * 4)
threads = [threading.Thread(target=push, args=(i,)) for i in range(N)]
for t in threads:
    t.start()
time.sleep(2)  # they are full
work(b'3', 3000)
print('client: the busy connection is through')
for t in threads:
    t.join()
for c in conns:  # to the end: a close with unread octets is a reset
    c.settimeout(60)
    if exactly(c, 4) != b'xxxx' or c.recv(1) != b'':
        raise SystemExit('something else came back')
    c.close()
busy.close()
PY
hv vm env PYTHONPATH="$tmp" timeout 120 python3 "$tmp/server.py" >"$tmp/server" 2>&1 &
srv=$!
wait_port vm 7900 || exit 1
lab exec peer -- env PYTHONPATH="$tmp" timeout 110 python3 "$tmp/client.py" >"$tmp/client" 2>&1
check "the peers got rid of everything, the busy connection first" test $? = 0
wait $srv
check "the server's end" test $? = 0
cat "$tmp/client" "$tmp/server"
check "every octet arrived" grep -q " 300 streams of 400000 octets, 0 wrong" "$tmp/server"
check "the sleepers had been on the VF" test "$(summary vm promotions)" -ge 100
check "and gave their buffers back" test "$(summary vm demoted_because.SLOW_READER)" -ge 1
echo "   promotions $(summary vm promotions), sent back with unread octets $(summary vm demoted_because.SLOW_READER), longest demotion $(summary vm demote_us.max) us"
grep -o "\"demoted_because\":{[^}]*}" "$tmp/summary-vm" | grep -v "{}"
check "no resets" no_resets
verdict
