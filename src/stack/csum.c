/*
 * csum.c - the Internet checksum (RFC 1071) in software, for devices that gave no verdict and for tests.
 *
 * Pure functions; anyone may call.
 */
#include "stack/frame.h"
#include "stack/wire.h"

static uint32_t fold64(uint64_t s)
{
	s = (s & 0xffffffffu) + (s >> 32);
	s = (s & 0xffffffffu) + (s >> 32);
	return (uint32_t)s;
}

/* The running sum is over 16-bit words as they lie in memory; the one's complement sum does not mind the byte order as long as
 * every piece but the last has an even length. */
uint32_t hv_csum_partial(const void *p, uint32_t len, uint32_t seed)
{
	const uint8_t *b = p;
	uint64_t s = seed;
	uint32_t w[2];
	uint16_t h;

	while (len >= 8) {
		memcpy(w, b, 8);
		s += (uint64_t)w[0] + w[1];
		b += 8;
		len -= 8;
	}
	if (len >= 4) {
		memcpy(w, b, 4);
		s += w[0];
		b += 4;
		len -= 4;
	}
	if (len >= 2) {
		memcpy(&h, b, 2);
		s += h;
		b += 2;
		len -= 2;
	}
	if (len != 0)
		s += *b; /* padded with a zero octet on the right: low byte on a little-endian machine */
	return fold64(s);
}

uint16_t hv_csum(const void *p, uint32_t len, uint32_t seed)
{
	uint32_t s = hv_csum_partial(p, len, seed);

	s = (s & 0xffffu) + (s >> 16);
	s = (s & 0xffffu) + (s >> 16);
	return (uint16_t)~s;
}

uint32_t hv_csum_pseudo(const struct hv_tuple *t, bool from_local, uint32_t l4_len)
{
	uint32_t alen = t->family == 6 ? 16 : 4, s;
	uint8_t tail[8];

	(void)from_local; /* the sum is the same in both directions; the argument documents the call */
	s = hv_csum_partial(t->laddr, alen, 0);
	s = hv_csum_partial(t->raddr, alen, s);
	/* IPv4 has a 16-bit and IPv6 a 32-bit length; as sums both are the two halves of this */
	hv_put32(tail, l4_len);
	hv_put32(tail + 4, t->proto);
	return hv_csum_partial(tail, 8, s);
}
