/* calls_epoll.c - what epoll says of hot sockets beside other descriptors: turns, names, arguments. How it wakes up is the business of waits_*.c. Conventions: drive.h. */
#include "calls.h"

#include <sys/ioctl.h>

static void wait_queue(int fd, int n)
{
	int q = 0;
	for (int i = 0; i < 500 && ioctl(fd, FIONREAD, &q) == 0 && q < n; i++)
		msleep(10);
}

static int add(int ep, int fd, unsigned events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };
	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

/* Room for one event, and three that are ready all the time: each of them gets its turn. */
void c_epoll_turns(void)
{
	struct sock s = tcp_new(), t = tcp_new();
	int p[2], ep = epoll_create1(0), n[4] = { 0 };
	if (pipe(p) != 0 || write(p[1], "x", 1) != 1)
		return;
	add(ep, s.fd, EPOLLIN, 1);
	add(ep, t.fd, EPOLLIN, 2);
	add(ep, p[0], EPOLLIN, 3);
	peer_do(ctl, "send 0 5; send 1 5");
	wait_queue(s.fd, 5);
	wait_queue(t.fd, 5);
	for (int i = 0; i < 300; i++) {
		struct epoll_event ev = { 0 };
		if (epoll_wait(ep, &ev, 1, 1000) != 1 || ev.data.u64 > 3)
			printf(" nothing");
		else
			n[ev.data.u64]++;
	}
	for (int i = 1; i < 4; i++)
		printf(" %s", n[i] >= 10 ? "in turn" : "LEFT OUT");
	get(&s, 5);
	get(&t, 5);
	still_alive(&s);
	still_alive(&t);
	close(ep);
}

/* The program's word for two descriptors may be the same: they are two events nevertheless. */
void c_epoll_same_data(void)
{
	struct sock s = tcp_new();
	struct epoll_event ev[8];
	int p[2], ep = epoll_create1(0), most = 0;
	if (pipe(p) != 0 || write(p[1], "x", 1) != 1)
		return;
	add(ep, s.fd, EPOLLIN, 7);
	add(ep, p[0], EPOLLIN, 7);
	peer_do(ctl, "send 0 5");
	wait_queue(s.fd, 5);
	for (int i = 0; i < 20; i++) {
		int n = epoll_wait(ep, ev, 8, 0);
		most = n > most ? n : most;
		msleep(1);
	}
	printf(" events=%d", most);
	get(&s, 5);
	still_alive(&s);
}

/* An entry belongs to a number and a description: it is there as long as any name of that. */
void c_epoll_names(void)
{
	struct sock s = tcp_new();
	struct epoll_event ev = { 0 };
	int ep = epoll_create1(0), fd = s.fd, d = dup(s.fd);
	add(ep, fd, EPOLLIN, 11);
	say_rc("add", add(ep, d, EPOLLIN, 12));
	say_rc("del", epoll_ctl(ep, EPOLL_CTL_DEL, d, &ev));
	close(fd);
	s.fd = d;
	for (int i = 0; i < 2; i++) {
		peer_do(ctl, "send 0 5");
		wait_queue(d, 5);
		int n = epoll_wait(ep, &ev, 1, 1000);
		printf(" %d:%d", n, n > 0 ? (int)ev.data.u64 : -1);
		get(&s, 5);
		say_rc("none", epoll_wait(ep, &ev, 1, 0));
		heat_up(&s);
	}
	say_rc("del", epoll_ctl(ep, EPOLL_CTL_DEL, fd, &ev));
	int u = socket(AF_INET, SOCK_STREAM, 0);
	printf(" %s", u == fd ? "same number" : "other number");
	say_rc("add", add(ep, u, EPOLLIN, 13));
	close(u);
	still_alive(&s);
	say_rc("none", epoll_wait(ep, &ev, 1, 20));
}

void c_epoll_refused(void)
{
	struct sock s = tcp_new();
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0), d = dup(s.fd);
	say_rc("mod", epoll_ctl(ep, EPOLL_CTL_MOD, s.fd, &ev));
	say_rc("del", epoll_ctl(ep, EPOLL_CTL_DEL, s.fd, &ev));
	say_rc("add", epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &ev));
	say_rc("twice", epoll_ctl(ep, EPOLL_CTL_ADD, s.fd, &ev));
	say_rc("unknown", epoll_ctl(ep, 99, s.fd, &ev));
	ev.events = EPOLLIN | EPOLLEXCLUSIVE;
	say_rc("mod-exclusive", epoll_ctl(ep, EPOLL_CTL_MOD, s.fd, &ev));
	ev.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT;
	say_rc("exclusive-oneshot", epoll_ctl(ep, EPOLL_CTL_ADD, d, &ev));
	ev.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP;
	say_rc("exclusive-rdhup", epoll_ctl(ep, EPOLL_CTL_ADD, d, &ev));
	ev.events = EPOLLIN;
	say_rc("no-set", epoll_ctl(s.fd, EPOLL_CTL_ADD, d, &ev));
	say_rc("no-set", epoll_wait(s.fd, &ev, 1, 0));
	close(d);
	say_rc("closed", epoll_ctl(ep, EPOLL_CTL_ADD, d, &ev));
	peer_do(ctl, "lab vf-remove; send 0 5");
	wait_queue(s.fd, 5);
	int n = epoll_wait(ep, &ev, 1, 1000);
	say_ready("epoll", n, ev.events);
	get(&s, 5);
	still_alive(&s);
}
