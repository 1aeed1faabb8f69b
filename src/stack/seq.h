/*
 * seq.h - modular comparison of sequence numbers (RFC 9293 3.4) and of 32-bit microsecond stamps.
 *
 * The only place with (int32_t)(a - b). Correct while the two are less than 2^31 apart. Anyone in src/stack; no state, no lock.
 */
#ifndef HV_SEQ_H
#define HV_SEQ_H

#include <stdbool.h>
#include <stdint.h>

static inline int32_t hv_seq_diff(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b);
}
static inline bool hv_seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}
static inline bool hv_seq_le(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}
static inline bool hv_seq_gt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}
static inline bool hv_seq_ge(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}
static inline uint32_t hv_seq_max(uint32_t a, uint32_t b)
{
	return hv_seq_lt(a, b) ? b : a;
}
static inline uint32_t hv_seq_min(uint32_t a, uint32_t b)
{
	return hv_seq_lt(a, b) ? a : b;
}
/* a in [lo, hi) */
static inline bool hv_seq_in(uint32_t a, uint32_t lo, uint32_t hi)
{
	return a - lo < hi - lo;
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
