/* waits_call.c - blocking receives and sends, full buffers. Conventions: drive.h. */
#include "waits.h"

#include <fcntl.h>
#include <sys/select.h>
#include <sys/uio.h>

/* ---- blocking calls ---- */

void w_recv(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "send 0 5");
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_read(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "send 0 5");
	ssize_t r = read(s.fd, b, sizeof b);
	say_in("read", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_readv(void)
{
	struct sock s = tcp_new();
	char b[64];
	struct iovec v[3] = { { b, 2 }, { b + 2, 0 }, { b + 2, 62 } };
	event_soon(&s, "send 0 5");
	ssize_t r = readv(s.fd, v, 3);
	say_in("readv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_recvmsg(void)
{
	struct sock s = tcp_new();
	char b[64];
	struct iovec v = { b, sizeof b };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	event_soon(&s, "send 0 5");
	ssize_t r = recvmsg(s.fd, &m, 0);
	say_in("recvmsg", &s, r, b, true);
	printf(" flags=%x", m.msg_flags);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_waitall(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "send 0 5; sleep 30; send 0 4; sleep 30; send 0 3");
	ssize_t r = recv(s.fd, b, 12, MSG_WAITALL);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

/* The first part is there before the move, the rest comes after it. */
void w_waitall_split(void)
{
	struct sock s = tcp_new();
	char b[64];
	peer_do(ctl, "send 0 5");
	event_soon(&s, "send 0 5");
	ssize_t r = recv(s.fd, b, 10, MSG_WAITALL);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_waitall_fin(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "send 0 5; sleep 30; fin 0");
	ssize_t r = recv(s.fd, b, 12, MSG_WAITALL);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	r = recv(s.fd, b, sizeof b, 0);
	say_in("end", &s, r, b, true);
	close(s.fd);
}

void w_peek(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "send 0 5");
	ssize_t r = recv(s.fd, b, sizeof b, MSG_PEEK);
	say_in("peek", &s, r, b, false);
	event_over(&s);
	r = recv(s.fd, b, 3, MSG_PEEK);
	say_in("peek", &s, r, b, false);
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	nothing_more(&s);
	still_alive(&s);
}

void w_dontwait(void)
{
	struct sock s = tcp_new();
	char b[64];
	ssize_t r = recv(s.fd, b, sizeof b, MSG_DONTWAIT);
	say_in("recv", &s, r, b, true);
	event_soon(&s, "send 0 5");
	event_over(&s);
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	poll(&p, 1, 5000); /* the peer has sent; the octets may still be on the way */
	r = recv(s.fd, b, sizeof b, MSG_DONTWAIT);
	say_in("recv", &s, r, b, true);
	nothing_more(&s);
	still_alive(&s);
}

/* O_NONBLOCK of the description, set while hot. */
void w_nonblock(void)
{
	struct sock s = tcp_new();
	char b[64];
	int fl = fcntl(s.fd, F_GETFL);
	fcntl(s.fd, F_SETFL, fl | O_NONBLOCK);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	fcntl(s.fd, F_SETFL, fl);
	event_soon(&s, "send 0 5");
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_fin(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "fin 0");
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	r = recv(s.fd, b, sizeof b, 0);
	say_in("again", &s, r, b, true);
	/* the other direction is still open */
	peer_fill(b, 9, s.out);
	r = send(s.fd, b, 9, 0);
	printf(" send=%zd recv=%s", r, peer_do(ctl, "recv 0 9") ? "ok" : "failed");
	close(s.fd);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
}

void w_rst(void)
{
	struct sock s = tcp_new();
	char b[64];
	event_soon(&s, "rst 0");
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	r = recv(s.fd, b, sizeof b, 0);
	say_in("again", &s, r, b, true);
	r = send(s.fd, "x", 1, MSG_NOSIGNAL);
	say_in("send", &s, r, "", false);
	close(s.fd);
}

static void *shut_rd(void *arg)
{
	struct sock *s = arg;
	msleep(60);
	shutdown(s->fd, SHUT_RD);
	return NULL;
}

void w_shutdown(void)
{
	struct sock s = tcp_new();
	pthread_t t;
	char b[64];
	event_soon(&s, "sleep 1");
	pthread_create(&t, NULL, shut_rd, &s);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	pthread_join(t, NULL);
	event_over(&s);
	close(s.fd);
}

/* ---- sending with full buffers ---- */

void w_send(void)
{
	struct sock s = tcp_new();
	char *big = malloc(BIG);
	uint64_t heated = move == PROMOTE ? 30 : 0; /* the second thread's octets go first: its sends end long before the peer begins to read */
	if (heated != 0) {
		peer_start(ctl, "recv 0 30; sleep 100; recv 0 %u", BIG);
		heat(&s);
	} else {
		char drain[64];
		snprintf(drain, sizeof drain, "sleep 100; recv 0 %u", BIG);
		event_soon(NULL, drain);
	}
	peer_fill(big, BIG, s.out);
	ssize_t r = send(s.fd, big, BIG, 0);
	s.out += BIG;
	printf(" send=%s", r == BIG ? "all" : r < 0 ? err_text(errno) : "part");
	printf(" received=%s", peer_done(ctl) ? "all" : "failed");
	free(big);
	still_alive(&s);
}

/* Fills the buffers without blocking, then waits for room with `wait`. */
static void fill_and_wait(int (*wait)(int fd))
{
	struct sock s = tcp_new();
	static char b[65536];
	uint64_t start = s.out;
	for (;;) {
		peer_fill(b, sizeof b, s.out);
		ssize_t r = send(s.fd, b, sizeof b, MSG_DONTWAIT);
		if (r < 0)
			break;
		s.out += (uint64_t)r;
	}
	printf(" full=%s", err_text(errno));
	msleep(20);
	char drain[64];
	snprintf(drain, sizeof drain, "sleep 50; recv 0 %llu", (unsigned long long)(s.out - start));
	event_soon(NULL, drain);
	/* what went out meanwhile may have made a little room: go on filling until the wait is a real one */
	int n = wait(s.fd);
	printf(" wait=%d", n);
	printf(" received=%s", peer_done(ctl) ? "all" : "failed");
	n = wait(s.fd);
	printf(" again=%d", n);
	still_alive(&s);
}

static int out_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int n = poll(&p, 1, 10000);
	printf(" %s", ev_text((unsigned)p.revents));
	return n;
}

static int out_select(int fd)
{
	fd_set w;
	FD_ZERO(&w);
	FD_SET(fd, &w);
	struct timeval tv = { 10, 0 };
	int n = select(fd + 1, NULL, &w, NULL, &tv);
	printf(" %s", FD_ISSET(fd, &w) ? "OUT" : "0");
	return n;
}

static int out_epoll(int fd)
{
	int ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLOUT }, got = { 0 };
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	int n = epoll_wait(ep, &got, 1, 10000);
	printf(" %s", ev_text(got.events));
	close(ep);
	return n;
}

void w_out_poll(void) { fill_and_wait(out_poll); }
void w_out_select(void) { fill_and_wait(out_select); }
void w_out_epoll(void) { fill_and_wait(out_epoll); }

void w_sndtimeo(void)
{
	struct sock s = tcp_new();
	char *big = malloc(BIG);
	uint64_t start = s.out;
	setsockopt(s.fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ .tv_usec = 200000 }, sizeof(struct timeval));
	peer_fill(big, BIG, s.out);
	ssize_t r = send(s.fd, big, BIG, 0);
	printf(" send=%s", r > 0 && r < (ssize_t)BIG ? "part" : r < 0 ? err_text(errno) : "all");
	s.out += r > 0 ? (uint64_t)r : 0;
	r = send(s.fd, big + (s.out - start), 1 << 20, 0);
	/* the first timeout may have left a little room */
	for (int i = 0; i < 5 && r > 0; i++) {
		s.out += (uint64_t)r;
		r = send(s.fd, big + (s.out - start), 1 << 20, 0);
	}
	printf(" send=%s", r < 0 ? err_text(errno) : "some");
	char drain[64];
	snprintf(drain, sizeof drain, "recv 0 %llu", (unsigned long long)(s.out - start));
	event_soon(NULL, drain);
	printf(" received=%s", peer_done(ctl) ? "all" : "failed");
	free(big);
	still_alive(&s);
}

