/* waits_ready.c - poll, select and epoll in all their forms. Conventions: drive.h. */
#include "waits.h"

#include <sys/select.h>

/* ---- poll and select ---- */

void after_in(struct sock *s)
{
	char b[64];
	ssize_t r = recv(s->fd, b, sizeof b, 0);
	say_in("recv", s, r, b, true);
	event_over(s);
	nothing_more(s);
}

void w_poll(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	event_soon(&s, "send 0 5");
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	after_in(&s);
	n = poll(&p, 1, 0);
	say_ready("poll", n, (unsigned)p.revents);
	p.events = POLLIN | POLLOUT | POLLRDHUP;
	n = poll(&p, 1, 1000);
	say_ready("poll", n, (unsigned)p.revents);
	still_alive(&s);
}

void w_poll_timeout(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	int n = poll(&p, 1, 60);
	say_ready("poll", n, (unsigned)p.revents);
	event_soon(&s, "send 0 5");
	n = poll(&p, 1, 10000);
	say_ready("poll", n, (unsigned)p.revents);
	after_in(&s);
	still_alive(&s);
}

/* A file, a negative entry, the same socket twice, a pipe beside it. */
void w_poll_mixed(void)
{
	struct sock s = tcp_new();
	int pp[2];
	if (pipe(pp) != 0)
		return;
	struct pollfd p[5] = { { .fd = pp[0], .events = POLLIN }, { .fd = -1, .events = POLLIN }, { .fd = s.fd, .events = POLLIN },
			       { .fd = s.fd, .events = POLLRDHUP }, { .fd = s.fd, .events = POLLIN } };
	event_soon(&s, "send 0 5");
	int n = poll(p, 5, -1);
	printf(" poll=%d", n);
	for (int i = 0; i < 5; i++)
		printf(" %s", ev_text((unsigned)p[i].revents));
	after_in(&s);
	/* now the pipe wakes it */
	if (write(pp[1], "x", 1) != 1)
		printf(" pipe");
	n = poll(p, 5, -1);
	printf(" poll=%d", n);
	for (int i = 0; i < 5; i++)
		printf(" %s", ev_text((unsigned)p[i].revents));
	still_alive(&s);
}

void w_poll_two(void)
{
	struct sock a = tcp_new(), b = tcp_new();
	struct pollfd p[2] = { { .fd = a.fd, .events = POLLIN }, { .fd = b.fd, .events = POLLIN } };
	event_soon(&a, "send 1 5");
	int n = poll(p, 2, -1);
	printf(" poll=%d %s", n, ev_text((unsigned)p[0].revents));
	printf(" %s", ev_text((unsigned)p[1].revents));
	event_over(&a);
	char buf[64];
	ssize_t r = recv(b.fd, buf, sizeof buf, 0);
	say_in("recv", &b, r, buf, true);
	peer_start(ctl, "sleep 30; send 0 4");
	n = poll(p, 2, -1);
	printf(" poll=%d %s", n, ev_text((unsigned)p[0].revents));
	printf(" %s", ev_text((unsigned)p[1].revents));
	peer_done(ctl);
	r = recv(a.fd, buf, sizeof buf, 0);
	say_in("recv", &a, r, buf, true);
	nothing_more(&a);
	nothing_more(&b);
	still_alive(&a);
	still_alive(&b);
}

void w_poll_fin(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN | POLLRDHUP };
	event_soon(&s, "fin 0");
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	event_over(&s);
	shutdown(s.fd, SHUT_WR);
	printf(" eof=%s", peer_do(ctl, "eof 0") ? "ok" : "failed");
	n = poll(&p, 1, 1000);
	say_ready("poll", n, (unsigned)p.revents);
	close(s.fd);
}

/* Nothing is asked for: only an error may end it. */
void w_poll_rst(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = 0 };
	event_soon(&s, "rst 0");
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	event_over(&s);
	int e = -1;
	socklen_t l = sizeof e;
	getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &e, &l);
	printf(" so_error=%s", err_text(e));
	p.events = POLLIN | POLLOUT | POLLRDHUP;
	n = poll(&p, 1, 1000);
	say_ready("poll", n, (unsigned)p.revents);
	close(s.fd);
}

void w_ppoll(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR2);
	event_soon(&s, "send 0 5");
	struct timespec ts = { 10, 0 };
	int n = ppoll(&p, 1, &ts, &m);
	say_ready("ppoll", n, (unsigned)p.revents);
	after_in(&s);
	ts.tv_sec = 0;
	ts.tv_nsec = 900000;
	n = ppoll(&p, 1, &ts, &m);
	say_ready("ppoll", n, (unsigned)p.revents);
	printf(" timeout %s", ts.tv_nsec == 900000 ? "untouched" : "changed");
	still_alive(&s);
}

