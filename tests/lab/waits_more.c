/* waits_more.c - several threads on one socket, signals, timeouts, UDP. Conventions: drive.h. */
#include "waits.h"

#include <sys/select.h>

/* ---- several threads ---- */

static _Atomic int woken;

static void *recv_one(void *arg)
{
	struct sock *s = arg;
	char c;
	ssize_t r = recv(s->fd, &c, 1, 0);
	woken++;
	return (void *)r;
}

/* Every octet wakes one of the two. */
void w_two_recv(void)
{
	struct sock s = tcp_new();
	pthread_t t[2];
	void *r[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, recv_one, &s);
	event_soon(&s, "send 0 1");
	event_over(&s);
	for (int i = 0; i < 500 && woken == 0; i++)
		msleep(10);
	msleep(60);
	printf(" woken=%d", woken);
	peer_do(ctl, "send 0 1");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], &r[i]);
	s.in += 2;
	printf(" recv=%ld recv=%ld", (long)r[0], (long)r[1]);
	still_alive(&s);
}

static void *poll_one(void *arg)
{
	struct sock *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	int n = poll(&p, 1, -1);
	woken++;
	return (void *)(long)(n == 1 ? p.revents : n);
}

void w_two_poll(void)
{
	struct sock s = tcp_new();
	pthread_t t[2];
	void *r[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, poll_one, &s);
	event_soon(&s, "send 0 5");
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], &r[i]);
		printf(" poll=%s", ev_text((unsigned)(uintptr_t)r[i]));
	}
	after_in(&s);
	still_alive(&s);
}

static int shared_ep;

static void *epoll_one(void *arg)
{
	(void)arg;
	struct epoll_event ev = { 0 };
	int n = epoll_wait(shared_ep, &ev, 1, -1);
	woken++;
	return (void *)(long)(n == 1 ? (int)ev.events : n);
}

/* Edge triggered, two threads in epoll_wait: an arrival wakes one of them. */
void w_two_epoll(void)
{
	struct sock s = tcp_new();
	pthread_t t[2];
	void *r[2];
	shared_ep = ep_with(s.fd, EPOLLIN | EPOLLET, 1);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, epoll_one, NULL);
	event_soon(&s, "send 0 5");
	event_over(&s);
	for (int i = 0; i < 500 && woken == 0; i++)
		msleep(10);
	msleep(60);
	printf(" woken=%d", woken);
	peer_do(ctl, "send 0 5");
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i], &r[i]);
		printf(" epoll=%s", ev_text((unsigned)(uintptr_t)r[i]));
	}
	take(&s, 60);
	still_alive(&s);
}

/* One reads, one writes, both blocked, full duplex. */
static void *send_big(void *arg)
{
	struct sock *s = arg;
	char *big = malloc(BIG);
	peer_fill(big, BIG, s->out);
	ssize_t r = send(s->fd, big, BIG, 0);
	s->out += BIG;
	free(big);
	return (void *)(uintptr_t)(r == BIG);
}

void w_duplex(void)
{
	struct sock s = tcp_new();
	pthread_t t;
	void *all;
	char b[64], script[64];
	snprintf(script, sizeof script, "send 0 5; sleep 50; recv 0 %u", BIG);
	event_soon(NULL, script);
	pthread_create(&t, NULL, send_big, &s);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	pthread_join(t, &all);
	printf(" send=%s", all != NULL ? "all" : "failed");
	event_over(NULL);
	nothing_more(&s);
	still_alive(&s);
}

/* ---- signals and timeouts ---- */

static _Atomic int handled;
static _Atomic bool returned;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void install(int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };
	sigaction(SIGUSR1, &sa, NULL);
}

/* Signals until the call has returned: one may come before the wait begins, but not all of them. */
static void *nag(void *arg)
{
	pthread_t *whom = arg;
	for (int i = 0; i < 300 && !returned; i++) {
		msleep(20);
		pthread_kill(*whom, SIGUSR1);
	}
	return NULL;
}

/* Five signals, then the event. */
static void *nag_then_event(void *arg)
{
	pthread_t *whom = arg;
	for (int i = 0; i < 5; i++) {
		msleep(20);
		pthread_kill(*whom, SIGUSR1);
	}
	return NULL;
}

static pthread_t self, nagger;

