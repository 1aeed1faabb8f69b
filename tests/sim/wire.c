/*
 * wire.c - judge of everything that a side puts on the wire, by its own reading of the octets.
 */
#include "sim.h"

#include <string.h>

static uint32_t r16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t r32(const uint8_t *p)
{
	return r16(p) << 16 | r16(p + 2);
}

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

struct view { uint32_t seq, ack, wnd, len, tsval, tsecr, nsack, sack[4][2]; uint8_t flags; bool ts; const uint8_t *data; };

static bool read_options(struct view *v, const uint8_t *o, const uint8_t *end)
{
	while (o < end) {
		if (*o == 0)
			break;
		if (*o == 1) {
			o++;
			continue;
		}
		if (end - o < 2 || o[1] < 2 || o[1] > end - o)
			return false;
		if (*o == 8 && o[1] == 10) {
			v->ts = true;
			v->tsval = r32(o + 2);
			v->tsecr = r32(o + 6);
		} else if (*o == 5 && o[1] >= 10 && (o[1] - 2) % 8 == 0) {
			v->nsack = (o[1] - 2u) / 8;
			for (uint32_t i = 0; i < v->nsack && i < 4; i++) {
				v->sack[i][0] = r32(o + 2 + 8 * i);
				v->sack[i][1] = r32(o + 6 + 8 * i);
			}
		} else {
			return false; /* nothing else belongs on a segment without SYN */
		}
		o += o[1];
	}
	return true;
}

static void judge_data(struct world *w, uint32_t who, const struct view *v)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	uint32_t off = v->seq - s->app.base;

	if (v->len > s->mss)
		world_fail(w, "%u: segment of %u octets, MSS is %u", who, v->len, s->mss);
	if (off > s->app.total || v->len > s->app.total - off || off + v->len > s->app.written) {
		world_fail(w, "%u: sends octets %u..%u, program wrote %u", who, off, off + v->len, s->app.written);
		return;
	}
	for (uint32_t i = 0; i < v->len; i++)
		if (v->data[i] != app_octet(w, who, off + i)) {
			world_fail(w, "%u: wrong octet on the wire at stream offset %u (segment at %u, %u octets)", who, off + i, off,
			    v->len);
			return;
		}
	if (before(peer->edge_max, v->seq + v->len))
		world_fail(w, "%u: data up to %u exceeds the peer's window edge by %u", who, off + v->len,
		    v->seq + v->len - peer->edge_max);
}

static void judge_ack(struct world *w, uint32_t who, const struct view *v, bool kernel)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	uint32_t edge = v->ack + (v->wnd << s->ws);

	if (before(peer->sent_max, v->ack))
		world_fail(w, "%u: acks octets that were never sent", who);
	if (before(s->edge_max, edge))
		s->edge_max = edge;
	if (kernel)
		return;
	if (s->seen_ack && before(v->ack, s->last_ack))
		world_fail(w, "%u: ACK goes back by %u", who, s->last_ack - v->ack);
	s->last_ack = v->ack;
	s->seen_ack = true;
	/* Out of memory, a segment was refused: as in Linux the window closes at once, and opens again from there. */
	if (before(edge, s->edge) && !(v->wnd == 0 && s->refused))
		world_fail(w, "%u: advertised edge shrinks by %u (window %u << %u)", who, s->edge - edge, v->wnd, s->ws);
	s->edge = edge;
	s->refused = false;
	for (uint32_t i = 0; i < v->nsack; i++) {
		bool dsack = i == 0 && !before(v->ack, v->sack[0][1]);
		if (i == 0 && v->nsack > 1) /* RFC 2883: about octets inside the block that follows */
			dsack |= !before(v->sack[0][0], v->sack[1][0]) && !before(v->sack[1][1], v->sack[0][1]);
		if (!before(v->sack[i][0], v->sack[i][1]) || before(peer->sent_max, v->sack[i][1]))
			world_fail(w, "%u: SACK block %u is empty or was never sent", who, i);
		else if (!dsack && !before(v->ack, v->sack[i][0]))
			world_fail(w, "%u: SACK block %u starts at or below the ACK", who, i);
		for (uint32_t j = i + 1; !dsack && j < v->nsack; j++)
			if (before(v->sack[i][0], v->sack[j][1]) && before(v->sack[j][0], v->sack[i][1]))
				world_fail(w, "%u: SACK blocks %u and %u overlap", who, i, j);
	}
}

