/*
 * threads.c - many threads on the same few sockets: what ThreadSanitizer is to watch. Both ends run it; tsan/threads.sh starts them.
 *
 * threads serve PORT STOP             echoes TCP and UDP, a thread for each connection, until there is a file STOP
 * threads run ADDR PORT SECONDS SEED  the threads
 *
 * Each thread picks a socket and a call by chance: data calls of every kind, poll, select, epoll, options, queue lengths, SIOCATMARK (which only the
 * kernel can answer), dup and close of the copy, close and a new connection, fork. All octets of a connection have one value, so it doesn't matter who
 * sends and who reads, but one that comes out of another connection is noticed. A socket's rwlock only keeps a descriptor from being closed while another
 * thread uses it: readers don't order each other. Exits 0, or 1 with the reason; the sanitizer has an exit status of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N_TCP 10u
#define N_UDP 4u /* the second half of them connected */
#define N_ALL (N_TCP + N_UDP)
#define N_THREADS 5u
#define N_WAITERS 2u
#define PIECE 8192u

static struct slot {
	pthread_rwlock_t lock;
	int fd;
} slots[N_ALL];
static struct sockaddr_in6 to6;
static struct sockaddr_in to4;
static struct sockaddr *to;
static socklen_t to_len;
static int ep;
static _Atomic bool stop, nap; /* nap: nobody reads TCP sockets of odd numbers */
static _Atomic uint64_t octets, datagrams, renewed, forks;

static void die(const char *what)
{
	printf("threads: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static uint32_t dice(uint64_t *state, uint32_t below)
{
	*state += 0x9e3779b97f4a7c15u;
	uint64_t x = (*state ^ *state >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((x ^ x >> 31) >> 32) % below;
}

/* ---- the other end ---- */

static void *echo_tcp(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[PIECE];

	for (;;) {
		ssize_t r = recv(fd, buf, sizeof buf, 0), at = 0;
		if (r <= 0)
			break;
		while (at < r) {
			ssize_t w = send(fd, buf + at, (size_t)(r - at), MSG_NOSIGNAL);
			if (w <= 0)
				goto out;
			at += w;
		}
	}
out:
	close(fd);
	return NULL;
}

static void *echo_udp(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[2048];

	for (;;) {
		struct sockaddr_in6 from;
		socklen_t l = sizeof from;
		ssize_t r = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &l);
		if (r >= 0)
			sendto(fd, buf, (size_t)r, 0, (struct sockaddr *)&from, l);
	}
	return NULL;
}

static void detach(void *(*f)(void *), int fd)
{
	pthread_t t;

	if (pthread_create(&t, NULL, f, (void *)(intptr_t)fd) != 0)
		die("pthread_create");
	pthread_detach(t);
}

static int serve(uint16_t port, const char *end)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int one = 1, u = socket(AF_INET6, SOCK_DGRAM, 0), l = socket(AF_INET6, SOCK_STREAM, 0);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(u, (struct sockaddr *)&sa, sizeof sa) < 0 || bind(l, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(l, 100) < 0)
		die("listen");
	detach(echo_udp, u);
	detach(echo_udp, u);
	while (access(end, F_OK) != 0) {
		struct pollfd p = { l, POLLIN, 0 };
		if (poll(&p, 1, 100) <= 0)
			continue;
		int fd = accept(l, NULL, NULL);
		if (fd < 0)
			die("accept");
		detach(echo_tcp, fd);
	}
	return 0; /* the echoing threads are at work meanwhile */
}

/* ---- our end ---- */

static bool is_tcp(uint32_t i) { return i < N_TCP; }
static bool is_named(uint32_t i) { return i >= N_TCP + N_UDP / 2; }

static void check(uint32_t i, const char *p, ssize_t n)
{
	if (n > 0)
		atomic_fetch_add_explicit(is_tcp(i) ? &octets : &datagrams, is_tcp(i) ? (uint64_t)n : 1, memory_order_relaxed);
	for (ssize_t k = 0; k < n; k++)
		if (p[k] != (char)('A' + i)) {
			errno = EILSEQ;
			die("an octet of another connection");
		}
}

static void may_fail(const char *what, ssize_t r)
{
	if (r < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED && errno != ENOBUFS)
		die(what);
}

static void join_set(uint32_t i, int op)
{
	struct epoll_event ev = { .events = EPOLLIN | (i % 2 ? EPOLLET : 0u), .data.u32 = i };

	/* several threads take one socket out and put it in again */
	if (epoll_ctl(ep, op, slots[i].fd, &ev) < 0 && errno != EEXIST && errno != ENOENT)
		die("epoll_ctl");
}

/* the slot's lock is held for writing, or nobody else is there */
static void renew(uint32_t i)
{
	struct timeval tv = { 0, 2000 };
	int fd = socket(to->sa_family, is_tcp(i) ? SOCK_STREAM : SOCK_DGRAM, 0);

	if (fd < 0)
		die("socket");
	if ((is_tcp(i) || is_named(i)) && connect(fd, to, to_len) < 0)
		die("connect");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0)
		die("SO_RCVTIMEO");
	slots[i].fd = fd;
	join_set(i, EPOLL_CTL_ADD);
	atomic_fetch_add_explicit(&renewed, 1, memory_order_relaxed);
}

