/*
 * drive.h - what the socket tests waits and calls share: running cases, making sockets, moving them, saying results.
 *
 * A test program is drive.c and a table drive_cases[] that ends with a NULL name.
 */
#ifndef TESTS_LAB_DRIVE_H
#define TESTS_LAB_DRIVE_H

#include "peer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#define BIG (16u << 20) /* more than the send and receive buffers of both ends together */

enum move { COLD, HOT, REMOVE, ADD, PROMOTE };
extern enum move move;
extern int ctl;               /* to the peer */
extern const char *peer_addr;

struct sock {
	int fd, idx;          /* idx: the peer's number for it */
	uint64_t in, out;     /* octets so far: say where in the alphabet the streams are */
};

struct drive_case {
	const char *name;
	void (*run)(void);
};
extern const struct drive_case drive_cases[];

const char *ev_text(unsigned ev);
const char *err_text(int e);
/* A result of a call that returns octets: the count, checked against the stream, or the errno. */
void say_in(const char *what, struct sock *s, ssize_t r, const char *buf, bool consumed);
void say_rc(const char *what, long r); /* any call: its value or errno */
void say_ready(const char *what, int n, unsigned ev);
void warm(struct sock *s, int rounds);
void heat_up(struct sock *s); /* the same for longer, so that it is on the VF in the end, if there is one */
struct sock tcp_new(void);
struct sock tcp_cold(int idx); /* connected, no more; idx: how many the peer has accepted before */
void *heat(void *sock); /* the traffic that makes a socket hot while another thread waits on it */
/* Lets the event happen while the caller, who does this last, is in its wait. script: the peer's steps; s: whose traffic heats, or NULL. */
void event_soon(struct sock *s, const char *script);
void event_over(struct sock *s);
void put(struct sock *s, size_t n);   /* n octets, blocking */
void get(struct sock *s, size_t n);
void nothing_more(struct sock *s);  /* nothing may be left to be read */
void still_alive(struct sock *s);   /* the connection works on; closes it */

#endif
