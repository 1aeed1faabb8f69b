/*
 * handoff_cases.c - one situation each: queues in every state, FIN, RST, options, failures on the way, late accepts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoff_test.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif
enum { ESTABLISHED = 1, CLOSED = 7, CLOSE_WAIT = 8 };
enum { US = 2, THEM = 1 }; /* stream numbers */

static void drop(int fd, bool on)
{
	struct sock_filter f = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog p = { 1, &f };
	int v = 0;

	if (on)
		sys(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
	else
		sys(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &v, sizeof v));
}

static void promote(struct owner *o)
{
	enum hv_move_why w = HV_MOVE_STATE;

	/* "Not now" is an answer; a thing that is certain to pass is waited for. */
	for (int i = 0; i < 5000 && (w = owner_promote(o)) != HV_MOVE_OK && !hv_move_why_permanent(w); i++)
		pause_us(1000);
	if (w != HV_MOVE_OK)
		die("%s: promotion refused: %s (%s %d)", scenario, hv_move_why_text(w), o->pk.step != NULL ? o->pk.step : "", o->pk.err);
}

static void quiet(const struct pair *c) { await(outq_of(c->s) == 0 && outq_of(c->p) == 0, "empty send queues"); }

static int system_in_a(const char *args)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "ip -n %s %s", ns_name_a, args);
	return system(cmd);
}

/* Unread, unacknowledged and unsent octets cross in both directions, for each kind of socket. */
void case_queues(void)
{
	for (enum kind k = CLIENT4; k <= ACCEPT_MAPPED; k++) {
		struct pair c = connect_pair(k, NULL);
		struct owner o;
		uint8_t b[70000];
		uint64_t rst = bench_rsts(B.ns_a) + bench_rsts(B.ns_b);

		owner_init(&o, c.s);
		put(c.s, US, 0, 1000); /* so that both ends have round trip times */
		get(c.p, US, 0, 1000);
		put(c.p, THEM, 0, 30000);
		quiet(&c); /* 30000 unread */
		drop(c.p, true);
		put(c.s, US, 1000, 50000); /* some unacknowledged, the rest unsent: the congestion window is small */
		promote(&o);
		check(o.rcv_len == 30000 && o.end - o.una == 50000);
		check(o.nxt != o.una);
		verify(THEM, 0, o.rcvq, 30000, "unread at promotion");
		verify(US, 1000, o.snd, 50000, "send queue at promotion");
		drop(c.p, false);
		await_owner(&o, o.una == o.end, "acknowledgements");
		get(c.p, US, 1000, 50000);
		check(owner_read(&o, b, 10000) == 10000);
		verify(THEM, 0, b, 10000, "owner");
		put(c.p, THEM, 30000, 20000);
		await_owner(&o, o.rcv_len == 40000, "the peer's octets");
		/* Back: 40000 unread, some in flight and lost, the rest never sent. */
		drop(c.p, true);
		gen(US, 51000, b, 70000);
		o.frozen = true;
		check(owner_write(&o, b, 70000) == 70000);
		o.nxt = o.una + 4 * o.img.snd_mss;
		must(owner_demote(&o, false));
		drop(c.p, false);
		o.frozen = false;
		get(c.s, THEM, 10000, 40000);
		get(c.p, US, 51000, 70000);
		put(c.s, US, 121000, 200000);
		get(c.p, US, 121000, 200000);
		put(c.p, THEM, 50000, 200000);
		get(c.s, THEM, 50000, 200000);
		check(bench_rsts(B.ns_a) + bench_rsts(B.ns_b) == rst);
		owner_free(&o);
		close_pair(&c);
	}
}

/* The peer's FIN meets the owner: back to the kernel, injected there; half-closed both ways works. */
void case_fin(void)
{
	for (enum kind k = CLIENT4; k <= ACCEPT_MAPPED; k++) {
		struct pair c = connect_pair(k, NULL);
		struct owner o;
		uint8_t b[16];

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		promote(&o);
		put(c.p, THEM, 0, 900);
		sys(shutdown(c.p, SHUT_WR));
		await_owner(&o, o.due_demote, "the FIN");
		check(o.rcv_len == 900);
		must(owner_demote(&o, false));
		await(state_of(c.s) == CLOSE_WAIT, "CLOSE_WAIT");
		struct pollfd p = { c.s, POLLIN | POLLRDHUP, 0 };
		check(poll(&p, 1, 0) == 1 && (p.revents & POLLRDHUP));
		get(c.s, THEM, 0, 900);
		check(sys(recv(c.s, b, sizeof b, 0)) == 0);
		put(c.s, US, 500, 5000);
		get(c.p, US, 500, 5000);
		sys(shutdown(c.s, SHUT_WR));
		check(sys(recv(c.p, b, sizeof b, 0)) == 0);
		owner_free(&o);
		close_pair(&c);
	}
}