void w_select(void)
{
	struct sock s = tcp_new();
	fd_set r, w, x;
	FD_ZERO(&r);
	FD_ZERO(&x);
	FD_SET(s.fd, &r);
	FD_SET(s.fd, &x);
	event_soon(&s, "send 0 5");
	int n = select(s.fd + 1, &r, NULL, &x, NULL);
	printf(" select=%d r%d x%d", n, FD_ISSET(s.fd, &r) != 0, FD_ISSET(s.fd, &x) != 0);
	after_in(&s);
	struct timeval tv = { 0, 20000 };
	FD_SET(s.fd, &r);
	n = select(s.fd + 1, &r, NULL, NULL, &tv);
	printf(" select=%d r%d left=%ld", n, FD_ISSET(s.fd, &r) != 0, (long)(tv.tv_sec * 1000000 + tv.tv_usec));
	FD_SET(s.fd, &r);
	FD_ZERO(&w);
	FD_SET(s.fd, &w);
	n = select(s.fd + 1, &r, &w, NULL, NULL);
	printf(" select=%d r%d w%d", n, FD_ISSET(s.fd, &r) != 0, FD_ISSET(s.fd, &w) != 0);
	still_alive(&s);
}

void w_pselect(void)
{
	struct sock s = tcp_new();
	fd_set r;
	sigset_t m;
	sigfillset(&m);
	FD_ZERO(&r);
	FD_SET(s.fd, &r);
	struct timespec ts = { 10, 0 };
	event_soon(&s, "send 0 5");
	int n = pselect(s.fd + 1, &r, NULL, NULL, &ts, &m);
	printf(" pselect=%d r%d timeout %s", n, FD_ISSET(s.fd, &r) != 0, ts.tv_sec == 10 && ts.tv_nsec == 0 ? "untouched" : "changed");
	after_in(&s);
	still_alive(&s);
}

/* ---- epoll ---- */

int ep_with(int fd, unsigned events, uint64_t data)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = { .events = events, .data.u64 = data };
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
		printf(" add=%s", err_text(errno));
	return ep;
}

/* One epoll_wait, described: number, events and data of the first ones. */
void say_epoll(int ep, int timeout)
{
	struct epoll_event got[4];
	int n = epoll_wait(ep, got, 4, timeout);
	if (n < 0) {
		printf(" epoll=%s", err_text(errno));
		return;
	}
	printf(" epoll=%d", n);
	for (int i = 0; i < n; i++)
		printf(":%s/%llu", ev_text(got[i].events), (unsigned long long)got[i].data.u64);
}

void take(struct sock *s, size_t n)
{
	char b[64];
	ssize_t r = recv(s->fd, b, n, MSG_DONTWAIT);
	say_in("recv", s, r, b, true);
}

void w_epoll_lt(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN, 77);
	event_soon(&s, "send 0 5");
	say_epoll(ep, -1);
	event_over(&s);
	say_epoll(ep, 0);
	take(&s, 2);
	say_epoll(ep, 0);
	take(&s, 60);
	say_epoll(ep, 0);
	still_alive(&s);
	say_epoll(ep, 0);
}

void w_epoll_et(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLET, 77);
	event_soon(&s, "send 0 5");
	say_epoll(ep, -1);
	event_over(&s);
	say_epoll(ep, 0);
	take(&s, 2);
	say_epoll(ep, 0);
	/* an edge comes with every arrival, also while something is unread */
	peer_start(ctl, "sleep 30; send 0 4");
	say_epoll(ep, -1);
	peer_done(ctl);
	say_epoll(ep, 0);
	take(&s, 60);
	say_epoll(ep, 30);
	still_alive(&s);
}

void w_epoll_et_out(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 5);
	say_epoll(ep, -1); /* OUT at once */
	say_epoll(ep, 0);
	event_soon(&s, "send 0 5");
	if (move == PROMOTE) /* the second thread's acks are edges for OUT, as many as the timing wills: only the end is defined */
		event_over(&s);
	else
		say_epoll(ep, -1);
	if (move != PROMOTE)
		event_over(&s);
	take(&s, 60);
	still_alive(&s);
}

