/*
 * handoff_move.c - live connections go back and forth between the kernel and a minimal owner; what arrives is checked octet by octet.
 *
 * handoff_move [--cycles N] [--guard auto|bpf|socket] [--no-steal] NS_A NS_B DEV SCENARIO...   The namespaces exist and DEV joins them (see
 * handoff_move.sh): 10.99.0.1 and fd99::1 are ours, 10.99.0.2 and fd99::2 the peer's, a plain kernel. Exits 0, 1 or 77 (privilege is missing).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <linux/sockios.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"
#include "handoff_test.h"

#define STALL_US 20000000u /* no octet for that long: the stream is stuck */

static int cycles = 250;
const char *scenario = "", *ns_name_a;
int guard_mode;

/* ---- sockets ---- */

static const char *const kind_name[] = { "client4", "accept4", "client6", "accept6", "client-mapped", "accept-mapped" };

static int next_port = 7000;

static socklen_t addr(struct sockaddr_storage *ss, const char *ip, int port)
{
	struct sockaddr_in *a4 = (void *)ss;
	struct sockaddr_in6 *a6 = (void *)ss;

	memset(ss, 0, sizeof *ss);
	if (strchr(ip, ':') == NULL) {
		a4->sin_family = AF_INET;
		a4->sin_port = htons((uint16_t)port);
		check(inet_pton(AF_INET, ip, &a4->sin_addr) == 1);
		return sizeof *a4;
	}
	a6->sin6_family = AF_INET6;
	a6->sin6_port = htons((uint16_t)port);
	check(inet_pton(AF_INET6, ip, &a6->sin6_addr) == 1);
	return sizeof *a6;
}

int geti(int fd, int level, int name)
{
	int v = -1;
	socklen_t l = sizeof v;

	return getsockopt(fd, level, name, &v, &l) < 0 ? -1000 - errno : v;
}

int seti(int fd, int level, int name, int v) { return setsockopt(fd, level, name, &v, sizeof v); }

struct pair connect_pair(enum kind k, const char *dev)
{
	static const char *const our[] = { "10.99.0.1", "10.99.0.1", "fd99::1", "fd99::1", "10.99.0.1", "10.99.0.1" };
	static const char *const peer[] = { "10.99.0.2", "10.99.0.2", "fd99::2", "fd99::2", "10.99.0.2", "10.99.0.2" };
	bool accepts = k & 1;
	struct sockaddr_storage a;
	struct pair r;
	socklen_t l;
	int port = next_port++, one = 1;

