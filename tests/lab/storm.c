/*
 * storm.c - many connections with checked streams both ways, moved between kernel and VF all the time. Both ends run it; lab/moves_storm.sh starts them.
 *
 * storm serve PORT CONNS OUT [SEED]            accepts that many connections, ends when all have ended
 * storm run ADDR PORT CONNS OUT SECONDS SEED   opens them, lets them work that long, ends them in order
 *
 * What moves them is what programs do: send() makes a connection hot (HVACCEL_PROMOTE=1, HVACCEL_MOVE_MIN_MS=0), ioctl(SIOCATMARK) is a call
 * that only the kernel can answer and so brings it back. A writer and a reader thread work on the same sockets. Each octet is a function of connection, direction and place in the
 * stream. OUT gets "connection sent received" of each; the other end's file must say the same. Exits 0, or 1 with the reason.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_NS 40000000000u /* nothing at all for that long: stuck */
#define PIECE 32768u

struct conn {
	int fd;
	uint32_t id;
	uint64_t sent, got;
	uint64_t rest_until;          /* reader's: left alone until then; 0 = in the epoll set */
	uint64_t quiet_ns;            /* writer's: since when the other end has everything */
	_Atomic bool live, eof, shut;
};

static struct conn *conns;
static uint32_t n_conns;
static bool serving;
static _Atomic uint32_t n_live;       /* conns that exist */
static _Atomic uint32_t n_eof;
static _Atomic uint64_t progress_ns;
static _Atomic bool stop;             /* the client's time is over */
static int ep;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what, const struct conn *c)
{
	printf("storm %s: %s", serving ? "serve" : "run", what);
	if (c != NULL)
		printf(" (connection %u, sent %llu, received %llu)", c->id, (unsigned long long)c->sent, (unsigned long long)c->got);
	printf(": %s\n", strerror(errno));
	fflush(stdout);
	_exit(1);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint32_t dice(uint64_t *state, uint32_t below)
{
	*state += 1;
	return (uint32_t)(mix(*state) >> 32) % below;
}

/* Octets [at, at + len) of a connection's stream; from_client: which of the two. */
static void stream(uint8_t *p, uint32_t id, bool from_client, uint64_t at, uint32_t len)
{
	uint64_t key = mix((uint64_t)id << 1 | from_client);

	for (uint32_t i = 0; i < len;) {
		uint64_t w = mix(key + ((at + i) >> 3));
		for (unsigned k = (at + i) & 7; k < 8 && i < len; k++)
			p[i++] = (uint8_t)(w >> (8 * k));
	}
}

static void nap(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	nanosleep(&ts, NULL);
}

static void watch(struct conn *c, int op)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = c };

	if (epoll_ctl(ep, op, c->fd, &ev) < 0)
		die("epoll_ctl", c);
}

/* ---- reader ---- */

static void take(struct conn *c, uint64_t *rnd)
{
	uint8_t buf[PIECE], want[PIECE];

	for (unsigned turn = 0; turn < 4; turn++) {
		ssize_t r = recv(c->fd, buf, 1 + dice(rnd, dice(rnd, 4) == 0 ? 64 : PIECE), MSG_DONTWAIT);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (r < 0)
			die("recv", c);
		atomic_store_explicit(&progress_ns, now_ns(), memory_order_relaxed);
		if (r == 0) {
			watch(c, EPOLL_CTL_DEL);
			atomic_store(&c->eof, true);
			atomic_fetch_add(&n_eof, 1);
			return;
		}
		stream(want, c->id, serving, c->got, (uint32_t)r);
		if (memcmp(buf, want, (size_t)r) != 0) {
			ssize_t i = 0;
			while (buf[i] == want[i])
				i++;
			c->got += (uint64_t)i;
			errno = EILSEQ;
			die("MISMATCH", c);
		}
		c->got += (uint64_t)r;
	}
}

