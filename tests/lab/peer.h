/*
 * peer.h - the other end of the socket tests, as a program of its own (peer.c) that works through scripts.
 *
 * The test program tells it over a UNIX socket, which no one accelerates, what to do and when: "sleep 40; send 0 5". So the test can be asleep in the very
 * call under test when something happens. Every stream carries the alphabet over and over: both sides check each octet against its offset.
 */
#ifndef TESTS_LAB_PEER_H
#define TESTS_LAB_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PEER_PORT 7001
#define PEER_ADDR "10.77.0.1"

static inline char peer_octet(uint64_t off) { return (char)('a' + off % 26); }

static inline void peer_fill(char *p, size_t n, uint64_t off)
{
	for (size_t i = 0; i < n; i++)
		p[i] = peer_octet(off + i);
}

static inline bool peer_check(const char *p, size_t n, uint64_t off)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != peer_octet(off + i))
			return false;
	return true;
}

static inline void msleep(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

/* ---- the test's side ---- */

static inline int peer_control(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	for (int i = 0; i < 100; i++) {
		if (connect(fd, (void *)&sa, sizeof sa) == 0)
			return fd;
		msleep(50); /* it's just starting */
	}
	perror(path);
	exit(2);
}

static inline char peer_reply(int ctl)
{
	char c[128];
	ssize_t n;
	do
		n = recv(ctl, c, sizeof c - 1, 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return '!';
	c[n] = '\0';
	if (c[0] == 'E')
		printf("peer: %s\n", c + 1);
	return c[0];
}

/* Starts a script; returns as soon as the peer has it. peer_done() waits for its end. */
static inline void peer_start(int ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void peer_start(int ctl, const char *fmt, ...)
{
	char s[512];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(s, sizeof s, fmt, ap);
	va_end(ap);
	if (send(ctl, s, (size_t)n, MSG_NOSIGNAL) != n || peer_reply(ctl) != 'A') {
		printf("peer is gone\n");
		exit(2);
	}
}

static inline bool peer_done(int ctl) { return peer_reply(ctl) == 'D'; }

#define peer_do(ctl, ...) (peer_start((ctl), __VA_ARGS__), peer_done(ctl))

#endif
