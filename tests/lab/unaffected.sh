#!/bin/bash
# limit: 300
# Programs that get nothing from the library must not notice it: the same standard output, standard error and exit status as without, in every situation in
# which acceleration is impossible, and for programs that never open a socket. One line on standard error, and only one, for an invalid tunable.
set -u
. "$HV_SRC/tests/lab/lib_lab.sh"
lab_start
peer=$HV_BUILD/tests/lab/peer
# copies that an unprivileged user can reach, wherever the source tree is
chmod 755 "$tmp"
lib=$tmp/libhvaccel.so waits=$tmp/waits
cp "$HV_LIB" "$lib" && cp "$HV_BUILD/tests/lab/waits" "$waits" && chmod 755 "$lib" "$waits" || exit 1
lab exec peer "$peer" "$tmp/ctl" 2>"$tmp/peer.err" &

# same NAME WHERE CMD...: runs CMD with and without the library in WHERE (vm, or here) and compares. PRE: what stands between env and the program.
PRE=() VARS=()
same() {
	local name=$1 where=$2 run=()
	shift 2
	[ "$where" = here ] || run=(lab exec "$where" --)
	${run[@]+"${run[@]}"} ${PRE[@]+"${PRE[@]}"} "$@" >"$tmp/out.0" 2>"$tmp/err.0" </dev/null
	echo "exit status $?" >>"$tmp/out.0"
	${run[@]+"${run[@]}"} ${PRE[@]+"${PRE[@]}"} env LD_PRELOAD="$lib" ${VARS[@]+"${VARS[@]}"} "$@" >"$tmp/out.1" 2>"$tmp/err.1" </dev/null
	echo "exit status $?" >>"$tmp/out.1"
	# CPU times are the only thing that may differ
	sed -i 's/cpu [0-9.]* s user, [0-9.]* s system/cpu/' "$tmp"/err.[01]
	check "$name: output and status" diff "$tmp/out.0" "$tmp/out.1"
	check "$name: standard error" diff "$tmp/err.0" "$tmp/err.1"
}

# Traffic: a few cases of waits (hot TCP, UDP, epoll, resets).
some=(recv poll epoll-et epoll-two rst fin udp-recv udp-epoll send)
traffic() {
	same "$1" vm "$waits" "$tmp/ctl" hot "${some[@]}"
	check "$1: all cases said something" test "$(grep -c '/hot: .*=' "$tmp/out.1")" = ${#some[@]}
}

# Programs without a network, and event loops of others.
same "ls" here ls -l /usr/lib
same "bash" here bash -c 'set -e; x=$(echo one | cat | tr o 0); (exit 3) || echo "$x $?"; exec 7<>/dev/null; exec 7>&-; trap "echo bye" EXIT; wait; ulimit -n 64; ls /dev/fd/ | wc -l >/dev/null'
same "ssh -V" here ssh -V
same "apt-get --version" here apt-get --version
same "python3 asyncio" here python3 -c '
import asyncio, signal, subprocess
async def echo(r, w):
    while d := await r.read(100):
        w.write(d)
        await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = s.sockets[0].getsockname()[1]
    async def client(n):
        r, w = await asyncio.open_connection("127.0.0.1", port)
        for i in range(50):
            w.write(b"x" * n)
            await w.drain()
            assert await r.readexactly(n) == b"x" * n
        w.close()
        await w.wait_closed()
    await asyncio.gather(*(client(n) for n in range(1, 30)))
    p = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(await p.communicate(b"through cat"), p.returncode)
    try:
        await asyncio.open_connection("127.0.0.1", 1)
    except OSError as e:
        print(e.errno)
    s.close()
    await s.wait_closed()
asyncio.run(main())
print("done")'
# a set-user-ID program started with the library in its environment: ld.so ignores it (and may say so; the same with any library)
cp "$(command -v id)" "$tmp/suid-id" && chmod 4755 "$tmp/suid-id"
setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/suid-id" -u >"$tmp/out.0" 2>"$tmp/err.0"
setpriv --reuid 65534 --regid 65534 --clear-groups env LD_PRELOAD="$lib" "$tmp/suid-id" -u >"$tmp/out.1" 2>"$tmp/err.1"
check "set-user-ID program: runs" diff "$tmp/out.0" "$tmp/out.1"
check "set-user-ID program: nothing of ours is printed" bash -c "! grep -i hvaccel: '$tmp/err.1' && ! grep 'libhvaccel\[' '$tmp/err.1'"

# No acceleration possible.
VARS=(HVACCEL_VERBS=/nonexistent/libibverbs.so.1)
traffic "no rdma-core"
VARS=(HVACCEL_ENABLE=no)
traffic "switched off"
VARS=(HVACCEL_PROMOTE=never)
traffic "never"
VARS=(HVACCEL_DEVICE=nosuch0)
traffic "another device"
VARS=()

PRE=(setpriv --bounding-set -net_admin --inh-caps -net_admin)
traffic "no CAP_NET_ADMIN"
PRE=(setpriv --bounding-set -net_raw --inh-caps -net_raw)
traffic "no CAP_NET_RAW"
PRE=(setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all)
chmod 777 "$tmp" "$tmp/ctl"
traffic "no privileges at all"
# root has CAP_IPC_LOCK, to which the limit doesn't apply
PRE=(setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock prlimit --memlock=65536:65536)
traffic "64 KiB of locked memory"
PRE=(prlimit --nofile=64:64)
traffic "64 descriptors"
PRE=()

# Without a VF in the machine: another lab.
lab down
lab up --no-vf || exit 1
lab exec peer socat TCP-LISTEN:7005,fork,reuseaddr EXEC:cat 2>/dev/null &
wait_port peer 7005
same "no VF" vm bash -c 'exec 5<>/dev/tcp/10.77.0.1/7005; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i >&5; read -r x <&5; echo "$x"; done'

# Invalid tunables: one line each, and nothing else changes.
one_line() { # VARIABLE PATTERN
	env LD_PRELOAD="$lib" "$1" echo fine >"$tmp/out" 2>"$tmp/err"
	check "$1: the program runs" test "$(cat "$tmp/out")" = fine
	check "$1: one line" test "$(wc -l <"$tmp/err")" = 1
	check "$1: says $2" grep -q "^libhvaccel\[[0-9]*\]: warn: .*$2" "$tmp/err"
}
one_line HVACCEL_SPIN_US=fast 'HVACCEL_SPIN_US=fast: .*0\.\.10000000 us.*50'
one_line HVACCEL_PROMOTE=0 'HVACCEL_PROMOTE=0: .*never, always, or 1\.\.1000000.*8'
one_line HVACCEL_SPINN_US=1 'HVACCEL_SPINN_US: unknown.*HVACCEL_SPIN_US$'
verdict