static void nag_start(void *(*how)(void *))
{
	self = pthread_self();
	pthread_create(&nagger, NULL, how, &self);
}

static void nag_stop(void)
{
	returned = true;
	int e = errno;
	pthread_join(nagger, NULL);
	errno = e;
}

void w_recv_restart(void)
{
	struct sock s = tcp_new();
	char b[64];
	install(SA_RESTART);
	nag_start(nag_then_event);
	event_soon(&s, "sleep 150; send 0 5");
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	nag_stop();
	say_in("recv", &s, r, b, true);
	printf(" handled=%s", handled > 0 ? "some" : "none");
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

void w_recv_intr(void)
{
	struct sock s = tcp_new();
	char b[64];
	install(0);
	nag_start(nag);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	nag_stop();
	say_in("recv", &s, r, b, true);
	event_soon(&s, "send 0 5");
	do
		r = recv(s.fd, b, sizeof b, 0);
	while (r < 0 && errno == EINTR);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	nothing_more(&s);
	still_alive(&s);
}

/* SA_RESTART never restarts these. */
void w_poll_intr(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	install(SA_RESTART);
	nag_start(nag);
	int n = poll(&p, 1, -1);
	nag_stop();
	say_ready("poll", n, (unsigned)p.revents);
	event_soon(&s, "send 0 5");
	n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	after_in(&s);
	still_alive(&s);
}

void w_epoll_intr(void)
{
	struct sock s = tcp_new();
	int ep = ep_with(s.fd, EPOLLIN, 1);
	install(SA_RESTART);
	nag_start(nag);
	struct epoll_event ev;
	int n = epoll_wait(ep, &ev, 1, -1);
	nag_stop();
	say_ready("epoll", n, 0);
	event_soon(&s, "send 0 5");
	say_epoll(ep, -1);
	after_in(&s);
	still_alive(&s);
}

void w_select_intr(void)
{
	struct sock s = tcp_new();
	fd_set r;
	FD_ZERO(&r);
	FD_SET(s.fd, &r);
	install(SA_RESTART);
	nag_start(nag);
	int n = select(s.fd + 1, &r, NULL, NULL, NULL);
	nag_stop();
	say_ready("select", n, 0);
	still_alive(&s);
}

/* Blocked outside, let in only by the call's own mask: pending from before, so it must end at once. */
void w_ppoll_mask(void)
{
	struct sock s = tcp_new();
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	sigset_t m, none;
	sigemptyset(&none);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	install(0);
	sigprocmask(SIG_BLOCK, &m, NULL);
	raise(SIGUSR1);
	printf(" before=%d", handled);
	int n = ppoll(&p, 1, NULL, &none);
	say_ready("ppoll", n, (unsigned)p.revents);
	printf(" handled=%d", handled);
	raise(SIGUSR1);
	int ep = ep_with(s.fd, EPOLLIN, 1);
	struct epoll_event ev;
	n = epoll_pwait(ep, &ev, 1, -1, &none);
	say_ready("epoll_pwait", n, 0);
	printf(" handled=%d", handled);
	sigset_t now;
	sigprocmask(SIG_BLOCK, NULL, &now);
	printf(" mask=%d", sigismember(&now, SIGUSR1));
	still_alive(&s);
}

void w_send_intr(void)
{
	struct sock s = tcp_new();
	char *big = malloc(BIG);
	uint64_t start = s.out;
	install(0);
	peer_fill(big, BIG, s.out);
	nag_start(nag);
	ssize_t r = send(s.fd, big, BIG, 0); /* as much as fits, then the signal ends it: a part, or EINTR if it came before the first octet */
	while (r < 0 && errno == EINTR)
		r = send(s.fd, big, BIG, 0);
	nag_stop();
	printf(" send=%s", r > 0 && r < (ssize_t)BIG ? "part" : r < 0 ? err_text(errno) : "all");
	s.out += r > 0 ? (uint64_t)r : 0;
	char drain[64];
	snprintf(drain, sizeof drain, "recv 0 %llu", (unsigned long long)(s.out - start));
	event_soon(NULL, drain);
	printf(" received=%s", peer_done(ctl) ? "all" : "failed");
	free(big);
	still_alive(&s);
}

void w_rcvtimeo(void)
{
	struct sock s = tcp_new();
	char b[64];
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_usec = 60000 }, sizeof(struct timeval));
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 15 }, sizeof(struct timeval));
	event_soon(&s, "send 0 5");
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	peer_do(ctl, "send 0 3");
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_usec = 90000 }, sizeof(struct timeval));
	r = recv(s.fd, b, 10, MSG_WAITALL); /* what is there when the time is over */
	say_in("waitall", &s, r, b, true);
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 }, sizeof(struct timeval));
	still_alive(&s);
}