static void *reader(void *arg)
{
	uint64_t rnd = *(uint64_t *)arg ^ 0x5eed;
	struct epoll_event ev[64];

	while (atomic_load(&n_eof) < n_conns) {
		int n = epoll_wait(ep, ev, 64, 5);
		uint64_t now = now_ns();
		if (n < 0 && errno != EINTR)
			die("epoll_wait", NULL);
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;
			if (dice(&rnd, 200) == 0 && !atomic_load(&stop)) { /* a slow reader: what comes meanwhile moves along */
				watch(c, EPOLL_CTL_DEL);
				c->rest_until = now + 20000000u + dice(&rnd, 100) * 1000000u;
				continue;
			}
			take(c, &rnd);
		}
		for (uint32_t i = 0; i < atomic_load(&n_live); i++) {
			struct conn *c = &conns[i];
			if (c->rest_until != 0 && now >= c->rest_until) {
				c->rest_until = 0;
				watch(c, EPOLL_CTL_ADD);
			}
		}
		if (now - atomic_load(&progress_ns) > STALL_NS && now > atomic_load(&progress_ns)) {
			errno = ETIME;
			for (uint32_t i = 0; i < n_conns; i++)
				if (!atomic_load(&conns[i].eof))
					printf("storm %s: connection %u has no end: sent %llu%s, received %llu, fd %d\n", serving ? "serve" : "run", conns[i].id,
					    (unsigned long long)conns[i].sent, atomic_load(&conns[i].shut) ? " and ended" : "", (unsigned long long)conns[i].got, conns[i].fd);
			die("stuck", NULL);
		}
	}
	return NULL;
}

/* ---- writer ---- */

static void give(struct conn *c, uint64_t *rnd)
{
	uint8_t buf[PIECE];
	uint32_t len = 1 + dice(rnd, dice(rnd, 16) == 0 ? PIECE : dice(rnd, 4) == 0 ? 4096 : 200);

	stream(buf, c->id, !serving, c->sent, len);
	ssize_t r = send(c->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r > 0)
		c->sent += (uint64_t)r;
	else if (r < 0 && errno != EAGAIN && errno != EINTR)
		die("send", c);
}

static void back(struct conn *c)
{
	int at;

	if (ioctl(c->fd, SIOCATMARK, &at) < 0)
		die("SIOCATMARK", c);
}

/* The second end goes out alone, when everything before it is acknowledged and the reader has had time to read it. Otherwise its kernel may get the
 * acknowledgement of the end before one of the last octets or a window update (another CPU sent it), forgets the connection, and answers the latter with a
 * reset: two plain kernels do the same. */
static bool quiet(struct conn *c)
{
	int left = 0;

	if (ioctl(c->fd, SIOCOUTQ, &left) < 0)
		die("SIOCOUTQ", c);
	if (left == 0 && c->quiet_ns == 0)
		c->quiet_ns = now_ns();
	return left == 0 && now_ns() - c->quiet_ns > 500000000u;
}

static void finish(struct conn *c)
{
	if (shutdown(c->fd, SHUT_WR) < 0)
		die("shutdown", c);
	atomic_store(&c->shut, true);
}

static void *writer(void *arg)
{
	uint64_t rnd = *(uint64_t *)arg;
	uint32_t shut = 0;

	while (shut < n_conns) {
		uint32_t n = atomic_load(&n_live), style = dice(&rnd, 8);
		bool end = atomic_load(&stop);
		for (uint32_t i = 0; i < n; i++) {
			struct conn *c = &conns[i];
			if (atomic_load(&c->shut))
				continue;
			if (serving ? atomic_load(&c->eof) : end) {
				if (serving && !quiet(c))
					continue;
				finish(c);
				shut++;
				continue;
			}
			if (style == 0 && dice(&rnd, 2) == 0)
				continue;
			give(c, &rnd);
			/* Back at once: before the move has settled, with octets under way. One pays the barrier, the others share it. */
			if (style == 1 && dice(&rnd, 16) == 0)
				back(c);
		}
		nap(style < 2 ? 1000000 : 10000000u + dice(&rnd, 25) * 1000000u);
		for (uint32_t i = 0; i < n && style != 2; i++) {
			struct conn *c = &conns[i];
			if (atomic_load(&c->shut) || dice(&rnd, 8) == 0)
				continue;
			back(c);
			if (dice(&rnd, 16) == 0)
				give(c, &rnd);
		}
	}
	return NULL;
}

/* ---- the rest ---- */

