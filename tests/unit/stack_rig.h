/*
 * stack_rig.h - packet in, packet out: one TCB, a clock that only the test moves, and helpers that make exchanges read like a
 * packet script. Sequence numbers in tests are relative: our first unsent octet and the peer's next octet are both 0.
 */
#ifndef HV_STACK_RIG_H
#define HV_STACK_RIG_H

#include "../sim/host.h"
#include "../sim/seg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define RIG_OUT_MAX 512
#define RIG_MSS 1000u

struct rig_seg { uint32_t seq, ack, wnd, len, tsval, tsecr; uint8_t flags, tos; bool has_ts; uint32_t nsack, sack[4][2]; uint8_t data[2048]; };

struct rig {
	struct host h;
	struct hv_tcp_image img; /* what rig_start() imports; a test may change it first */
	uint64_t now;
	uint32_t iss, irs;       /* absolute numbers of relative 0 */
	unsigned acts;           /* of the last call */
	/* what came out and was not looked at yet */
	struct rig_seg out[RIG_OUT_MAX];
	uint32_t n_out, at_out;
	uint32_t peer_ts;        /* TSval of the next segment in */
	bool hold;               /* leave output to the test */
};

/* Defaults: v4, MSS 1000, no options, windows of 64,000 octets, cwnd 10, RTT 10 ms, NODELAY. */
void rig_init(struct rig *r);
void rig_start(struct rig *r);
void rig_stamps(struct rig *r); /* before rig_start(): timestamps, with RIG_MSS octets of data in a segment all the same */
void rig_end(struct rig *r); /* releases, asserts conservation */

/* Segment from the peer: relative numbers; fields of *s that are left zero get the obvious value. Returns the actions. */
struct rig_in { uint32_t seq, ack, len, wnd; uint8_t flags; bool no_ack, zero_wnd; uint32_t tsval, tsecr; bool no_ts; uint32_t nsack,
    sack[4][2]; uint8_t tos;
	uint16_t urg; };
unsigned rig_put(struct rig *r, const struct rig_in *s);
#define in(r, ...) rig_put(r, &(struct rig_in){ __VA_ARGS__ })

/* Next segment that came out; fails the test if there is none. */
struct rig_seg *rig_take(struct rig *r);
void rig_none(struct rig *r);
/* Next segment is data / a pure ACK with these relative numbers. */
void rig_data(struct rig *r, uint32_t seq, uint32_t len);
struct rig_seg *rig_ack(struct rig *r, uint32_t ack);
void rig_drop_out(struct rig *r);

uint32_t rig_write(struct rig *r, uint32_t len);
uint32_t rig_write_more(struct rig *r, uint32_t len);
uint32_t rig_read(struct rig *r, uint32_t len);
void rig_opt(struct rig *r, enum hv_tcp_opt o, uint32_t v);
void rig_flush(struct rig *r); /* end of batch */
/* Moves the clock by us, running timers on the way. */
void rig_wait(struct rig *r, uint64_t us);
/* Moves the clock to the next deadline and runs it; returns how long that took. Fails if there is none within the hour. */
uint64_t rig_next(struct rig *r);
void rig_pump(struct rig *r);
struct hv_tcp_stat rig_stat(const struct rig *r);

/* Octets of the streams, by relative sequence number. */
uint8_t rig_octet(bool ours, uint32_t rel);

#endif
