/*
 * txsum.c - IPv4 header, TCP and UDP checksums of a frame about to be sent, for devices that compute none. Pure; used by ring.c.
 */
#include <string.h>
#include "vf/internal.h"

/* RFC 1071 over pieces of any length: a piece that begins at an odd offset is summed by itself and its bytes swapped. */
struct sum {
	uint64_t v;
	bool odd;
};

static uint16_t fold(uint64_t v)
{
	v = (v & 0xffffffffu) + (v >> 32);
	v = (v & 0xffffu) + (v >> 16);
	v = (v & 0xffffu) + (v >> 16);
	v = (v & 0xffffu) + (v >> 16);
	return (uint16_t)v;
}

static void add(struct sum *s, const uint8_t *p, uint32_t len)
{
	uint64_t v = 0;
	uint32_t n = len;

	for (; n >= 4; n -= 4, p += 4) {
		uint32_t w;

		memcpy(&w, p, 4);
		v += w;
	}
	if (n >= 2) {
		uint16_t w;

		memcpy(&w, p, 2);
		v += w;
		p += 2;
		n -= 2;
	}
	if (n != 0) {
		uint16_t w = 0;

		memcpy(&w, p, 1);
		v += w;
	}
	if (s->odd)
		v = __builtin_bswap16(fold(v));
	s->v += v;
	s->odd ^= len & 1;
}

void hv_vf_txsum(const struct hv_tx *tx, uint8_t *hdr)
{
	uint8_t *l3 = hdr + tx->l3_off, *l4 = hdr + tx->l4_off;
	uint16_t l4_len = (uint16_t)(tx->hdr_len - tx->l4_off + tx->payload), c;
	struct sum s = { 0, false };
	uint8_t proto, pseudo[4];

	if (l3[0] >> 4 == 4) {
		struct sum ip = { 0, false };

		memset(l3 + 10, 0, 2);
		add(&ip, l3, (uint32_t)(l3[0] & 15) * 4);
		c = (uint16_t)~fold(ip.v);
		memcpy(l3 + 10, &c, 2);
		proto = l3[9];
		add(&s, l3 + 12, 8);
	} else {
		proto = l3[6];
		add(&s, l3 + 8, 32);
	}
	if (proto != 6 && proto != 17)
		return;
	pseudo[0] = 0;
	pseudo[1] = proto;
	pseudo[2] = (uint8_t)(l4_len >> 8);
	pseudo[3] = (uint8_t)l4_len;
	add(&s, pseudo, sizeof pseudo);
	memset(l4 + (proto == 6 ? 16 : 6), 0, 2);
	add(&s, l4, (uint32_t)(tx->hdr_len - tx->l4_off));
	for (unsigned i = 0; i < tx->nsge; i++)
		add(&s, tx->sge[i].addr, tx->sge[i].len);
	c = (uint16_t)~fold(s.v);
	if (proto == 17 && c == 0)
		c = 0xffff; /* zero means "no checksum" in UDP (RFC 768) */
	memcpy(l4 + (proto == 6 ? 16 : 6), &c, 2);
}
