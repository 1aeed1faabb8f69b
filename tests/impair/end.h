/*
 * end.h - the two ends of an impaired connection: what they have in common.
 *
 * An end is a thread: the kernel's TCP in a network namespace of its own behind a TAP device (end_kernel.c), or src/stack (end_stack.c).
 * Both work the same application off. They meet at struct meet: set up, listen, connect, arm, transfer.
 */
#ifndef HV_IMPAIR_END_H
#define HV_IMPAIR_END_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "relay.h"
#include "stack/tcp.h"

#define END_CHUNK 65536u /* octets per write() and read() */

struct meet {
	pthread_barrier_t ready;     /* devices exist, the acceptor listens */
	pthread_barrier_t connected; /* both ends are established */
	pthread_barrier_t armed;     /* go */
	pthread_barrier_t done;      /* the last octet has been read; figures may be taken */
	atomic_uint finished;        /* ends whose application has sent and received everything */
};

struct app {
	/* script: the client sends `request` octets and awaits `response`, `rounds` times; a bulk transfer is one round without a response */
	bool client;
	uint64_t request, response, rounds;
	/* state */
	uint64_t sent, received;
	uint64_t first_ns, last_ns, last_read_ns;
	uint64_t stall_ns; /* the longest time without anything new, and what either end's RTO and round trip were then */
	uint32_t stall_rto_us, stall_rtt_us;
	struct end *ends;  /* both */
	struct stall_log log;
	uint64_t mismatches;
	uint8_t buf[END_CHUNK];
};

/* How many more octets may be sent now; they are in buf then. */
uint32_t app_next(struct app *a);
void app_sent(struct app *a, uint32_t n);
/* n octets were read, they are in buf. */
void app_read(struct app *a, uint32_t n);
/* This end has received all that it will. */
bool app_finished(const struct app *a);
bool app_all_sent(const struct app *a);

/* What src/stack was at when it slept last. */
struct end_at {
	uint32_t snd_una, snd_nxt, snd_end, snd_edge, rcv_nxt, rcv_edge, cwnd, ca, rtx_kind, backoff, lost, sacked, ooo, charge, rcvbuf;
	atomic_uint rto_us, srtt_us;
};

struct end {
	struct meet *meet;
	struct app app;
	unsigned side;      /* 0 or 1: addresses and MACs follow from it */
	bool kernel, connects;
	uint8_t family;     /* 4 or 6 */
	const char *cc;
	uint32_t rmem_max, wmem_max;
	uint32_t late_us;   /* stack: its timers come so much later than they should, to see that it's noticed */
	FILE *trace;        /* cwnd over time, see --trace-a; NULL: none */
	int fd;             /* kernel: the TAP; stack: this end of the socket pair */
	pthread_t thread;
	/* figures */
	uint64_t rexmit, rto, tlp, spurious;
	uint32_t cwnd, ssthresh, srtt_us;
	uint32_t handshake_us; /* its round trip */
	const char *fail;
	/* read without a lock when time runs out */
	const char *where;
	int sock;           /* kernel: the connection */
	struct end_at at;
};

void *end_kernel(void *end);
void *end_stack(void *end);
void end_die(struct end *e, const char *what) __attribute__((noreturn));
void end_late(void) __attribute__((noreturn)); /* a segment of the handshake went twice, though the network loses nothing yet */
void end_addr(uint8_t family, unsigned side, uint8_t a[16]);
void end_mac(unsigned side, uint8_t m[6]);
void end_realtime(int prio);
#define END_PORT 7000u

#endif
