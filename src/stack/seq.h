/*
 * seq.h - modular comparison of sequence numbers (RFC 9293 3.4) and of 32-bit microsecond stamps.
 *
 * The only place with (int32_t)(a - b). Correct while the two are less than 2^31 apart. Anyone in src/stack; no state, no lock.
 */
#ifndef HV_SEQ_H
#define HV_SEQ_H

#include <stdbool.h>
#include <stdint.h>

/* tests/unit/stack_seq.c proves what is below for all values of a type of 8 bits. */
#ifndef HV_SEQ_TYPES
typedef uint32_t hv_seq_t;
typedef int32_t hv_seqdiff_t;
#endif

static inline hv_seqdiff_t hv_seq_diff(hv_seq_t a, hv_seq_t b)
{
	return (hv_seqdiff_t)(a - b);
}
static inline bool hv_seq_lt(hv_seq_t a, hv_seq_t b)
{
	return (hv_seqdiff_t)(a - b) < 0;
}
static inline bool hv_seq_le(hv_seq_t a, hv_seq_t b)
{
	return (hv_seqdiff_t)(a - b) <= 0;
}
static inline bool hv_seq_gt(hv_seq_t a, hv_seq_t b)
{
	return (hv_seqdiff_t)(a - b) > 0;
}
static inline bool hv_seq_ge(hv_seq_t a, hv_seq_t b)
{
	return (hv_seqdiff_t)(a - b) >= 0;
}
static inline hv_seq_t hv_seq_max(hv_seq_t a, hv_seq_t b)
{
	return hv_seq_lt(a, b) ? b : a;
}
static inline hv_seq_t hv_seq_min(hv_seq_t a, hv_seq_t b)
{
	return hv_seq_lt(a, b) ? a : b;
}
/* a in [lo, hi) */
static inline bool hv_seq_in(hv_seq_t a, hv_seq_t lo, hv_seq_t hi)
{
	return (hv_seq_t)(a - lo) < (hv_seq_t)(hi - lo);
}
/* How many of the octets [seq, seq + len) lie before nxt ... */
static inline hv_seq_t hv_seq_before(hv_seq_t seq, hv_seq_t len, hv_seq_t nxt)
{
	hv_seq_t n = (hv_seq_t)(nxt - seq);

	return hv_seq_ge(seq, nxt) ? 0 : n < len ? n : len;
}
/* ... and how many at edge or behind it. */
static inline hv_seq_t hv_seq_behind(hv_seq_t seq, hv_seq_t len, hv_seq_t edge)
{
	hv_seq_t n = (hv_seq_t)(seq + len - edge);

	return hv_seq_le((hv_seq_t)(seq + len), edge) ? 0 : n < len ? n : len;
}
/* Is [seq, end) acceptable (RFC 9293 3.4)? As in Linux, a segment without text may also lie at the right edge (its sender has filled our
 * window, and its ACKs count all the same) or between Last.ACK.sent and RCV.NXT (overtaken on the way). */
static inline bool hv_seq_acceptable(hv_seq_t seq, hv_seq_t end, hv_seq_t last_ack, hv_seq_t nxt, hv_seq_t edge)
{
	return hv_seq_le(seq, edge) && (hv_seq_gt(end, nxt) || (end == seq && hv_seq_ge(end, last_ack)));
}
static inline uint32_t hv_min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}
static inline uint32_t hv_max32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}
static inline uint64_t hv_min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

#endif
