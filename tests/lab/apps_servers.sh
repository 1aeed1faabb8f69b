#!/bin/bash
# apps_servers.sh - servers of other shapes under the library in the VM, the VF going and coming: memcached (threads), nginx (master and workers),
# Python asyncio and Node (event loops). Their clients are plain, and compare what they get.
# limit: 240
set -u
. "$(dirname "$0")/lib_lab.sh"
moves=5 pause=0.8
[ "${HV_QUICK:-0}" = 0 ] || moves=2
lab_start
head -c 24M /dev/urandom >"$tmp/blob"
sum=$(sha256sum <"$tmp/blob")

# NAME PORT CLIENT...: runs the client again and again while the VF goes and comes.
drive() {
	local name=$1 port=$2 n=0 bad=0 c
	shift 2
	wait_port vm "$port" || { echo "FAILED: $name does not listen"; failed=$((failed + 1)); return; }
	# The first connection only has the VF opened; on a busy machine that takes longer than its conversation.
	lab exec peer -- timeout 60 "$@" >"$tmp/out" 2>&1 || { bad=$((bad + 1)); sed 's/^/   /' "$tmp/out"; }
	churn $moves $pause >"$tmp/churn" 2>&1 &
	c=$!
	while kill -0 $c 2>/dev/null; do
		lab exec peer -- timeout 60 "$@" >"$tmp/out" 2>&1 || { bad=$((bad + 1)); sed 's/^/   /' "$tmp/out"; }
		n=$((n + 1))
		[ $bad -lt 3 ] || break
	done
	wait $c
	check "$name: $n runs of its client, all right, over $moves removals" test $bad = 0
	check "$name: nothing on its standard error" test ! -s "$tmp/$name.err"
	head -5 "$tmp/$name.err"
	check "$name: no resets" no_resets
	lab exec vm -- pkill -x "${proc:-$name}"
	for ((c = 0; c < 100; c++)); do lab exec vm -- pgrep -x "${proc:-$name}" >/dev/null || break; sleep 0.05; done
	echo "   promotions $(summary vm promotions), demoted because the VF went: $(summary vm demoted_because.VF_LOST)"
	check "$name: was on the VF" test "$(summary vm promotions)" -ge "${least:-1}"
	rm -f "$tmp/summary-vm"
}

cat >"$tmp/mc.py" <<'PY'
import hashlib, socket, threading, sys
def run(t, err):
    try:
        s = socket.create_connection(('10.77.0.2', 11211)); f = s.makefile('rb')
        for i in range(1500):
            v = (hashlib.sha256(b'%d/%d' % (t, i)).hexdigest() * 50).encode()[:i % 3000 + 1]
            s.sendall(b'set k%d-%d 0 0 %d\r\n' % (t, i, len(v)) + v + b'\r\n')
            assert f.readline() == b'STORED\r\n'
            s.sendall(b'get k%d-%d\r\n' % (t, i))
            n = int(f.readline().split()[3])
            assert f.read(n + 2)[:-2] == v and f.readline() == b'END\r\n'
    except Exception as e:
        err.append(repr(e))
err = []; ts = [threading.Thread(target=run, args=(t, err)) for t in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
sys.exit('\n'.join(err) if err else 0)
PY
if command -v memcached >/dev/null; then
	hv vm memcached -u root -l 10.77.0.2 -p 11211 -t 4 -m 256 2>"$tmp/memcached.err" &
	drive memcached 11211 python3 "$tmp/mc.py"
else
	echo "memcached is not installed: left out"
fi

cat >"$tmp/client.py" <<'PY'
import hashlib, http.client, sys
port, want = int(sys.argv[1]), sys.argv[2]
c = http.client.HTTPConnection('10.77.0.2', port, timeout=30)
for i in range(200):
    c.request('GET', '/small'); r = c.getresponse(); assert r.read() == b'small\n' and r.status == 200
for i in range(2):
    c.request('GET', '/blob'); r = c.getresponse(); assert hashlib.sha256(r.read()).hexdigest() == want, 'blob differs'
PY
hash=${sum%% *}
if command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; then
	mkdir -p "$tmp/www" && cp "$tmp/blob" "$tmp/www/blob" && echo small >"$tmp/www/small" && chmod -R a+rX "$tmp"
	cat >"$tmp/nginx.conf" <<-END
		daemon off; worker_processes 2; pid $tmp/nginx.pid; error_log $tmp/nginx.log; user root;
		events { worker_connections 256; }
		http { access_log off; client_body_temp_path $tmp/b; proxy_temp_path $tmp/p; fastcgi_temp_path $tmp/f; uwsgi_temp_path $tmp/u; scgi_temp_path $tmp/s;
		sendfile off; server { listen 10.77.0.2:8080; root $tmp/www; keepalive_requests 10000; } }
	END
	hv vm /usr/sbin/nginx -c "$tmp/nginx.conf" 2>"$tmp/nginx.err" &
	drive nginx 8080 python3 "$tmp/client.py" 8080 "$hash"
else
	echo "nginx is not installed: left out"
fi

cat >"$tmp/aio.py" <<'PY'
import asyncio, sys
blob = open(sys.argv[1], 'rb').read()
async def serve(r, w):
    try:
        while True:
            line = await r.readline()
            if not line: break
            while (await r.readline()).strip(): pass
            body = b'small\n' if b'/small' in line else blob
            w.write(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body); await w.drain()
    finally:
        w.close()
async def main():
    s = await asyncio.start_server(serve, '10.77.0.2', 8081)
    async with s: await s.serve_forever()
import signal
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
asyncio.run(main())
PY
hv vm python3 "$tmp/aio.py" "$tmp/blob" 2>"$tmp/asyncio.err" &
proc=python3 drive asyncio 8081 python3 "$tmp/client.py" 8081 "$hash"

if command -v node >/dev/null; then
	cat >"$tmp/srv.js" <<-'JS'
		const http = require('http'), fs = require('fs'), blob = fs.readFileSync(process.argv[2]);
		http.createServer((q, r) => r.end(q.url === '/small' ? 'small\n' : blob)).listen(8082, '10.77.0.2');
		process.on('SIGTERM', () => process.exit(0));
	JS
	hv vm node "$tmp/srv.js" "$tmp/blob" 2>"$tmp/node.err" &
	# Node may use io_uring, and then stays in the kernel
	least=0 drive node 8082 python3 "$tmp/client.py" 8082 "$hash"
else
	echo "node is not installed: left out"
fi
verdict
