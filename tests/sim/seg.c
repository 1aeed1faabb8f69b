/*
 * seg.c - see seg.h.
 */
#include "seg.h"

#include "host.h"

#include <string.h>

static uint8_t *w16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static uint8_t *w32(uint8_t *p, uint32_t v)
{
	return w16(w16(p, v >> 16), v & 0xffff);
}

static uint8_t *l2_l3(uint8_t *p, const struct hv_tuple *t, const uint8_t *src, const uint8_t *dst, bool vlan, uint8_t tos, uint8_t ttl,
    uint32_t l4_len)
{
	static const uint8_t zero[6];

	memcpy(p, dst != NULL ? dst : zero, 6);
	memcpy(p + 6, src != NULL ? src : zero, 6);
	p += 12;
	if (vlan)
		p = w16(w16(p, 0x8100), 42);
	if (t->family == 4) {
		p = w16(p, 0x0800);
		p = w16(p, 0x4500u | tos);
		p = w16(p, 20 + l4_len);
		p = w32(p, 0x12344000);
		p = w16(p, (uint32_t)ttl << 8 | t->proto);
		p = w16(p, 0);
		memcpy(p, t->laddr, 4);
		memcpy(p + 4, t->raddr, 4);
		return p + 8;
	}
	p = w16(p, 0x86dd);
	p = w32(p, 0x60000000u | (uint32_t)tos << 20);
	p = w16(p, l4_len);
	p = w16(p, (uint32_t)t->proto << 8 | ttl);
	memcpy(p, t->laddr, 16);
	memcpy(p + 16, t->raddr, 16);
	return p + 32;
}

uint32_t seg_build(uint8_t *frame, const struct seg_spec *s)
{
	uint8_t opt[64], *o = opt, *p, *l4;
	uint32_t opt_len;

	if (s->opts != NULL) {
		memcpy(opt, s->opts, s->opt_len);
		o += s->opt_len;
	} else {
		if (s->has_ts) {
			o = w32(o, 0x0101080a);
			o = w32(w32(o, s->tsval), s->tsecr);
		}
		if (s->nsack != 0) {
			o = w32(o, 0x01010500u | (2u + 8u * s->nsack));
			for (int i = 0; i < s->nsack; i++)
				o = w32(w32(o, s->sack[i][0]), s->sack[i][1]);
		}
	}
	opt_len = (uint32_t)(o - opt);
	l4 = l2_l3(frame, s->from, s->src_mac, s->dst_mac, s->vlan, s->tos, s->ttl != 0 ? s->ttl : 64, 20 + opt_len + s->len);
	memcpy(l4, &s->from->lport, 2);
	memcpy(l4 + 2, &s->from->rport, 2);
	p = w32(w32(l4 + 4, s->seq), s->ack);
	*p++ = (uint8_t)((5 + opt_len / 4) << 4);
	*p++ = s->flags;
	p = w16(p, s->wnd);
	p = w16(w16(p, 0), s->urg);
	memcpy(p, opt, opt_len);
	p += opt_len;
	if (s->len != 0)
		memcpy(p, s->data, s->len);
	p += s->len;
	uint32_t l3_off = s->vlan ? 18 : 14, len = (uint32_t)(p - frame);
	host_fill_csum(frame, l3_off, (uint32_t)(l4 - frame), len);
	return len;
}

uint32_t udp_build(uint8_t *frame, const struct hv_tuple *from, const uint8_t *data, uint32_t len, bool zero_csum)
{
	uint8_t *l4 = l2_l3(frame, from, NULL, NULL, false, 0, 64, 8 + len), *p;

	memcpy(l4, &from->lport, 2);
	memcpy(l4 + 2, &from->rport, 2);
	p = w16(w16(l4 + 4, 8 + len), 0);
	if (len != 0)
		memcpy(p, data, len);
	host_fill_csum(frame, 14, (uint32_t)(l4 - frame), (uint32_t)(p - frame) + len);
	if (zero_csum)
		w16(l4 + 6, 0);
	return (uint32_t)(p - frame) + len;
}