static void give(uint32_t i, int fd, uint64_t *rnd)
{
	char buf[PIECE];
	size_t n = 1 + dice(rnd, is_tcp(i) ? dice(rnd, 8) == 0 ? PIECE : 400 : 1200);
	struct iovec v[2] = { { buf, n / 2 }, { buf + n / 2, n - n / 2 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };

	memset(buf, 'A' + (int)i, n);
	if (!is_tcp(i) && !is_named(i)) {
		m.msg_name = to;
		m.msg_namelen = to_len;
	}
	if (m.msg_name == NULL && dice(rnd, 2) == 0)
		may_fail("send", send(fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL));
	else
		may_fail("sendmsg", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void take(uint32_t i, int fd, uint64_t *rnd)
{
	char buf[PIECE];
	struct iovec v = { buf, sizeof buf };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	int flags = (dice(rnd, 8) != 0 ? MSG_DONTWAIT : 0) | (dice(rnd, 8) == 0 ? MSG_PEEK : 0);

	if (is_tcp(i) && i % 2 != 0 && atomic_load_explicit(&nap, memory_order_relaxed)) {
		sched_yield();
		return;
	}
	ssize_t r = dice(rnd, 2) == 0 ? recv(fd, buf, sizeof buf, flags) : recvmsg(fd, &m, flags);

	may_fail("recv", r);
	if (r == 0 && is_tcp(i)) {
		errno = EPIPE;
		die("end of file");
	}
	check(i, buf, r);
}

static void ask(uint32_t i, int fd, uint64_t *rnd)
{
	static const char *const cc[] = { "cubic", "reno" };
	struct tcp_info ti;
	struct timeval tv = { 0, 1000 + (int)dice(rnd, 2000) };
	struct sockaddr_in6 sa;
	socklen_t l = sizeof ti, sl = sizeof sa;
	int v = (int)dice(rnd, 2), r = 0;
	fd_set set;

	switch (dice(rnd, 12)) {
	case 0: r = ioctl(fd, FIONREAD, &v); break;
	case 1: r = ioctl(fd, SIOCOUTQ, &v); break;
	case 2:
	case 3: r = is_tcp(i) ? ioctl(fd, SIOCATMARK, &v) : 0; break;
	case 4: r = is_tcp(i) ? getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l) : 0; break;
	case 5: r = is_tcp(i) ? setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof v) : 0; break;
	case 6: r = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); break;
	case 7: r = is_tcp(i) ? setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc[v], (socklen_t)strlen(cc[v])) : 0; break;
	case 8: r = getsockname(fd, (struct sockaddr *)&sa, &sl); break;
	case 9:
		v = 1 << (16 + v);
		r = setsockopt(fd, SOL_SOCKET, dice(rnd, 2) == 0 ? SO_RCVBUF : SO_SNDBUF, &v, sizeof v);
		break;
	case 10: r = is_tcp(i) ? setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &v, sizeof v) : 0; break;
	default:
		FD_ZERO(&set);
		FD_SET(fd, &set);
		r = select(fd + 1, &set, v ? &set : NULL, NULL, &tv);
	}
	may_fail("ask", r);
}

static void watch_some(uint64_t *rnd)
{
	struct pollfd p[4];
	uint32_t first = dice(rnd, N_ALL - 3), n = 0;

	for (; n < 4 && pthread_rwlock_tryrdlock(&slots[first + n].lock) == 0; n++)
		p[n] = (struct pollfd){ slots[first + n].fd, (short)(POLLIN | (dice(rnd, 4) == 0 ? POLLOUT : 0)), 0 };
	if (n != 0)
		may_fail("poll", poll(p, n, (int)dice(rnd, 4)));
	while (n-- > 0)
		pthread_rwlock_unlock(&slots[first + n].lock);
}