void case_rst(void)
{
	for (enum kind k = CLIENT4; k <= ACCEPT_MAPPED; k++) {
		struct linger lg = { 1, 0 };
		struct pair c = connect_pair(k, NULL);
		struct owner o;
		uint8_t b[16];

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		promote(&o);
		put(c.p, THEM, 0, 300);
		await_owner(&o, o.rcv_len == 300, "octets");
		sys(setsockopt(c.p, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
		close(c.p);
		c.p = -1;
		await_owner(&o, o.due_demote, "the RST");
		must(owner_demote(&o, false));
		await(state_of(c.s) == CLOSED, "the reset");
		get(c.s, THEM, 0, 300); /* Linux hands out what it has first */
		check(recv(c.s, b, sizeof b, 0) == -1 && errno == ECONNRESET);
		check(send(c.s, b, sizeof b, MSG_NOSIGNAL) == -1 && errno == EPIPE);
		owner_free(&o);
		close_pair(&c);
	}
}

/* Every option reads the same after a move, a purge in between or not. */
void case_options(void)
{
	static const struct { const char *name; int level, opt, set; } opts[] = {
#define O(l, o, v) { #o, l, o, v }
		O(SOL_SOCKET, SO_REUSEADDR, 1), O(SOL_SOCKET, SO_KEEPALIVE, 1), O(SOL_SOCKET, SO_OOBINLINE, 1), O(SOL_SOCKET, SO_SNDBUF, 200000),
		O(SOL_SOCKET, SO_RCVBUF, 300000), O(SOL_SOCKET, SO_PRIORITY, 4), O(SOL_SOCKET, SO_MARK, 77), O(SOL_SOCKET, SO_RCVLOWAT, 1),
		O(SOL_SOCKET, SO_PEEK_OFF, 5), O(SOL_SOCKET, SO_BUSY_POLL, 50), O(SOL_SOCKET, SO_ZEROCOPY, 1), O(SOL_SOCKET, SO_MAX_PACING_RATE, 100000000),
		O(SOL_SOCKET, SO_ERROR, -1), O(SOL_SOCKET, SO_REUSEPORT, -1), O(SOL_SOCKET, SO_BINDTOIFINDEX, -1), O(SOL_SOCKET, 72 /* SO_BUF_LOCK */, -1),
		O(IPPROTO_IP, IP_TOS, 0x28), O(IPPROTO_IP, IP_TTL, 33), O(IPPROTO_IP, IP_MTU_DISCOVER, 2), O(IPPROTO_IP, IP_RECVERR, 1),
		O(IPPROTO_TCP, TCP_NODELAY, 1), O(IPPROTO_TCP, TCP_KEEPIDLE, 55), O(IPPROTO_TCP, TCP_KEEPINTVL, 11), O(IPPROTO_TCP, TCP_KEEPCNT, 7),
		O(IPPROTO_TCP, TCP_LINGER2, 20), O(IPPROTO_TCP, TCP_WINDOW_CLAMP, 70000), O(IPPROTO_TCP, TCP_QUICKACK, 1), O(IPPROTO_TCP, TCP_USER_TIMEOUT, 90000),
		O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 30000), O(IPPROTO_TCP, 45 /* TCP_RTO_MIN_US */, 50000), O(IPPROTO_TCP, 46 /* TCP_DELACK_MAX_US */, 20000),
		O(IPPROTO_TCP, TCP_REPAIR, -1), O(IPPROTO_TCP, TCP_MAXSEG, -1),
#undef O
	};
	enum { N = sizeof opts / sizeof opts[0] };

	for (int round = 0; round < 6; round++) {
		struct pair c = connect_pair(round % 2 == 0 ? CLIENT4 : ACCEPT4, NULL);
		struct owner o;
		struct sockaddr_in n0[2], n1[2];
		struct linger lg = { 1, 7 }, lg1;
		struct stat st0, st1;
		uint64_t ck0 = 0, ck1 = 0;
		int before[N];
		socklen_t l;
		char cc[16] = "", cc1[16] = "";

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		quiet(&c);
		for (int i = 0; i < N; i++) {
			if (opts[i].set >= 0 && round < 4) /* the last rounds: nothing set */
				sys(seti(c.s, opts[i].level, opts[i].opt, opts[i].set));
		}
		for (int i = 0; i < N; i++) /* not before all are set: IP_TOS changes SO_PRIORITY */
			before[i] = geti(c.s, opts[i].level, opts[i].opt);
		sys(setsockopt(c.s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
		l = sizeof cc;
		sys(getsockopt(c.s, IPPROTO_TCP, TCP_CONGESTION, cc, &l));
		l = sizeof ck0;
		sys(getsockopt(c.s, SOL_SOCKET, SO_COOKIE, &ck0, &l));
		l = sizeof n0[0];
		sys(getsockname(c.s, (void *)&n0[0], &l));
		sys(getpeername(c.s, (void *)&n0[1], &l));
		sys(fstat(c.s, &st0));
		for (int move = 0; move < 2; move++) {
			promote(&o);
			check(geti(c.s, SOL_SOCKET, SO_KEEPALIVE) == 0); /* its timer must rest */
			if (round >= 2) { /* settled, with a purge */
				o.pk.had_outq = true;
				await_owner(&o, o.pk.settled, "settle");
			}
			l = sizeof n1[0];
			sys(getsockname(c.s, (void *)&n1[0], &l));
			sys(getpeername(c.s, (void *)&n1[1], &l));
			check(memcmp(n0, n1, sizeof n0) == 0);
			must(owner_demote(&o, false));
		}
		for (int i = 0; i < N; i++) {
			int v = geti(c.s, opts[i].level, opts[i].opt);
			if (round >= 4 && opts[i].opt == SO_RCVBUF && opts[i].level == SOL_SOCKET && v > before[i])
				continue; /* nobody has set it: it grew with the window, as autotuning makes it */
			if (v != before[i])
				die("%s: round %d: %s was %d, is %d", scenario, round, opts[i].name, before[i], v);
		}
		l = sizeof n1[0];
		sys(getsockname(c.s, (void *)&n1[0], &l));
		sys(getpeername(c.s, (void *)&n1[1], &l));
		check(memcmp(n0, n1, sizeof n0) == 0);
		l = sizeof cc1;
		sys(getsockopt(c.s, IPPROTO_TCP, TCP_CONGESTION, cc1, &l));
		check(strcmp(cc, cc1) == 0);
		l = sizeof ck1;
		sys(getsockopt(c.s, SOL_SOCKET, SO_COOKIE, &ck1, &l));
		sys(fstat(c.s, &st1));
		check(ck0 == ck1 && st0.st_ino == st1.st_ino);
		l = sizeof lg1;
		sys(getsockopt(c.s, SOL_SOCKET, SO_LINGER, &lg1, &l));
		check(lg1.l_onoff == 1 && lg1.l_linger == 7);
		seti(c.s, SOL_SOCKET, SO_PEEK_OFF, -1);
		put(c.p, THEM, 0, 3000);
		get(c.s, THEM, 0, 3000);
		owner_free(&o);
		close_pair(&c);
	}
}

/* The way back fails: the owner goes on, nothing is answered for, and a later try succeeds. */
void case_no_route(void)
{
	/* Without an address nothing comes in either. With only the socket's mark unroutable, segments do come in while no socket has the tuple. */
	static const char *const away[] = { "addr del 10.99.0.1/24 dev ho0", "rule add fwmark 77 pref 5 unreachable" };
	static const char *const back[] = { "addr add 10.99.0.1/24 dev ho0", "rule del fwmark 77 pref 5 unreachable" };

	for (int round = 0; round < 4; round++) {
		struct pair c = connect_pair(round % 2 == 0 ? CLIENT4 : ACCEPT4, NULL);
		struct owner o;
		uint8_t b[9000];
		uint64_t rst = bench_rsts(B.ns_a), off = 0;
		int fails = 0;

		owner_init(&o, c.s);
		sys(seti(c.s, SOL_SOCKET, SO_MARK, 77));
		owner_kernel_sees(true);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		promote(&o);
		gen(US, 500, b, 9000);
		check(system_in_a(away[round / 2]) == 0);
		for (int i = 0; i < 3; i++) {
			o.frozen = true;
			check(owner_write(&o, b + off, 3000) == 3000);
			int r = owner_demote(&o, false);
			check(r < 0 && r != -EAGAIN && o.pk.parked);
			fails++;
			o.frozen = false;
			put(c.p, THEM, off, 3000); /* reaches the kernel while no socket has the tuple */
			await_owner(&o, o.rcv_len == off + 3000, "octets for the owner");
			off += 3000;
			await_owner(&o, o.una == o.end, "acknowledgements");
		}
		check(bench_rsts(B.ns_a) == rst);
		check(system_in_a(back[round / 2]) == 0);
		must(owner_demote(&o, false));
		get(c.s, THEM, 0, 9000);
		get(c.p, US, 500, 9000);
		put(c.p, THEM, 9000, 20000);
		get(c.s, THEM, 9000, 20000);
		put(c.s, US, 9500, 20000);
		get(c.p, US, 9500, 20000);
		check(fails == 3 && bench_rsts(B.ns_a) == rst);
		owner_kernel_sees(false);
		owner_free(&o);
		close_pair(&c);
	}
}

/* A promotion that is taken back, or fails for lack of room, leaves an ordinary socket with everything in it. */
void case_undo(void)
{
	struct pair c = connect_pair(CLIENT4, NULL);
	struct hv_park pk;
	struct hv_tcp_image im;
	static uint8_t buf[QUEUE];

	memset(&pk, 0, sizeof pk);
	sys(seti(c.s, SOL_SOCKET, SO_KEEPALIVE, 1));
	sys(seti(c.s, SOL_SOCKET, SO_REUSEADDR, 1));
	put(c.s, US, 0, 500);
	get(c.p, US, 0, 500);
	put(c.p, THEM, 0, 7000);
	quiet(&c);
	for (int i = 0; i < 20; i++) {
		check(hv_promote_check(c.s, &pk, &im, QUEUE) == HV_MOVE_OK);
		check(hv_promote_check(c.s, &pk, &im, 6999) == HV_MOVE_TOO_MUCH);
		check(hv_promote(c.s, &pk, &im, buf, 100) == HV_MOVE_TOO_MUCH); /* buffer too small */
		check(!pk.parked);
		check(hv_promote(c.s, &pk, &im, buf, sizeof buf) == HV_MOVE_OK);
		check(pk.parked && im.rcv_len == 7000);
		verify(THEM, (uint64_t)((i + 1) / 2) * 100, im.rcv, 7000, "image");
		if (i % 2 == 0) {
			put(c.p, THEM, 7000 + (uint64_t)i * 50, 100); /* dropped by the filter: the peer repeats it */
			pause_us(1000);
		}
		hv_promote_undo(&pk);
		check(!pk.parked && geti(c.s, IPPROTO_TCP, TCP_REPAIR) == 0 && geti(c.s, SOL_SOCKET, SO_KEEPALIVE) == 1 &&
		    geti(c.s, SOL_SOCKET, SO_REUSEADDR) == 1);
		put(c.s, US, 500 + (uint64_t)i * 100, 100);
		get(c.p, US, 500 + (uint64_t)i * 100, 100);
		if (i % 2 == 0) {
			quiet(&c);
			get(c.s, THEM, (uint64_t)i * 50, 100);
		}
	}
	hv_park_forget(&pk);
	close_pair(&c);
}

/* A forked child has a guard of its own, and its end takes nothing from the parent's. */
void case_fork(void)
{
	struct pair c = connect_pair(CLIENT4, NULL);
	struct owner o;
	int fds[16], n = hv_handoff_fds(fds, 16), status = -1;

	check(n >= 3);
	for (int i = 0; i < n; i++)
		check(fds[i] >= 64 && hv_sys_fcntl(fds[i], F_GETFD, 0) == FD_CLOEXEC);
	owner_init(&o, c.s);
	put(c.s, US, 0, 500);
	get(c.p, US, 0, 500);
	promote(&o);
	pid_t pid = sys(fork());
	if (pid == 0) {
		struct owner mine;
		struct pair d;
		for (int i = 0; i < n; i++)
			check(hv_sys_fcntl(fds[i], F_GETFD, 0) == FD_CLOEXEC);
		hv_handoff_child();
		for (int i = 0; i < n; i++)
			check(hv_sys_fcntl(fds[i], F_GETFD, 0) == -EBADF);
		must(hv_handoff_init(guard_mode, NULL));
		d = connect_pair(ACCEPT6, NULL); /* the other packet socket than the parent's */
		owner_init(&mine, d.s);
		promote(&mine);
		put(d.p, THEM, 0, 4000);
		await_owner(&mine, mine.rcv_len == 4000, "octets");
		must(owner_demote(&mine, false));
		get(d.s, THEM, 0, 4000);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	put(c.p, THEM, 0, 4000);
	await_owner(&o, o.rcv_len == 4000, "octets");
	must(owner_demote(&o, false));
	get(c.s, THEM, 0, 4000);
	put(c.s, US, 500, 4000);
	get(c.p, US, 500, 4000);
	owner_free(&o);
	close_pair(&c);
}

static enum hv_move_why asked(int fd)
{
	struct hv_park pk;
	struct hv_tcp_image im;

	memset(&pk, 0, sizeof pk);
	return hv_promote_check(fd, &pk, &im, QUEUE);
}

void case_refused(void)
{
	struct pair c = connect_pair(CLIENT4, NULL);
	int u = sys(socket(AF_INET, SOCK_DGRAM, 0)), x = sys(socket(AF_UNIX, SOCK_STREAM, 0)), t = sys(socket(AF_INET, SOCK_STREAM, 0));
	int m = socket(AF_INET, SOCK_STREAM, 262);

	check(asked(c.s) == HV_MOVE_OK);
	check(asked(u) == HV_MOVE_FAMILY && asked(x) == HV_MOVE_FAMILY && asked(t) == HV_MOVE_STATE);
	sys(listen(t, 1));
	check(asked(t) == HV_MOVE_STATE);
	check(asked(9999) == HV_MOVE_FAMILY);
	if (m >= 0)
		check(asked(m) == HV_MOVE_MPTCP);
	bench_enter(B.ns_b);
	check(asked(c.p) == HV_MOVE_FAMILY); /* of another namespace */
	bench_enter(B.ns_a);
	drop(c.s, true);
	check(asked(c.s) == HV_MOVE_OWN_FILTER);
	drop(c.s, false);
	sys(seti(c.s, IPPROTO_TCP, TCP_REPAIR, 1));
	check(asked(c.s) == HV_MOVE_REPAIR_IN_USE);
	sys(seti(c.s, IPPROTO_TCP, TCP_REPAIR, -1));
	check(asked(c.s) == HV_MOVE_OK);
	if (setsockopt(c.s, IPPROTO_IP, IP_OPTIONS, "\001\001\001\001", 4) == 0) {
		check(asked(c.s) == HV_MOVE_NO_TS_OR_OPT);
		sys(setsockopt(c.s, IPPROTO_IP, IP_OPTIONS, NULL, 0));
	}
	check(asked(c.s) == HV_MOVE_OK);
	check(sys(send(c.p, "!", 1, MSG_OOB)) == 1);
	quiet(&c);
	check(asked(c.s) == HV_MOVE_URGENT);
	close_pair(&c);
	c = connect_pair(CLIENT4, NULL);
	sys(shutdown(c.s, SHUT_RD)); /* still ESTABLISHED */
	check(state_of(c.s) == ESTABLISHED && asked(c.s) == HV_MOVE_STATE);
	close_pair(&c);
	c = connect_pair(CLIENT4, NULL);
	sys(shutdown(c.p, SHUT_WR));
	await(state_of(c.s) == CLOSE_WAIT, "the FIN");
	check(asked(c.s) == HV_MOVE_STATE);
	close_pair(&c);
	close(u);
	close(x);
	close(t);
	if (m >= 0)
		close(m);
}

/* What was in flight when the VF vanished is sent once more, at once, and counted. */
void case_lost(void)
{
	for (enum kind k = CLIENT4; k <= ACCEPT_MAPPED; k++) {
		struct pair c = connect_pair(k, NULL);
		struct owner o;
		uint8_t b[9000];
		uint64_t resent = hv_move_counters()->resent;

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		promote(&o);
		gen(US, 500, b, 9000);
		o.frozen = true; /* the frames "were posted", none left */
		check(owner_write(&o, b, 9000) == 9000);
		o.nxt = o.end;
		must(owner_demote(&o, true));
		check(hv_move_counters()->resent - resent == (9000 + o.img.snd_mss - 1) / o.img.snd_mss);
		get(c.p, US, 500, 9000);
		await(outq_of(c.s) == 0, "acknowledgements");
		put(c.s, US, 9500, 9000);
		get(c.p, US, 9500, 9000);
		owner_free(&o);
		close_pair(&c);
	}
}

/* Out-of-order octets that only the owner has: injected as segments, they are used. */
void case_ooo(void)
{
	for (enum kind k = CLIENT4; k <= ACCEPT_MAPPED; k++) {
		struct pair c = connect_pair(k, NULL);
		struct owner o;
		uint8_t b[8000];
		int inq = 0;

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		put(c.p, THEM, 0, 100);
		get(c.s, THEM, 0, 100);
		promote(&o);
		must(owner_demote(&o, false));
		/* The peer's octets 3100..8100 come before 100..3100: its own copies are not sent at all. */
		gen(THEM, 3100, b, 5000);
		struct hv_tcp_image im = o.img;
		im.snd_wnd = o.wnd;
		must(hv_inject_tcp(&im, o.rcv + 3000, o.una, 0x10, b, 5000));
		pause_us(2000);
		sys(ioctl(c.s, FIONREAD, &inq));
		check(inq == 0);
		check(owner_promote(&o) == HV_MOVE_OOO); /* and they keep it where it is */
		gen(THEM, 100, b, 3000);
		must(hv_inject_tcp(&im, o.rcv, o.una, 0x18, b, 3000));
		get(c.s, THEM, 100, 8000);
		owner_free(&o);
		/* The peer has never sent these: reset rather than let the two argue. */
		struct linger lg = { 1, 0 };
		sys(setsockopt(c.s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
		close_pair(&c);
	}
}

/* A socket that is bound to a device takes what comes in by raw socket too. */
void case_device(void)
{
	for (int six = 0; six < 2; six++) {
		struct pair c = connect_pair(six ? CLIENT6 : CLIENT4, "ho0");
		struct owner o;
		uint8_t b[16];
		uint64_t rst = bench_rsts(B.ns_a);

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		for (int i = 0; i < 5; i++) {
			promote(&o);
			put(c.p, THEM, (uint64_t)i * 1000, 1000);
			await_owner(&o, o.rcv_len == 1000, "octets");
			must(owner_demote(&o, false));
			check(geti(c.s, SOL_SOCKET, SO_BINDTOIFINDEX) == B.ifindex);
			get(c.s, THEM, (uint64_t)i * 1000, 1000);
			put(c.s, US, 500 + (uint64_t)i * 1000, 1000);
			get(c.p, US, 500 + (uint64_t)i * 1000, 1000);
		}
		promote(&o);
		sys(shutdown(c.p, SHUT_WR));
		await_owner(&o, o.due_demote, "the FIN");
		must(owner_demote(&o, false));
		check(state_of(c.s) == CLOSE_WAIT); /* by injection: the peer's own copy would take 200 ms */
		check(sys(recv(c.s, b, sizeof b, 0)) == 0);
		check(bench_rsts(B.ns_a) == rst);
		owner_free(&o);
		close_pair(&c);
	}
}

/* What a softirq that was past the filter does, on demand: the filter is lifted for a moment while the socket is parked. */
void case_late(void)
{
	for (int round = 0; round < 6; round++) {
		bool fin = round % 3 == 1, rst = round % 3 == 2, unread = round >= 3;
		struct pair c = connect_pair(round % 2 == 0 ? CLIENT4 : ACCEPT6, NULL);
		struct owner o;
		uint8_t b[16];
		uint64_t n = hv_move_counters()->late_octets, at = 0;

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		if (unread) {
			put(c.p, THEM, 0, 5000);
			quiet(&c);
			at = 5000;
		}
		owner_kernel_sees(true); /* no steal */
		promote(&o);
		o.frozen = true;
		drop(c.s, false);
		put(c.p, THEM, at, 1200);
		await(outq_of(c.p) == 0, "the parked kernel to acknowledge");
		if (fin)
			sys(shutdown(c.p, SHUT_WR));
		if (rst) {
			struct linger lg = { 1, 0 };
			sys(setsockopt(c.p, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
			close(c.p);
			c.p = -1;
		}
		if (fin || rst)
			await(state_of(c.s) != ESTABLISHED, "the parked kernel to change its state");
		if (!rst)
			drop(c.s, true);
		owner_deaf(&o); /* the frames are lost to the owner: only the late check has the octets */
		must(owner_demote(&o, false));
		owner_kernel_sees(false);
		check(hv_move_counters()->late_octets - n == 1200);
		get(c.s, THEM, 0, (size_t)at + 1200);
		if (fin) {
			await(state_of(c.s) == CLOSE_WAIT, "CLOSE_WAIT");
			check(sys(recv(c.s, b, sizeof b, 0)) == 0);
		} else if (rst) {
			check(recv(c.s, b, sizeof b, 0) == -1 && errno == ECONNRESET);
		} else {
			put(c.p, THEM, at + 1200, 3000);
			get(c.s, THEM, at + 1200, 3000);
		}
		owner_free(&o);
		close_pair(&c);
	}
}

/* The guard key goes with the connection: the same tuple can be used again soon after. */
void case_reuse(void)
{
	struct pair c = connect_pair(ACCEPT4, NULL);
	struct owner o;
	struct sockaddr_in local, to;
	socklen_t l = sizeof local;
	struct linger lg = { 1, 0 };

	bench_enter(B.ns_b);
	sys(getsockname(c.p, (void *)&local, &l));
	sys(getpeername(c.p, (void *)&to, &l));
	bench_enter(B.ns_a);
	for (int i = 0; i < 5; i++) {
		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		promote(&o);
		must(owner_demote(&o, false));
		sys(setsockopt(c.s, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
		close(c.s);
		close(c.p);
		owner_free(&o);
		for (int k = 0; hv_handoff_tick(hv_now_us()); k++) {
			check(k < 1000);
			pause_us(1000);
		}
		bench_enter(B.ns_b);
		c.p = sys(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
		sys(seti(c.p, SOL_SOCKET, SO_REUSEADDR, 1));
		sys(bind(c.p, (void *)&local, l));
		sys(seti(c.p, IPPROTO_TCP, TCP_SYNCNT, 1));
		sys(connect(c.p, (void *)&to, l)); /* swallowed if the key were still there */
		bench_enter(B.ns_a);
		c.s = sys(accept4(c.listener, NULL, NULL, SOCK_CLOEXEC));
	}
	close_pair(&c);
}

/* The parked kernel sends on from its queue; an acknowledgement of that must mean something to it after the return. */
void case_early_sent(void)
{
	for (int round = 0; round < 4; round++) {
		struct pair c = connect_pair(round % 2 == 0 ? CLIENT4 : ACCEPT6, NULL);
		struct owner o;

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		sys(seti(c.s, SOL_SOCKET, SO_MAX_PACING_RATE, 2000000)); /* 2 MB/s: the queue leaves slowly */
		put(c.s, US, 500, 60000);
		promote(&o);
		uint32_t nxt = o.nxt;
		check(o.end - nxt > 20000);
		o.frozen = true;
		if (round < 2) {
			pause_us(8000);
		} else {
			for (int i = 0; i < 40; i++) { /* longer than settle takes */
				owner_poll(&o);
				pause_us(1000);
			}
			check(hv_settle(&o.pk, o.una, o.rcv) >= 0);
		}
		sys(seti(c.s, SOL_SOCKET, SO_MAX_PACING_RATE, -1));
		must(owner_demote(&o, false));
		check((int32_t)(o.pk.sent_nxt - nxt) > 0); /* it did send */
		get(c.p, US, 500, 60000);
		await(outq_of(c.s) == 0, "acknowledgements");
		put(c.s, US, 60500, 60000);
		get(c.p, US, 60500, 60000);
		owner_free(&o);
		close_pair(&c);
	}
}

/* The parked socket as it would be if the freeze had been `back` octets ago in each direction: its numbers stand still while ours go on. */
static void rewind_parked(struct owner *o, uint32_t back)
{
	struct sockaddr_storage local, to;
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	socklen_t ll = sizeof local, lt = sizeof to;
	uint32_t rcv = o->pk.rcv_nxt - back, snd = o->pk.write_seq - back;
	int fd = o->fd;

	sys(getsockname(fd, (void *)&local, &ll));
	sys(getpeername(fd, (void *)&to, &lt));
	sys(connect(fd, &none, sizeof none));
	if (bind(fd, (void *)&local, ll) < 0)
		check(errno == EINVAL); /* still bound */
	sys(seti(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE));
	sys(setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &rcv, sizeof rcv));
	sys(seti(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
	sys(setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &snd, sizeof snd));
	sys(connect(fd, (void *)&to, lt));
	sys(seti(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE));
	o->pk.rcv_nxt = o->pk.copied_seq = rcv;
	o->pk.write_seq = o->pk.snd_una = snd;
	o->pk.sent_nxt -= back;
}

/* Gigabytes later: the frozen socket's numbers are half the number space behind, or have been overtaken. */
void case_far(void)
{
	static const uint32_t backs[] = { 0x7fffff00, 0x80000100, 0xc0000000, 0xfffff000 };

	for (unsigned i = 0; i < sizeof backs / sizeof backs[0]; i++) {
		struct pair c = connect_pair(i % 2 == 0 ? CLIENT4 : ACCEPT6, NULL);
		struct owner o;
		uint8_t b[1000];
		uint64_t rst = bench_rsts(B.ns_a) + bench_rsts(B.ns_b);

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		put(c.p, THEM, 0, 500);
		get(c.s, THEM, 0, 500);
		put(c.s, US, 500, 500); /* may be unacknowledged at the freeze: settle waits for that */
		promote(&o);
		await_owner(&o, o.pk.settled, "settle");
		check((int32_t)(o.una - o.pk.sent_nxt) >= 0);
		rewind_parked(&o, backs[i]);
		gen(US, 1000, b, sizeof b);
		check(owner_write(&o, b, sizeof b) == sizeof b);
		await_owner(&o, o.una == o.end, "its octets");
		get(c.p, US, 500, 1500);
		put(c.p, THEM, 500, 3000);
		await_owner(&o, o.rcv_len == 3000 && o.una == o.end, "traffic");
		o.frozen = true;
		gen(US, 2000, b, sizeof b);
		check(owner_write(&o, b, sizeof b) == sizeof b); /* not sent */
		must(owner_demote(&o, false));
		get(c.s, THEM, 500, 3000);
		get(c.p, US, 2000, 1000);
		put(c.p, THEM, 3500, 60000);
		get(c.s, THEM, 3500, 60000);
		put(c.s, US, 3000, 60000);
		get(c.p, US, 3000, 60000);
		check(bench_rsts(B.ns_a) + bench_rsts(B.ns_b) == rst);
		owner_free(&o);
		close_pair(&c);
	}
}

/* The round-trip time goes along, so that the kernel's first timeout is the connection's and not 1 s. What the peer answers to the demotion's probe comes
 * after the sample here: its frames are still the owner's. */
void case_rtt(void)
{
	/* us: as the stack knows them, and what the kernel may make of them (a stamp is a millisecond); 0: no time is known */
	static const struct { uint32_t srtt, rto, rtt_min, rtt_max, rto_min, rto_max; } t[] = {
		{ 57000, 257000, 56000, 60000, 256000, 260000 },
		{ 30, 200000, 1, 4000, 200000, 204000 },
		{ 57000, 900000, 56000, 60000, 256000, 260000 }, /* not longer because of it: see hv_inject_rtt() */
		{ 800000, 2400000, 799000, 803000, 2397000, 2409000 },
		{ 0, 1000000, 0, 0, 1000000, 3000000 },
	};

	for (unsigned i = 0; i < 2 * sizeof t / sizeof t[0]; i++) {
		struct pair c = connect_pair(i % 2 == 0 ? CLIENT4 : ACCEPT6, NULL);
		struct owner o;
		struct tcp_info ti;
		socklen_t l = sizeof ti;
		uint8_t b[9000];
		bool sent = i >= sizeof t / sizeof t[0];
		unsigned k = i % (sizeof t / sizeof t[0]);

		owner_init(&o, c.s);
		put(c.s, US, 0, 500);
		get(c.p, US, 0, 500);
		put(c.p, THEM, 0, 500);
		get(c.s, THEM, 0, 500);
		quiet(&c);
		promote(&o);
		await_owner(&o, o.pk.settled, "settle");
		o.frozen = true;
		if (sent) { /* "posted", and lost */
			gen(US, 500, b, sizeof b);
			check(owner_write(&o, b, sizeof b) == sizeof b);
			o.nxt = o.end;
		}
		o.img.srtt_us = t[k].srtt;
		o.img.rto_us = t[k].rto;
		o.ts_ok = true;
		must(owner_demote(&o, false));
		memset(&ti, 0, sizeof ti);
		sys(getsockopt(c.s, IPPROTO_TCP, TCP_INFO, &ti, &l));
		if (ti.tcpi_rtt < t[k].rtt_min || ti.tcpi_rtt > t[k].rtt_max || ti.tcpi_rto < t[k].rto_min || ti.tcpi_rto > t[k].rto_max)
			die("rtt: %u, %u became %u, %u", t[k].srtt, t[k].rto, ti.tcpi_rtt, ti.tcpi_rto);
		check(outq_of(c.s) == (sent ? (int)sizeof b : 0));
		if (sent)
			get(c.p, US, 500, sizeof b);
		put(c.s, US, sent ? 9500 : 500, 5000);
		get(c.p, US, sent ? 9500 : 500, 5000);
		put(c.p, THEM, 500, 5000);
		get(c.s, THEM, 500, 5000);
		owner_free(&o);
		close_pair(&c);
	}
}
