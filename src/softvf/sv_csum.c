/*
 * sv_csum.c - see sv_csum.h. Any thread, no locks.
 */
#include "softvf/sv_csum.h"

#include <arpa/inet.h>
#include <string.h>

static inline uint64_t sv_load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

static inline uint64_t sv_load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

/* Ones' complement: the carry comes around. */
static inline uint64_t sv_add(uint64_t a, uint64_t b)
{
	a += b;
	return a + (a < b);
}

/*
 * Sum of n octets in memory order, added to s; the caller folds. Pieces before the last must have even length. Not inline: next to the
 * kernel's path of a frame, which fills the first-level cache by itself, every line of code that is there twice costs 2 ns per frame.
 */
static __attribute__((noinline)) uint64_t sv_sum(const uint8_t *p, uint32_t n, uint64_t s)
{
	uint64_t a = s, b = 0;

	for (; n >= 32; n -= 32, p += 32) {
		a = sv_add(a, sv_load64(p));
		b = sv_add(b, sv_load64(p + 8));
		a = sv_add(a, sv_load64(p + 16));
		b = sv_add(b, sv_load64(p + 24));
	}
	for (; n >= 8; n -= 8, p += 8)
		a = sv_add(a, sv_load64(p));
	if (n >= 4) {
		b = sv_add(b, sv_load32(p));
		p += 4;
	}
	if ((n & 2) != 0) {
		uint16_t v;

		memcpy(&v, p, 2);
		a = sv_add(a, v);
		p += 2;
	}
	if ((n & 1) != 0)
		b = sv_add(b, ntohs((uint16_t)(*p << 8)));
	return sv_add(a, b);
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

/*
 * IPv4 without options, TCP or UDP, no fragment: what nearly all frames are, told by few instructions. The length of its segment, or 0 if
 * it is something else.
 */
static inline uint32_t sv_usual4(const uint8_t *f, uint32_t len)
{
	uint32_t tot;

	if (len < 14 + 20 + 8 || f[12] != 8 || f[13] != 0 || f[14] != 0x45 || ((f[20] & 0x3f) | f[21]) != 0)
		return 0;
	tot = (uint32_t)f[16] << 8 | f[17];
	if (tot > len - 14 || (f[23] == 6 ? tot < 20 + 20 : f[23] != 17 || tot < 20 + 8))
		return 0;
	return tot - 20;
}

static inline uint64_t sv_usual_ip(const uint8_t *f)
{
	return sv_add(sv_add(sv_load64(f + 14), sv_load64(f + 22)), sv_load32(f + 30));
}

static inline uint64_t sv_usual_l4(const uint8_t *f, uint32_t n)
{
	return sv_sum(f + 34, n, sv_add(sv_load64(f + 26), htonl(n) + (uint64_t)htons(f[23])));
}

static inline void sv_put_csum(uint8_t *p, uint64_t sum, bool udp)
{
	uint16_t c = (uint16_t)~sv_fold(sum);

	if (udp && c == 0)
		c = 0xffff;
	memcpy(p, &c, 2);
}

static __attribute__((noinline, cold)) void fill_any(uint8_t *f, uint32_t len)
{
	struct sv_layout l;

	if (!sv_parse(f, len, len, &l))
		return;
	if (l.ver == 4) {
		sv_clear16(f + l.l3 + 10);
		sv_put_csum(f + l.l3 + 10, sv_sum_ip4(f + l.l3), false);
	}
	if (l.l4 != 0) {
		sv_clear16(f + l.l4 + l.csum_off);
		sv_put_csum(f + l.l4 + l.csum_off, sv_sum(f + l.l4, l.l4_len, sv_pseudo(f, &l, l.l4_len)), l.proto == 17);
	}
}

/* Fill in the checksums of a contiguous frame: IPv4 header, TCP or UDP. */
void sv_csum_fill(uint8_t *f, uint32_t len)
{
	uint32_t n = sv_usual4(f, len);
	uint8_t *c;

	if (__builtin_expect(n == 0, 0)) {
		fill_any(f, len);
		return;
	}
	c = f + 34 + (f[23] == 6 ? 16 : 6);
	sv_clear16(f + 24);
	sv_clear16(c);
	sv_put_csum(f + 24, sv_usual_ip(f), false);
	sv_put_csum(c, sv_usual_l4(f, n), f[23] == 17);
}

static __attribute__((noinline, cold)) bool ok_any(const uint8_t *f, uint32_t len)
{
	struct sv_layout l;

	if (!sv_parse(f, len, len, &l) || l.ver != 4 || l.l4 == 0)
		return false;
	if (l.proto == 17 && f[l.l4 + 6] == 0 && f[l.l4 + 7] == 0)
		return false;
	return sv_fold(sv_sum_ip4(f + l.l3)) == 0xffff &&
	       sv_fold(sv_sum(f + l.l4, l.l4_len, sv_pseudo(f, &l, l.l4_len))) == 0xffff;
}

/* True if the frame is IPv4 with TCP or UDP and both checksums are there and right. */
bool sv_csum_ok4(const uint8_t *f, uint32_t len)
{
	uint32_t n = sv_usual4(f, len);

	if (__builtin_expect(n == 0, 0))
		return ok_any(f, len);
	if (f[23] == 17 && (f[40] | f[41]) == 0)
		return false;
	return sv_fold(sv_usual_ip(f)) == 0xffff && sv_fold(sv_usual_l4(f, n)) == 0xffff;
}
