/*
 * sv_csum.c - see sv_csum.h. Any thread, no locks.
 */
#include "softvf/sv_csum.h"

#include <arpa/inet.h>
#include <string.h>

/*
 * Sum of n octets in memory order, added to s; the caller folds. Pieces before the last must have even length. Not inline: next to the
 * kernel's path of a frame, which fills the first-level cache by itself, every line of code that is there twice costs 2 ns per frame.
 */
static __attribute__((noinline)) uint64_t sv_sum(const void *data, uint32_t n, uint64_t s)
{
	const uint8_t *p = data;
	unsigned __int128 a = s, b = 0;
	uint64_t w[4], lo, hi;

	for (; n >= 32; n -= 32, p += 32) {
		memcpy(w, p, 32);
		a += w[0];
		b += w[1];
		a += w[2];
		b += w[3];
	}
	for (; n >= 8; n -= 8, p += 8) {
		memcpy(w, p, 8);
		a += w[0];
	}
	if (n > 0) {
		w[0] = 0;
		memcpy(w, p, n);
		b += w[0];
	}
	a += b;
	lo = (uint64_t)a;
	hi = (uint64_t)(a >> 64);
	lo = (lo & 0xffffffff) + (lo >> 32) + (hi & 0xffffffff);
	return (lo & 0xffffffff) + (lo >> 32);
}

bool sv_parse(const uint8_t *f, uint32_t have, uint32_t len, struct sv_layout *o)
{
	uint32_t off = 12, hl, tot;
	uint16_t type;

	memset(o, 0, sizeof *o);
	if (have < 14)
		return false;
	memcpy(&type, f + off, 2);
	if (type == htons(0x8100) && have >= 18) {
		off += 4;
		memcpy(&type, f + off, 2);
	}
	off += 2;
	if (type == htons(0x0800) && have >= off + 20 && f[off] >> 4 == 4) {
		hl = (f[off] & 15u) * 4;
		tot = (uint32_t)f[off + 2] << 8 | f[off + 3];
		if (hl < 20 || have < off + hl || tot < hl || off + tot > len)
			return false;
		o->ver = 4;
		o->proto = f[off + 9];
		o->l3 = off;
		if (((f[off + 6] & 0x3f) | f[off + 7]) != 0)
			return true;
	} else if (type == htons(0x86dd) && have >= off + 40 && f[off] >> 4 == 6) {
		hl = 40;
		tot = 40 + ((uint32_t)f[off + 4] << 8 | f[off + 5]);
		if (off + tot > len)
			return false;
		o->ver = 6;
		o->proto = f[off + 6];
		o->l3 = off;
	} else {
		return false;
	}
	o->csum_off = o->proto == 6 ? 16 : 6;
	if ((o->proto == 6 && tot - hl >= 20) || (o->proto == 17 && tot - hl >= 8)) {
		if (have < off + hl + o->csum_off + 2)
			return true;
		o->l4 = off + hl;
		o->l4_len = tot - hl;
	}
	return true;
}

static inline uint64_t sv_load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

/* Sum of an IPv4 header; nearly all have no options. */
uint64_t sv_sum_ip4(const uint8_t *p)
{
	if (__builtin_expect((p[0] & 15) != 5, 0))
		return sv_sum(p, (p[0] & 15u) * 4, 0);
	return sv_load32(p) + sv_load32(p + 4) + sv_load32(p + 8) + sv_load32(p + 12) + sv_load32(p + 16);
}

/* Sum of the pseudo header. */
uint64_t sv_pseudo(const uint8_t *f, const struct sv_layout *l, uint32_t l4_len)
{
	uint64_t s = htonl(l4_len) + (uint64_t)htons(l->proto);

	return __builtin_expect(l->ver == 4, 1) ? s + sv_load32(f + l->l3 + 12) + sv_load32(f + l->l3 + 16) : sv_sum(f + l->l3 + 8, 32, s);
}

/* A store of two octets that a wide load reads again at once stalls it: only where there is something to clear. */
static inline void sv_clear16(uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	if (v != 0)
		memset(p, 0, 2);
}

/* Fill in the checksums of a contiguous frame: IPv4 header, TCP or UDP. */
void sv_csum_fill(uint8_t *f, uint32_t len)
{
	struct sv_layout l;
	uint16_t c;

	if (!sv_parse(f, len, len, &l))
		return;
	if (l.ver == 4) {
		sv_clear16(f + l.l3 + 10);
		c = (uint16_t)~sv_fold(sv_sum_ip4(f + l.l3));
		memcpy(f + l.l3 + 10, &c, 2);
	}
	if (l.l4 != 0) {
		sv_clear16(f + l.l4 + l.csum_off);
		c = (uint16_t)~sv_fold(sv_sum(f + l.l4, l.l4_len, sv_pseudo(f, &l, l.l4_len)));
		if (c == 0 && l.proto == 17)
			c = 0xffff;
		memcpy(f + l.l4 + l.csum_off, &c, 2);
	}
}

/* True if the frame is IPv4 with TCP or UDP and both checksums are there and right. */
bool sv_csum_ok4(const uint8_t *f, uint32_t len)
{
	struct sv_layout l;

	if (!sv_parse(f, len, len, &l) || l.ver != 4 || l.l4 == 0)
		return false;
	if (l.proto == 17 && f[l.l4 + 6] == 0 && f[l.l4 + 7] == 0)
		return false;
	return sv_fold(sv_sum_ip4(f + l.l3)) == 0xffff &&
	       sv_fold(sv_sum(f + l.l4, l.l4_len, sv_pseudo(f, &l, l.l4_len))) == 0xffff;
}
