/*
 * packet.c - segments of a script to and from the wire, and as text.
 */
#include "script.h"

#include "../sim/seg.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEER_TS 1000u /* TSval of the peer's SYN; also in README.md */

static uint32_t r16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t r32(const uint8_t *p)
{
	return r16(p) << 16 | r16(p + 2);
}

uint8_t sc_octet(bool peer, uint32_t rel)
{
	uint32_t x = rel * 0x85ebca6bu + (peer ? 0x1234u : 0x77u);

	return (uint8_t)(x >> 23 ^ x >> 7);
}

/* 192.0.2.1 or 2001:db8::1 is the side under test, .2 its peer. */
void sc_tuple(const struct sc_conn *c, struct hv_tuple *t, bool from_peer)
{
	memset(t, 0, sizeof *t);
	t->family = c->v6 ? 6 : 4;
	t->proto = 6;
	t->lport = htons(from_peer ? c->rport : c->lport);
	t->rport = htons(from_peer ? c->lport : c->rport);
	inet_pton(c->v6 ? AF_INET6 : AF_INET, c->v6 ? from_peer ? "2001:db8::2" : "2001:db8::1" : from_peer ? "192.0.2.2" : "192.0.2.1", t->laddr);
	inet_pton(c->v6 ? AF_INET6 : AF_INET, c->v6 ? from_peer ? "2001:db8::1" : "2001:db8::2" : from_peer ? "192.0.2.1" : "192.0.2.2", t->raddr);
}

static void options(struct sc_conn *c, struct sc_pkt *p, const uint8_t *o, const uint8_t *end)
{
	while (o < end && *o != 0) {
		if (*o == 1) {
			o++;
			continue;
		}
		if (end - o < 2 || o[1] < 2 || o[1] > end - o) {
			p->bad = true;
			return;
		}
		if (*o == 8 && o[1] == 10) {
			p->has_ts = true;
			p->tsval = r32(o + 2);
			p->tsecr = r32(o + 6);
			if (!c->ts_base_known) {
				c->ts_base = p->tsval;
				c->ts_base_known = true;
			}
			p->tsval -= c->ts_base;
		} else if (*o == 5 && o[1] >= 10) {
			p->nsack = (o[1] - 2u) / 8;
			for (unsigned i = 0; i < p->nsack && i < 4; i++) {
				p->sack[i][0] = r32(o + 2 + 8 * i) - c->irs;
				p->sack[i][1] = r32(o + 6 + 8 * i) - c->irs;
			}
		} else if (*o == 2 && o[1] == 4) {
			p->mss = r16(o + 2);
		} else if (*o == 3 && o[1] == 3) {
			p->wscale = o[2];
		} else if (*o == 4) {
			p->sackok = true;
		}
		o += o[1];
	}
}

bool sc_decode(struct sc_conn *c, const uint8_t *ip, uint32_t len, struct sc_pkt *p)
{
	uint32_t hl = c->v6 ? 40 : 20, doff;
	const uint8_t *t = ip + hl, *data;

	memset(p, 0, sizeof *p);
	p->wscale = p->val_label = p->ecr_label = -1;
	if (len < hl + 20 || ip[0] >> 4 != (c->v6 ? 6 : 4) || (c->v6 ? ip[6] : ip[9]) != 6)
		return false;
	if (!c->v6 && (ip[0] & 15) != 5)
		return false;
	len = (c->v6 ? 40 + r16(ip + 4) : r16(ip + 2)) < len ? (c->v6 ? 40 + r16(ip + 4) : r16(ip + 2)) : len;
	doff = (uint32_t)(t[12] >> 4) * 4;
	if (r16(t) != c->lport || r16(t + 2) != c->rport || doff < 20 || hl + doff > len)
		return false;
	p->tos = (c->v6 ? (uint8_t)(r16(ip) >> 4) : ip[1]) & 3;
	p->flags = t[13];
	if ((p->flags & 2) != 0)
		c->iss = r32(t + 4);
	p->seq = r32(t + 4) - c->iss;
	p->ack = (p->flags & 16) != 0 ? r32(t + 8) - c->irs : 0;
	p->wnd = r16(t + 14) << ((p->flags & 2) != 0 ? 0 : c->rcv_ws);
	p->urg = r16(t + 18);
	p->len = len - hl - doff;
	options(c, p, t + 20, t + doff);
	data = t + doff;
	for (uint32_t i = 0; i < p->len; i++)
		if (data[i] != sc_octet(false, p->seq + i))
			p->bad = true;
	if (p->has_ts && (int32_t)(p->tsval - c->last_tsval) > 0)
		c->last_tsval = p->tsval;
	return true;
}

