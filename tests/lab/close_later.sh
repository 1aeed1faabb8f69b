#!/bin/bash
# close_later.sh - a program closes an accelerated connection at a moment when the kernel can't take it back (its address is gone): close() returns at once and
# the number is free, the library keeps the connection, and when the address is back the peer gets every octet and the end.
set -u
. "$(dirname "$0")/lib_lab.sh"
export HVACCEL_PROMOTE=1
lab_start
cat >"$tmp/server.py" <<'PY'
import socket, sys, hashlib
ls = socket.create_server(('10.77.0.1', 7800))
c = ls.accept()[0]
c.settimeout(40)
while (b := c.recv(1)) != b'q':
    c.sendall(b)
sys.stdin.readline()  # the client's end first
h, n = hashlib.sha256(), 0
while True:
    b = c.recv(1 << 16)
    if not b:
        break
    h.update(b)
    n += len(b)
print(n, h.hexdigest())
PY
cat >"$tmp/client.py" <<'PY'
import socket, sys, hashlib, os, random, time
s = socket.create_connection(('10.77.0.1', 7800))
for i in range(300):  # long enough for the ring to be opened
    s.sendall(b'x')
    assert s.recv(1) == b'x'
    time.sleep(0.002)
s.sendall(b'q')
print('hot', flush=True)
sys.stdin.readline()
s.setblocking(False)
data, n = random.Random(1).randbytes(16 << 20), 0
stuck = 0
while stuck < 20:  # until nothing more goes: the peer doesn't read
    try:
        n += s.send(data[n:n + 50000])
        stuck = 0
    except BlockingIOError:
        stuck += 1
        time.sleep(0.01)
fd = s.fileno()
s.close()
try:
    os.fstat(fd)
    print('the descriptor is still open')
except OSError:
    print('closed', n, hashlib.sha256(data[:n]).hexdigest(), flush=True)
sys.stdin.readline()
PY
mkfifo "$tmp/to-server" "$tmp/to-client"
lab exec peer -- timeout 90 python3 "$tmp/server.py" <"$tmp/to-server" >"$tmp/server" 2>&1 &
srv=$!
exec 7>"$tmp/to-server"
wait_port peer 7800 || exit 1
hv vm timeout 90 python3 "$tmp/client.py" <"$tmp/to-client" >"$tmp/client" 2>"$tmp/client.err" &
cli=$!
exec 8>"$tmp/to-client"
said() { # FILE WORD
	local i
	for ((i = 0; i < 2000; i++)); do
		grep -q "^$2" "$1" && return 0
		sleep 0.02
	done
	return 1
}
check "the connection works" said "$tmp/client" hot
lab exec vm -- ip addr del 10.77.0.2/24 dev eth0 || exit 1
echo >&8
check "close() returns and the number is free" said "$tmp/client" closed
sleep 0.3 # some refusals more
lab exec vm -- ip addr add 10.77.0.2/24 dev eth0 || exit 1
echo >&7
wait $srv
check "the peer sees the end" test $? = 0
check "and every octet before it" test "closed $(cat "$tmp/server")" = "$(grep closed "$tmp/client")"
echo >&8
wait $cli
check "the program ends" test $? = 0
cat "$tmp/server" "$tmp/client" "$tmp/client.err"
check "it was the library that closed it" test "$(summary vm promotions) $(summary vm closed_later) $(summary vm closed_never)" = "1 1 0"
check "no resets" no_resets
verdict
