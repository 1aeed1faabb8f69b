/*
 * relay.h - a bad network in user space: frames come in at one file descriptor and leave at the other, late, changed in order, twice or never.
 *
 * Two ends, each a TAP device, a packet socket or a SOCK_SEQPACKET socket: one frame per read() and write(). What happens to a frame
 * follows from the seed alone, so that two runs of different stacks are judged by the same script: random loss of a data segment is
 * decided by its place in the stream and how often it has been seen there, everything else by the frame's number in its direction.
 * One thread runs a relay; others may only touch relay_arm() and relay_stop().
 */
#ifndef HV_IMPAIR_RELAY_H
#define HV_IMPAIR_RELAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../sim/pcap.h"
#include "stall.h"

struct relay_conf {
	uint64_t seed;
	double loss;        /* share of frames that are lost, both directions */
	double burst;       /* > 1: mean length of a loss burst (Gilbert), decided by frame number */
	double reorder;     /* share of frames that are held back by up to hold_us */
	uint32_t hold_us;
	double dup;
	uint32_t delay_us;  /* one way */
	uint32_t jitter_us; /* one way, plus or minus; keeps the order */
	uint64_t rate_bps;  /* 0: as fast as it goes */
	uint32_t queue;     /* octets that the bottleneck holds */
};

struct relay_count {
	uint64_t frames, lost, queue_drops, held, doubled, resets, refused;
};

struct relay;

/* A capture shows what an end sees: what it sends, also what is lost then, and what reaches it. */
struct relay *relay_new(const struct relay_conf *c, int fd_a, int fd_b, struct pcap *pcap_a, struct pcap *pcap_b);
/* What is sent, lost and delivered is noted there from now on; before relay_run(). */
void relay_note(struct relay *r, struct stall_log *log);
/* Until armed only delay and rate apply: connections are set up without losses. */
void relay_arm(struct relay *r, bool on);
void relay_run(struct relay *r); /* until relay_stop() */
void relay_stop(struct relay *r);
void relay_counts(const struct relay *r, struct relay_count c[2]); /* after relay_run() has returned */
void relay_free(struct relay *r);

/* --loss=PERCENT and so on, as all programs with a relay take them; false: not one of them. */
bool relay_option(struct relay_conf *c, const char *arg);
extern const char relay_usage[];

/* A TAP device in the caller's network namespace. */
int relay_tap(const char *name);

uint64_t relay_now_ns(void);

#endif
