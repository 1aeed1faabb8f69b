/*
 * prng.h - xoshiro256** (Blackman, Vigna), seeded with splitmix64: the only source of chance in the simulator and the fuzzers.
 */
#ifndef HV_SIM_PRNG_H
#define HV_SIM_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng { uint64_t s[4]; };

static inline uint64_t prng_rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline void prng_seed(struct prng *p, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = (seed += 0x9e3779b97f4a7c15ull);
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
		p->s[i] = z ^ (z >> 31);
	}
}

static inline uint64_t prng_u64(struct prng *p)
{
	uint64_t r = prng_rotl(p->s[1] * 5, 7) * 9, t = p->s[1] << 17;

	p->s[2] ^= p->s[0];
	p->s[3] ^= p->s[1];
	p->s[1] ^= p->s[2];
	p->s[0] ^= p->s[3];
	p->s[2] ^= t;
	p->s[3] = prng_rotl(p->s[3], 45);
	return r;
}

/* lo..hi, both included. */
static inline uint32_t prng_in(struct prng *p, uint32_t lo, uint32_t hi)
{
	return hi <= lo ? lo : lo + (uint32_t)(prng_u64(p) % ((uint64_t)hi - lo + 1));
}

/* lo..hi with every order of magnitude equally likely. */
static inline uint32_t prng_log(struct prng *p, uint32_t lo, uint32_t hi)
{
	uint32_t top = lo;

	for (int n = 0; n < 32 && top < hi && prng_u64(p) % 8 != 0; n++) {
		uint64_t next = (uint64_t)top + top / 2 + 1;
		top = next > hi ? hi : (uint32_t)next;
	}
	if (prng_u64(p) % 16 == 0)
		top = hi;
	return prng_in(p, lo, top);
}

/* True with probability ppm / 10^6. */
static inline bool prng_ppm(struct prng *p, uint32_t ppm)
{
	return ppm != 0 && prng_u64(p) % 1000000u < ppm;
}

#endif
