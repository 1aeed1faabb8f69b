/*
 * stall.h - why did a transfer stand still? Judged afterwards, by what the network saw: no end is asked for its opinion.
 *
 * The relay notes what each end sends, what of it gets lost and what reaches the other one; the applications note what they write and read. Each
 * thread has a log of its own. stall_judge() reads them together when the run is over.
 *
 * A stall is STALL_MIN_US or more in which the reading application got nothing new. It is
 *   within   not longer than one retransmission timeout, a round trip and a delayed ACK;
 *   lost     longer, but there was a timeout for each part of it, in time, and the network had lost what was waited for: the segment or its ACK;
 *   late     an end was silent for longer than the timeout in force (RFC 6298, doubled after each timeout without an answer), though it had
 *            octets that weren't acknowledged or, with none of these, that weren't sent;
 *   other    none of these: nobody was late, and yet nothing that was lost explains it.
 * A silence of that kind counts as late too when the reader noticed nothing.
 */
#ifndef HV_IMPAIR_STALL_H
#define HV_IMPAIR_STALL_H

#include <stdbool.h>
#include <stdint.h>

#define STALL_MIN_US 100000u /* half of the smallest RTO */
#define STALL_DELACK_US 40000u
#define STALL_MARGIN_US 20000u /* for threads that don't run at once; and an eighth, by which the kernel's timers may be late */

enum stall_what { STALL_SENT, STALL_LOST, STALL_HEARD, STALL_WROTE, STALL_READ };

struct stall_event {
	uint64_t ns;
	uint32_t seq, len, ack; /* sent, lost, heard: of the segment, from the first octet of either stream; wrote: seq is all that was written */
	uint8_t what, side;     /* side: who sent it (also what got lost), heard it, wrote, read */
	bool sack;              /* the segment has SACK blocks */
};

struct stall_log { struct stall_event *e; uint32_t n, cap; };

struct stall_report {
	uint32_t within, lost, other, late[2];
	uint32_t timeouts; /* in those that are `lost` */
	char why[160];     /* about the first that is late or other */
};

void stall_note(struct stall_log *l, const struct stall_event *e);
/* Logs, each in the order of time, from the beginning of the connection; the reader's stalls from one moment to another are judged. rtt_us: what
 * each end's handshake took, which its first RTO follows from; nothing is lost then, but a machine can be late. */
void stall_judge(const struct stall_log *const logs[], unsigned n_logs, unsigned reader, uint64_t from_ns, uint64_t to_ns, const uint32_t rtt_us[2],
    struct stall_report *r);

#endif