/* Octets of options of the SYN. */
static uint32_t syn_options(const struct sc_conn *c, uint8_t *o, const struct sc_pkt *p)
{
	uint8_t *at = o;

	*at++ = 2;
	*at++ = 4;
	*at++ = (uint8_t)(p->mss >> 8);
	*at++ = (uint8_t)p->mss;
	*at++ = p->sackok ? 4 : 1;
	*at++ = p->sackok ? 2 : 1;
	if (c->ts) {
		uint32_t v[2] = { htonl(PEER_TS), 0 };

		*at++ = 8;
		*at++ = 10;
		memcpy(at, v, 8);
		at += 8;
	} else {
		*at++ = 1;
		*at++ = 1;
	}
	if (p->wscale >= 0) {
		*at++ = 1;
		*at++ = 3;
		*at++ = 3;
		*at++ = (uint8_t)p->wscale;
	}
	return (uint32_t)(at - o);
}

uint32_t sc_encode(const struct sc_conn *c, uint8_t *frame, const struct sc_pkt *p)
{
	struct hv_tuple from;
	uint8_t *data = malloc(p->len + 1u), opt[40];
	struct seg_spec g = { .from = &from, .seq = c->irs + p->seq, .ack = (p->flags & 16) != 0 ? c->iss + p->ack : 0,
		.wnd = (p->flags & 2) != 0 ? p->wnd : p->wnd >> c->snd_ws, .flags = p->flags, .tos = p->tos, .urg = (uint16_t)p->urg,
		.data = data, .len = p->len };
	uint32_t n;

	if (data == NULL)
		abort();
	sc_tuple(c, &from, true);
	for (uint32_t i = 0; i < g.len; i++)
		data[i] = sc_octet(true, p->seq + i);
	if ((p->flags & 2) != 0 && p->mss != 0) {
		g.opts = opt;
		g.opt_len = syn_options(c, opt, p);
	} else {
		g.has_ts = c->ts && !p->no_ts;
		g.tsval = p->tsval;
		g.tsecr = p->tsecr + (p->tsecr != SC_ANY ? c->ts_base : 1);
		g.nsack = (uint8_t)p->nsack;
		for (unsigned i = 0; i < p->nsack; i++) {
			g.sack[i][0] = c->iss + p->sack[i][0];
			g.sack[i][1] = c->iss + p->sack[i][1];
		}
	}
	n = seg_build(frame, &g);
	free(data);
	return n;
}

static void add(char **at, size_t *left, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add(char **at, size_t *left, const char *fmt, ...)
{
	__builtin_va_list ap;
	int n;

	__builtin_va_start(ap, fmt);
	n = vsnprintf(*at, *left, fmt, ap);
	__builtin_va_end(ap);
	if (n > 0 && (size_t)n < *left) {
		*at += n;
		*left -= (size_t)n;
	}
}

/* As tcpdump writes it. want: only what the script asks for. */
void sc_show(const struct sc_conn *c, char *buf, size_t size, const struct sc_pkt *p, bool want)
{
	static const char letter[] = "FSRP.UEW";

	add(&buf, &size, "Flags [");
	for (unsigned i = 0; i < 8; i++)
		if ((p->flags >> i & 1) != 0 && (!want || i != 3))
			add(&buf, &size, "%c", letter[i]);
	add(&buf, &size, "]");
	if (!want || p->has_seq)
		add(&buf, &size, ", seq %u:%u", p->seq, p->seq + p->len);
	if ((!want && (p->flags & 16) != 0) || p->has_ack)
		add(&buf, &size, ", ack %u", p->ack);
	if (!want || p->has_wnd)
		add(&buf, &size, ", win %u", p->wnd);
	if (want && p->min_wnd != 0)
		add(&buf, &size, ", win >= %u", p->min_wnd);
	if (p->has_ts) {
		add(&buf, &size, ", TS");
		if (!want || p->has_val)
			add(&buf, &size, " val %u", p->tsval);
		if (!want || p->has_ecr)
			add(&buf, &size, " ecr %u", p->tsecr);
	}
	for (unsigned i = 0; i < p->nsack; i++)
		add(&buf, &size, "%s%u:%u", i == 0 ? ", sack " : " ", p->sack[i][0], p->sack[i][1]);
	if (!want || p->has_seq)
		add(&buf, &size, ", length %u", p->len);
	if (want ? p->has_tos : p->tos != 0)
		add(&buf, &size, ", %s", p->tos == 3 ? "CE" : p->tos == 2 ? "ECT(0)" : p->tos == 1 ? "ECT(1)" : "not ECT");
	if (p->bad)
		add(&buf, &size, ", WRONG OCTETS");
	(void)c;
}