/* With a timeout even SA_RESTART doesn't restart. */
void w_rcvtimeo_intr(void)
{
	struct sock s = tcp_new();
	char b[64];
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 15 }, sizeof(struct timeval));
	install(SA_RESTART);
	nag_start(nag);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	nag_stop();
	say_in("recv", &s, r, b, true);
	event_soon(&s, "send 0 5");
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	still_alive(&s);
}

void w_rcvlowat(void)
{
	struct sock s = tcp_new();
	char b[64];
	setsockopt(s.fd, SOL_SOCKET, SO_RCVLOWAT, &(int){ 8 }, sizeof(int));
	event_soon(&s, "send 0 5; sleep 40; send 0 5");
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, true);
	event_over(&s);
	setsockopt(s.fd, SOL_SOCKET, SO_RCVLOWAT, &(int){ 1 }, sizeof(int));
	still_alive(&s);
}

/* ---- UDP ---- */

static struct sock udp_new(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(PEER_PORT) };
	struct sock s = { .fd = socket(AF_INET, SOCK_DGRAM, 0), .idx = -1 };
	inet_pton(AF_INET, peer_addr, &sa.sin_addr);
	peer_do(ctl, "vf %s", move == ADD ? "absent" : "present");
	connect(s.fd, (void *)&sa, sizeof sa);
	int rounds = move == COLD || move == PROMOTE ? 1 : 200;
	peer_start(ctl, "uecho %d", rounds);
	for (int i = 0; i < rounds; i++) {
		char b[16];
		if (i % 20 == 19)
			msleep(15); /* see heat_up() */
		ssize_t w = send(s.fd, "abcde", 5, 0), r = recv(s.fd, b, sizeof b, 0);
		if (w != 5 || r != 5 || memcmp(b, "abcde", 5) != 0) {
			printf(" warm-up %zd %zd", w, r);
			break;
		}
	}
	if (!peer_done(ctl))
		printf(" warm-up failed");
	return s;
}

static void udp_alive(struct sock *s)
{
	char b[16];
	peer_start(ctl, "uecho 5");
	for (int i = 0; i < 5; i++) {
		if (send(s->fd, "abc", 3, 0) != 3 || recv(s->fd, b, sizeof b, 0) != 3)
			printf(" dead");
	}
	printf(" %s", peer_done(ctl) ? "alive" : "failed");
	close(s->fd);
}

void w_udp_recv(void)
{
	struct sock s = udp_new();
	char b[64];
	event_soon(NULL, "usend 9");
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	event_over(NULL);
	nothing_more(&s);
	udp_alive(&s);
}

void w_udp_poll(void)
{
	struct sock s = udp_new();
	char b[64];
	struct pollfd p = { .fd = s.fd, .events = POLLIN };
	event_soon(NULL, "usend 9");
	int n = poll(&p, 1, -1);
	say_ready("poll", n, (unsigned)p.revents);
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	event_over(NULL);
	n = poll(&p, 1, 0);
	say_ready("poll", n, (unsigned)p.revents);
	udp_alive(&s);
}

void w_udp_epoll(void)
{
	struct sock s = udp_new();
	int ep = ep_with(s.fd, EPOLLIN | EPOLLET, 6);
	event_soon(NULL, "usend 9");
	say_epoll(ep, -1);
	char b[64];
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	event_over(NULL);
	say_epoll(ep, 0);
	peer_start(ctl, "sleep 30; usend 7");
	say_epoll(ep, -1);
	peer_done(ctl);
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	udp_alive(&s);
}

void w_udp_timeo(void)
{
	struct sock s = udp_new();
	char b[64];
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_usec = 60000 }, sizeof(struct timeval));
	ssize_t r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 15 }, sizeof(struct timeval));
	event_soon(NULL, "usend 9");
	r = recv(s.fd, b, sizeof b, 0);
	say_in("recv", &s, r, b, false);
	event_over(NULL);
	udp_alive(&s);
}