static void join_in(uint32_t i, int fd, uint32_t id)
{
	struct conn *c = &conns[i];
	int one = 1, mine = i % 3 == 0;

	c->fd = fd;
	c->id = id;
	if (mine)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	watch(c, EPOLL_CTL_ADD);
	atomic_store(&c->live, true);
	atomic_store(&n_live, i + 1);
}

static int by_id(const void *a, const void *b)
{
	const struct conn *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
	struct sockaddr_in sa4 = { .sin_family = AF_INET };
	pthread_t w, r;
	uint64_t seed;
	int one = 1;

	serving = argc >= 5 && strcmp(argv[1], "serve") == 0;
	if (!serving && argc < 8) {
		fprintf(stderr, "usage: storm serve PORT CONNS OUT [SEED] | storm run ADDR PORT CONNS OUT SECONDS SEED\n");
		return 2;
	}
	char **a = serving ? argv + 2 : argv + 3;
	int port = atoi(a[0]);
	n_conns = (uint32_t)atoi(a[1]);
	seed = mix((uint64_t)atoi(serving ? argc > 5 ? argv[5] : "1" : argv[7]) * 2 + serving);
	conns = calloc(n_conns, sizeof *conns);
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (conns == NULL || ep < 0)
		die("start", NULL);
	atomic_store(&progress_ns, now_ns());
	sa.sin6_port = sa4.sin_port = htons((uint16_t)port);
	int ls = -1;
	if (serving) { /* both families by one listener */
		ls = socket(AF_INET6, SOCK_STREAM, 0);
		setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (ls < 0 || bind(ls, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(ls, 1024) < 0)
			die("listen", NULL);
	}
	bool v6 = !serving && strchr(argv[2], ':') != NULL;
	if (!serving && inet_pton(v6 ? AF_INET6 : AF_INET, argv[2], v6 ? (void *)&sa.sin6_addr : (void *)&sa4.sin_addr) != 1)
		die("address", NULL);
	if (pthread_create(&r, NULL, reader, &seed) != 0 || pthread_create(&w, NULL, writer, &seed) != 0)
		die("threads", NULL);
	for (uint32_t i = 0; i < n_conns; i++) {
		uint32_t id = i;
		int fd = serving ? accept(ls, NULL, NULL) : socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			die(serving ? "accept" : "socket", NULL);
		if (!serving && connect(fd, v6 ? (void *)&sa : (void *)&sa4, v6 ? sizeof sa : sizeof sa4) < 0)
			die("connect", NULL);
		if (serving ? recv(fd, &id, sizeof id, MSG_WAITALL) != sizeof id : send(fd, &id, sizeof id, 0) != sizeof id)
			die("greeting", NULL);
		join_in(i, fd, id);
	}
	if (!serving) {
		nap((uint64_t)(atof(argv[6]) * 1e9));
		atomic_store(&stop, true);
	}
	pthread_join(w, NULL);
	pthread_join(r, NULL);
	for (uint32_t i = 0; i < n_conns; i++) {
		/* What is known of the round trip goes along with each move. Nothing here is slower than this by orders of magnitude. */
		struct tcp_info ti;
		socklen_t l = sizeof ti;
		if (getsockopt(conns[i].fd, IPPROTO_TCP, TCP_INFO, &ti, &l) == 0 && ti.tcpi_rtt > 5000000) {
			errno = ERANGE;
			die("a round trip of more than five seconds", &conns[i]);
		}
		if (close(conns[i].fd) < 0)
			die("close", &conns[i]);
	}
	qsort(conns, n_conns, sizeof *conns, by_id);
	FILE *f = fopen(a[2], "w");
	uint64_t octets = 0;
	for (uint32_t i = 0; f != NULL && i < n_conns; i++) {
		fprintf(f, "%u %llu %llu\n", conns[i].id, (unsigned long long)(serving ? conns[i].got : conns[i].sent), (unsigned long long)(serving ? conns[i].sent : conns[i].got));
		octets += conns[i].got;
	}
	if (f == NULL || fclose(f) != 0)
		die("results", NULL);
	printf("storm %s: %u connections, %llu octets received and checked\n", serving ? "serve" : "run", n_conns, (unsigned long long)octets);
	return 0;
}