static void split(void)
{
	pid_t p = fork();

	if (p < 0)
		die("fork");
	if (p == 0)
		_exit(0);
	while (waitpid(p, NULL, 0) < 0 && errno == EINTR)
		;
	atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

static void *worker(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint32_t i = dice(&rnd, N_ALL), what = dice(&rnd, 400);
		struct slot *c = &slots[i];
		if (what == 0) {
			if (dice(&rnd, 20) == 0)
				split();
			continue;
		}
		if (what < 4) {
			if (pthread_rwlock_trywrlock(&c->lock) != 0)
				continue;
			if (dice(&rnd, 2) == 0)
				shutdown(c->fd, SHUT_RDWR);
			if (close(c->fd) < 0)
				die("close");
			renew(i);
			pthread_rwlock_unlock(&c->lock);
			continue;
		}
		if (what < 40) {
			watch_some(&rnd);
			continue;
		}
		if (pthread_rwlock_tryrdlock(&c->lock) != 0)
			continue;
		if (what < 190) {
			give(i, c->fd, &rnd);
		} else if (what < 350) {
			take(i, c->fd, &rnd);
		} else if (what < 385) {
			ask(i, c->fd, &rnd);
		} else if (what < 392) {
			int d = dup(c->fd);
			if (d < 0)
				die("dup");
			if (dice(&rnd, 2) == 0)
				give(i, d, &rnd);
			else
				take(i, d, &rnd);
			close(d);
		} else {
			join_set(i, EPOLL_CTL_DEL);
			join_set(i, EPOLL_CTL_ADD);
		}
		pthread_rwlock_unlock(&c->lock);
	}
	return NULL;
}

static void *waiter(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;
	struct epoll_event ev[8];

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		int n = epoll_wait(ep, ev, 8, (int)dice(&rnd, 5));
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int k = 0; k < n; k++) {
			uint32_t i = ev[k].data.u32;
			if (pthread_rwlock_tryrdlock(&slots[i].lock) != 0)
				continue;
			take(i, slots[i].fd, &rnd);
			pthread_rwlock_unlock(&slots[i].lock);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N_THREADS + N_WAITERS];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && strcmp(argv[1], "serve") == 0)
		return serve((uint16_t)atoi(argv[2]), argv[3]);
	if (argc != 6 || strcmp(argv[1], "run") != 0) {
		fprintf(stderr, "usage: threads serve PORT STOP | threads run ADDR PORT SECONDS SEED\n");
		return 2;
	}
	to4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3])) };
	to6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = to4.sin_port };
	bool v6 = strchr(argv[2], ':') != NULL;
	to = v6 ? (struct sockaddr *)&to6 : (struct sockaddr *)&to4;
	to_len = v6 ? sizeof to6 : sizeof to4;
	if (inet_pton(to->sa_family, argv[2], v6 ? (void *)&to6.sin6_addr : (void *)&to4.sin_addr) != 1)
		die("address");
	if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
		die("epoll_create1");
	for (uint32_t i = 0; i < N_ALL; i++) {
		pthread_rwlock_init(&slots[i].lock, NULL);
		renew(i);
	}
	uint64_t seed = (uint64_t)atoll(argv[5]) * 1000;
	for (unsigned i = 0; i < N_THREADS + N_WAITERS; i++)
		if (pthread_create(&t[i], NULL, i < N_THREADS ? worker : waiter, (void *)(uintptr_t)(seed + i)) != 0)
			die("pthread_create");
	for (int ms = (int)(atof(argv[4]) * 1000); ms > 0; ms -= 100) {
		struct timespec ts = { 0, 100000000 };
		nanosleep(&ts, NULL);
		atomic_store_explicit(&nap, ms / 100 % 5 < 2, memory_order_relaxed);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < N_THREADS + N_WAITERS; i++)
		pthread_join(t[i], NULL);
	for (uint32_t i = 0; i < N_ALL; i++)
		if (close(slots[i].fd) < 0)
			die("close");
	printf("threads: %llu octets and %llu datagrams came back, %llu sockets, %llu forks\n", (unsigned long long)octets, (unsigned long long)datagrams,
	    (unsigned long long)renewed, (unsigned long long)forks);
	return octets == 0 || datagrams == 0;
}