	bench_enter(accepts ? B.ns_a : B.ns_b);
	if (k == ACCEPT_MAPPED)
		l = addr(&a, "::", port);
	else
		l = addr(&a, accepts ? our[k] : peer[k], port);
	r.listener = sys(socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	sys(setsockopt(r.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
	sys(bind(r.listener, (void *)&a, l));
	sys(listen(r.listener, 8));
	bench_enter(accepts ? B.ns_b : B.ns_a);
	l = addr(&a, k == CLIENT_MAPPED ? "::ffff:10.99.0.2" : accepts ? our[k] : peer[k], port);
	int c = sys(socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	if (dev != NULL && !accepts)
		sys(setsockopt(c, SOL_SOCKET, SO_BINDTODEVICE, dev, (socklen_t)strlen(dev)));
	/* On a busy machine a link that is up may take seconds to carry the first frame (the kernel's linkwatch waits for its lock). */
	static bool carries[2];
	bool *works = &carries[a.ss_family == AF_INET6];
	for (int i = 0; connect(c, (void *)&a, l) < 0; i++) {
		if (errno != EHOSTUNREACH || *works || i == 20)
			die("connect: %m");
		pause_us(500000);
	}
	*works = true;
	int s = sys(accept4(r.listener, NULL, NULL, SOCK_CLOEXEC));
	r.s = accepts ? s : c;
	r.p = accepts ? c : s;
	bench_enter(B.ns_a);
	return r;
}

void close_pair(struct pair *c)
{
	if (c->s >= 0)
		close(c->s);
	if (c->p >= 0)
		close(c->p);
	close(c->listener);
}

void pause_us(unsigned us)
{
	struct timespec t = { us / 1000000, (long)(us % 1000000) * 1000 };

	nanosleep(&t, NULL);
}

int state_of(int fd)
{
	struct tcp_info ti;
	socklen_t l = sizeof ti;

	sys(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l));
	return ti.tcpi_state;
}

int outq_of(int fd)
{
	int v = 0;

	sys(ioctl(fd, SIOCOUTQ, &v));
	return v;
}

/* ---- streams: octet i of stream k is known ---- */

static uint8_t octet(uint64_t k, uint64_t i)
{
	uint64_t x = (i >> 3) * 0x9e3779b97f4a7c15u + k * 0xd6e8feb86659fd93u;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 29;
	return (uint8_t)(x >> (8 * (i & 7)));
}

void gen(uint64_t k, uint64_t off, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = octet(k, off + i);
}

void verify(uint64_t k, uint64_t off, const uint8_t *p, size_t n, const char *who)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != octet(k, off + i))
			die("%s: %s: octet %llu of stream %llu is wrong", scenario, who, (unsigned long long)(off + i), (unsigned long long)k);
}

void put(int fd, uint64_t k, uint64_t off, size_t n)
{
	static uint8_t b[QUEUE];

	check(n <= sizeof b);
	gen(k, off, b, n);
	for (size_t at = 0; at < n;)
		at += (size_t)sys(send(fd, b + at, n - at, MSG_NOSIGNAL));
}

void get(int fd, uint64_t k, uint64_t off, size_t n)
{
	static uint8_t b[QUEUE];

	check(n <= sizeof b);
	for (size_t at = 0; at < n;) {
		struct pollfd p = { fd, POLLIN, 0 };
		if (poll(&p, 1, 20000) != 1)
			die("%s: %zu of %zu octets of stream %llu came", scenario, at, n, (unsigned long long)k);
		int r = sys(recv(fd, b + at, n - at, 0));
		if (r == 0)
			die("%s: end of file after %zu of %zu octets", scenario, at, n);
		at += (size_t)r;
	}
	verify(k, off, b, n, "get");
}

static uint32_t rnd(uint32_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 17;
	*s ^= *s << 5;
	return *s;
}

struct peer {
	int fd;
	_Atomic uint64_t tx, rx;
	const uint64_t *got; /* what the other end has read: no more than that ahead */
	atomic_bool stop;
	pthread_t thread;
};
#define AHEAD (256u << 10)

/* The peer: a plain program on a plain kernel. Its sends run our receive softirq on its CPU, hence the late accepts. */
static void *peer_main(void *arg)
{
	struct peer *p = arg;
	static _Thread_local uint8_t out[16384], in[65536];
	uint32_t seed = 12345, have = 0, at = 0;
	bool eof = false, closed = false;

	bench_enter(B.ns_b);
	while (!eof) {
		struct pollfd pf = { p->fd, (short)(POLLIN | (at < have ? POLLOUT : 0)), 0 };
		poll(&pf, 1, 1);
		if (at == have && !atomic_load(&p->stop) && p->tx - __atomic_load_n(p->got, __ATOMIC_RELAXED) < AHEAD) {
			have = 1 + rnd(&seed) % (rnd(&seed) % 4 == 0 ? (uint32_t)sizeof out : 1000);
			at = 0;
			gen(1, p->tx, out, have);
		}
		if (at < have) {
			ssize_t n = send(p->fd, out + at, have - at, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				die("%s: peer send: %m", scenario);
			if (n > 0) {
				at += (uint32_t)n;
				p->tx += (uint64_t)n;
			}
		} else if (!closed && atomic_load(&p->stop)) {
			sys(shutdown(p->fd, SHUT_WR));
			closed = true;
		}
		ssize_t n = recv(p->fd, in, sizeof in, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			die("%s: peer recv: %m", scenario);
		if (n > 0) {
			verify(2, p->rx, in, (size_t)n, "peer");
			p->rx += (uint64_t)n;
		}
		eof = n == 0;
		if (rnd(&seed) % 8 == 0)
			pause_us(200);
	}
	return NULL;
}

struct stream { struct owner o; struct peer peer; uint64_t tx, rx; uint32_t have, at, seed; bool stop; uint8_t out[16384]; };

/* One turn of our program: write what there is, read, sometimes leave octets unread. True: the peer has finished. */
static bool turn(struct stream *t)
{
	static uint8_t in[65536];
	ssize_t n = 0;

	if (t->at == t->have && !t->stop && t->tx - t->peer.rx < AHEAD) {
		t->have = 1 + rnd(&t->seed) % (rnd(&t->seed) % 4 == 0 ? (uint32_t)sizeof t->out : 800);
		t->at = 0;
		gen(2, t->tx, t->out, t->have);
	}
	if (t->at < t->have) {
		if (t->o.up) {
			n = owner_write(&t->o, t->out + t->at, t->have - t->at);
		} else {
			n = send(t->o.fd, t->out + t->at, t->have - t->at, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				die("%s: send: %m", scenario);
		}
		if (n > 0) {
			t->at += (uint32_t)n;
			t->tx += (uint64_t)n;
		}
	}
	if (t->o.up)
		owner_poll(&t->o);
	size_t want = rnd(&t->seed) % 3 == 0 ? rnd(&t->seed) % 3000 : sizeof in;
	if (want == 0)
		return false;
	n = t->o.up ? (ssize_t)owner_read(&t->o, in, (uint32_t)want) : recv(t->o.fd, in, want, MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN)
		die("%s: recv: %m", scenario);
	if (n > 0) {
		verify(1, t->rx, in, (size_t)n, "we");
		__atomic_store_n(&t->rx, t->rx + (uint64_t)n, __ATOMIC_RELAXED);
	}
	return n == 0 && !t->o.up;
}

static void run_for(struct stream *t, uint64_t us)
{
	uint64_t end = hv_now_us() + us;

	do {
		turn(t);
		struct pollfd pf[2] = { { t->o.fd, POLLIN, 0 }, { B.pkt[t->o.img.tuple.family == 6], POLLIN, 0 } };
		struct timespec ts = { 0, 100000 };
		ppoll(t->o.up ? pf + 1 : pf, 1, &ts, NULL);
	} while (hv_now_us() < end);
}

static void stuck(const struct stream *t, int moves, const char *what)
{
	const char *cmd = getenv("HANDOFF_DIAG"); /* say, ss and nstat in both namespaces */

	if (cmd != NULL && system(cmd) != 0)
		fprintf(stderr, "%s failed\n", cmd);
	die("%s: %s after %d moves: sent %llu, peer has %llu; peer sent %llu, we have %llu", scenario, what, moves, (unsigned long long)t->tx,
	    (unsigned long long)t->peer.rx, (unsigned long long)t->peer.tx, (unsigned long long)t->rx);
}

/* Traffic both ways while the connection moves `n` times there and back. */
static void stream(enum kind k, int n)
{
	struct pair c = connect_pair(k, NULL);
	struct stream *t = calloc(1, sizeof *t);
	struct hv_move_counters c0 = *hv_move_counters();
	uint64_t rst_a = bench_rsts(B.ns_a), rst_b = bench_rsts(B.ns_b), progress = hv_now_us(), seen = 0, refused[32] = { 0 };
	int moves = 0;

	check(t != NULL);
	t->seed = 99;
	owner_init(&t->o, c.s);
	t->peer.fd = c.p;
	t->peer.got = &t->rx;
	check(pthread_create(&t->peer.thread, NULL, peer_main, &t->peer) == 0);
	run_for(t, 5000);
	while (moves < n) {
		enum hv_move_why w = owner_promote(&t->o);
		if (w == HV_MOVE_OK) {
			uint32_t una = t->o.una, long_stay = rnd(&t->seed) % 8 == 0;
			uint64_t t0 = hv_now_us();
			/* Longer than the first retransmission timer, if nothing moves. */
			do
				run_for(t, long_stay ? 45000 : 500 + rnd(&t->seed) % 3000);
			while (t->o.una == una && t->o.nxt != una && hv_now_us() - t0 < 300000);
			if (t->o.due_demote)
				die("%s: FIN or RST out of nothing", scenario);
			int r = owner_demote(&t->o, false);
			if (r < 0)
				die("%s: demote: %d at %s; una %u nxt %u end %u rcv %u unread %u edge %u", scenario, r, t->o.pk.step, t->o.una, t->o.nxt, t->o.end, t->o.rcv,
				    t->o.rcv_len, t->o.edge);
			moves++;
		} else {
			if (hv_move_why_permanent(w) || w == HV_MOVE_SYSCALL)
				die("%s: promotion refused: %s (%s, %d)", scenario, hv_move_why_text(w), t->o.pk.step, t->o.pk.err);
			refused[w]++;
			if (getenv("HANDOFF_VERBOSE") != NULL)
				fprintf(stderr, "%s: not now: %s\n", scenario, hv_move_why_text(w));
		}
		run_for(t, 500 + rnd(&t->seed) % 3000);
		if (t->rx + t->peer.rx != seen) {
			seen = t->rx + t->peer.rx;
			progress = hv_now_us();
		}
		if (hv_now_us() - progress > STALL_US)
			stuck(t, moves, "no octet for a long time");
	}
	atomic_store(&t->peer.stop, true);
	t->stop = true;
	while (t->at < t->have)
		run_for(t, 1000);
	sys(shutdown(c.s, SHUT_WR));
	for (uint64_t t0 = hv_now_us(); !turn(t); ppoll(&(struct pollfd){ c.s, POLLIN, 0 }, 1, &(struct timespec){ 0, 10000000 }, NULL))
		if (hv_now_us() - t0 > STALL_US)
			stuck(t, moves, "no end of file");
	pthread_join(t->peer.thread, NULL);
	bench_enter(B.ns_a);
	check(t->rx == t->peer.tx);
	check(t->tx == t->peer.rx);
	uint64_t ra = bench_rsts(B.ns_a) - rst_a, rb = bench_rsts(B.ns_b) - rst_b;
	const struct hv_move_counters *c1 = hv_move_counters();
	printf("  %-14s %d moves, %.1f MB out, %.1f MB in; late accepts %llu, settles %llu, purges %llu, injected %llu; refused: recovery %llu ooo %llu queue %llu; "
	    "resets %llu+%llu\n", kind_name[k], moves, (double)t->tx / 1e6, (double)t->rx / 1e6, (unsigned long long)(c1->late_accepts - c0.late_accepts),
	    (unsigned long long)(c1->settles - c0.settles), (unsigned long long)(c1->purges - c0.purges), (unsigned long long)(c1->injected - c0.injected),
	    (unsigned long long)refused[HV_MOVE_RECOVERY], (unsigned long long)refused[HV_MOVE_OOO], (unsigned long long)refused[HV_MOVE_TOO_MUCH],
	    (unsigned long long)ra, (unsigned long long)rb);
	check(ra == 0 && rb == 0);
	check(c1->demotes - c0.demotes == (uint64_t)n);
	owner_free(&t->o);
	free(t);
	close_pair(&c);
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
	{ "queues", case_queues }, { "fin", case_fin }, { "rst", case_rst }, { "options", case_options }, { "no-route", case_no_route }, { "undo", case_undo },
	{ "fork", case_fork }, { "refused", case_refused }, { "lost", case_lost }, { "ooo", case_ooo }, { "device", case_device }, { "late", case_late },
	{ "reuse", case_reuse }, { "early-sent", case_early_sent }, { "far", case_far }, { "rtt", case_rtt },
};

int main(int argc, char **argv)
{
	int i = 1;
	bool steal = true;
	const char *what;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--cycles") == 0 && i + 1 < argc)
			cycles = atoi(argv[++i]);
		else if (strcmp(argv[i], "--guard") == 0 && i + 1 < argc)
			guard_mode = strcmp(argv[++i], "bpf") == 0 ? 1 : strcmp(argv[i], "socket") == 0 ? 2 : 0;
		else if (strcmp(argv[i], "--no-steal") == 0)
			steal = false;
		else
			die("unknown argument %s", argv[i]);
	}
	if (argc - i < 4)
		die("usage: handoff_move [--cycles N] [--guard auto|bpf|socket] [--no-steal] NS_A NS_B DEV SCENARIO...");
	ns_name_a = argv[i];
	bench_open(argv[i], argv[i + 1], argv[i + 2], steal);
	int r = hv_handoff_init(guard_mode, &what);
	if (r == -EPERM) {
		printf("skipped: %s is missing\n", what);
		return 77;
	}
	if (r < 0)
		die("init: %d, %s", r, what);
	check(hv_handoff_init(guard_mode, &what) == 0); /* again: nothing to do */
	printf("guard %s, kernel %s\n", hv_handoff_guard_kind(), B.steal_link >= 0 ? "bypassed" : "sees every frame");
	check(guard_mode != 1 || strcmp(hv_handoff_guard_kind(), "sk_lookup") == 0);
	check(guard_mode != 2 || strcmp(hv_handoff_guard_kind(), "socket") == 0);
	for (i += 3; i < argc; i++) {
		bool found = false;
		scenario = argv[i];
		for (unsigned k = 0; k < sizeof kind_name / sizeof kind_name[0]; k++)
			if (strcmp(argv[i], kind_name[k]) == 0) {
				stream((enum kind)k, cycles);
				found = true;
			}
		for (unsigned k = 0; k < sizeof scenarios / sizeof scenarios[0]; k++)
			if (strcmp(argv[i], scenarios[k].name) == 0) {
				scenarios[k].run();
				printf("  %-14s ok\n", argv[i]);
				found = true;
			}
		if (!found)
			die("no scenario %s", argv[i]);
	}
	hv_handoff_fini();
	return 0;
}