void w_epoll_oneshot(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLONESHOT, 3);
	event_soon(&s, "send 0 5");
	say_epoll(ep, -1);
	event_over(&s);
	take(&s, 60);
	peer_do(ctl, "send 0 4");
	say_epoll(ep, 50); /* not armed */
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 4 };
	if (epoll_ctl(ep, EPOLL_CTL_MOD, s.fd, &ev) != 0)
		printf(" mod=%s", err_text(errno));
	say_epoll(ep, 1000); /* armed again: it's there at once */
	say_epoll(ep, 0);
	take(&s, 60);
	still_alive(&s);
}

void w_epoll_exclusive(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLEXCLUSIVE, 9);
	event_soon(&s, "send 0 5");
	say_epoll(ep, -1);
	event_over(&s);
	take(&s, 60);
	say_epoll(ep, 0);
	still_alive(&s);
}

void w_epoll_nested(void)
{
	struct sock s = tcp_new();
	int in = ep_with(s.fd, EPOLLIN, 1), out = ep_with(in, EPOLLIN, 2);
	event_soon(&s, "send 0 5");
	say_epoll(out, -1);
	event_over(&s);
	say_epoll(in, 0);
	take(&s, 60);
	say_epoll(in, 0);
	say_epoll(out, 0);
	still_alive(&s);
}

/* The epoll descriptor itself is polled. */
void w_epoll_poll(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN, 1);
	struct pollfd p = { .fd = ep, .events = POLLIN };
	event_soon(&s, "send 0 5");
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	event_over(&s);
	say_epoll(ep, 0);
	take(&s, 60);
	n = poll(&p, 1, 0);
	say_ready("poll", n, (unsigned)p.revents);
	still_alive(&s);
}

void w_epoll_two(void)
{
	struct sock a = tcp_new(), b = tcp_new();
	int ep = ep_with(a.fd, EPOLLIN, 1);
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 2 };
	epoll_ctl(ep, EPOLL_CTL_ADD, b.fd, &ev);
	event_soon(&a, "send 1 5");
	say_epoll(ep, -1);
	event_over(&a);
	take(&b, 60);
	peer_start(ctl, "sleep 30; send 0 4");
	say_epoll(ep, -1);
	peer_done(ctl);
	take(&a, 60);
	say_epoll(ep, 0);
	if (epoll_ctl(ep, EPOLL_CTL_DEL, a.fd, NULL) != 0)
		printf(" del=%s", err_text(errno));
	peer_do(ctl, "send 0 3; send 1 3");
	msleep(30);
	say_epoll(ep, 1000);
	take(&a, 60);
	take(&b, 60);
	still_alive(&a);
	still_alive(&b);
}

/* One socket in two sets, edge triggered in one. */
void w_epoll_in_two(void)
{
	struct sock s = tcp_new();
	int one = ep_with(s.fd, EPOLLIN, 1), two = ep_with(s.fd, EPOLLIN | EPOLLET, 2);
	event_soon(&s, "send 0 5");
	say_epoll(one, -1);
	event_over(&s);
	say_epoll(two, 1000);
	say_epoll(two, 0);
	say_epoll(one, 0);
	take(&s, 60);
	say_epoll(one, 0);
	still_alive(&s);
}

/* Registered in the wait's tier, modified after the move. */
void w_epoll_mod(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, 0, 1);
	event_soon(&s, "send 0 5");
	event_over(&s);
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	poll(&p, 1, 5000);
	say_epoll(ep, 0);
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 8 };
	if (epoll_ctl(ep, EPOLL_CTL_MOD, s.fd, &ev) != 0)
		printf(" mod=%s", err_text(errno));
	say_epoll(ep, 1000);
	printf(" add=%s", epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &ev) == 0 ? "ok" : errno == EEXIST ? "EEXIST" : err_text(errno));
	take(&s, 60);
	still_alive(&s);
	/* closing the last descriptor removes it */
	printf(" mod=%s", epoll_ctl(ep, EPOLL_CTL_MOD, s.fd, &ev) == 0 ? "ok" : err_text(errno));
}

void w_epoll_timeout(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN, 1);
	say_epoll(ep, 60);
	event_soon(&s, "send 0 5");
	say_epoll(ep, 10000);
	event_over(&s);
	take(&s, 60);
	say_epoll(ep, 20);
	still_alive(&s);
}

void w_epoll_fin(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLRDHUP | EPOLLET, 1);
	event_soon(&s, "fin 0");
	say_epoll(ep, -1);
	event_over(&s);
	say_epoll(ep, 0);
	take(&s, 60);
	close(s.fd);
}

void w_epoll_rst(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLRDHUP, 1);
	event_soon(&s, "rst 0");
	say_epoll(ep, -1);
	event_over(&s);
	take(&s, 60);
	close(s.fd);
	say_epoll(ep, 0);
}