static void trace(const struct world *w, const struct wire_arg *a, const struct view *v)
{
	const struct side *s = &w->side[a->who];
	uint32_t base = w->side[1 - a->who].app.base;

	printf("%12lu %u> seq %u len %u ack %u wnd %u", (unsigned long)w->now, a->who, v->seq - s->app.base, v->len, v->ack - base,
	    v->wnd << s->ws);
	for (uint32_t i = 0; i < v->nsack; i++)
		printf("%s%u-%u", i == 0 ? " sack " : ",", v->sack[i][0] - base, v->sack[i][1] - base);
	printf("%s%s\n", (v->flags & SEG_FIN) != 0 ? " FIN" : "", a->kernel ? " (kernel)" : "");
}

void wire_out(void *arg, const uint8_t *frame, uint32_t len)
{
	struct wire_arg *a = arg;
	struct world *w = a->w;
	struct side *s = &w->side[a->who];
	uint32_t l3 = frame[12] == 0x81 ? 18 : 14, l4 = l3 + (w->v6 ? 40 : 20), doff = (uint32_t)(frame[l4 + 12] >> 4) * 4, ecn;
	const uint8_t *t = frame + l4;
	bool fin;
	struct view v = { .seq = r32(t + 4), .ack = r32(t + 8), .wnd = r16(t + 14), .flags = t[13], .data = t + doff };

	v.len = len - l4 - doff;
	s->frames++;
	if (doff < 20 || l4 + doff > len || !read_options(&v, t + 20, t + doff)) {
		world_fail(w, "%u: malformed segment", a->who);
		return;
	}
	if (w->verbose)
		trace(w, a, &v);
	if (memcmp(t, &s->tuple.lport, 2) != 0 || memcmp(t + 2, &s->tuple.rport, 2) != 0)
		world_fail(w, "%u: wrong ports", a->who);
	fin = (v.flags & SEG_FIN) != 0;
	if ((v.flags & (SEG_SYN | SEG_RST | SEG_URG)) != 0 || (v.flags & SEG_ACK) == 0 || ((v.flags & SEG_CWR) != 0 && v.len == 0))
		world_fail(w, "%u: flags %#x", a->who, v.flags);
	if (fin && (!a->kernel || !s->kern.shut || v.seq + v.len - s->app.base != s->app.total))
		world_fail(w, "%u: a FIN at %u of %u", a->who, v.seq + v.len - s->app.base, s->app.total);
	if (!a->kernel && ((s->ece_must && (v.flags & SEG_ECE) == 0) || (!s->ece_may && (v.flags & SEG_ECE) != 0)))
		world_fail(w, "%u: ECE is %s", a->who, s->ece_must ? "missing" : "set without a mark");
	if (!w->ecn && (v.flags & (SEG_ECE | SEG_CWR)) != 0)
		world_fail(w, "%u: ECN was not negotiated", a->who);
	/* RFC 3168 6.1: ECT(0) on data that is sent for the first time, and on nothing else */
	ecn = frame[l3] >> 4 == 4 ? frame[l3 + 1] & 3 : frame[l3 + 1] >> 4 & 3;
	if (!a->kernel && ecn != (w->ecn && v.len != 0 && !before(v.seq, s->sent_max) ? 2u : 0u) &&
	    !(ecn == 0 && before(v.seq, s->import_end)))
		world_fail(w, "%u: ECN field %u, %u octets at %u, %u is new", a->who, ecn, v.len, v.seq, s->sent_max);
	if (v.ts != s->ts)
		world_fail(w, "%u: timestamp option %s", a->who, v.ts ? "was not negotiated" : "missing");
	if (v.ts && s->seen_ts && (int32_t)(v.tsval - s->last_tsval) < 0)
		world_fail(w, "%u: TSval goes back by %u", a->who, s->last_tsval - v.tsval);
	if (v.ts && !a->kernel) {
		s->seen_ts = true;
		s->last_tsval = v.tsval;
	}
	if (v.len != 0)
		judge_data(w, a->who, &v);
	if (!a->kernel && before(s->sent_stack, v.seq + v.len))
		s->sent_stack = v.seq + v.len;
	if (before(s->sent_max, v.seq + v.len + fin))
		s->sent_max = v.seq + v.len + fin;
	judge_ack(w, a->who, &v, a->kernel);
	if (w->stall.on && a->who == 0 && v.len != 0)
		bulk_sent(w, v.seq, v.len);
	link_send(w, a->who, frame, len);
}
