/*
 * sv_csum.h - the Internet checksum (RFC 1071) of frames: what a NIC's checksum engines do. Pure functions.
 */
#ifndef SV_CSUM_H
#define SV_CSUM_H

#include <stdbool.h>
#include <stdint.h>

static inline uint16_t sv_fold(uint64_t s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (uint16_t)((s & 0xffff) + (s >> 16));
}

/* Where the headers of a frame are. l4 == 0: not TCP or UDP, or a fragment, or cut off. */
struct sv_layout {
	uint32_t l3, l4, l4_len, csum_off; /* csum_off: of the checksum field from l4 */
	uint8_t ver, proto;
};
/* f: the first `have` octets of a frame of len. False: no IP, or cut off. */
bool sv_parse(const uint8_t *f, uint32_t have, uint32_t len, struct sv_layout *o);

/* Sums to be folded: of an IPv4 header, and of the pseudo header. */
uint64_t sv_sum_ip4(const uint8_t *p);
uint64_t sv_pseudo(const uint8_t *f, const struct sv_layout *l, uint32_t l4_len);

/* Fill in the checksums of a contiguous frame: IPv4 header, TCP or UDP. */
void sv_csum_fill(uint8_t *f, uint32_t len);
/* True if the frame is IPv4 with TCP or UDP and both checksums are there and right. */
bool sv_csum_ok4(const uint8_t *f, uint32_t len);

#endif
