/*
 * stall.c - see stall.h. A second reading of RFC 6298 and RFC 8985 7, from outside: pure, no clock, one thread.
 */
#include "stall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RTO_MIN_US 200000u
#define RTO_MAX_US 120000000u

struct sent { uint64_t ns; uint32_t seq, len; bool again, lost; };

struct end { /* what one end has to know */
	uint32_t una, nxt, wrote;
	uint32_t srtt8, rttvar4;  /* us */
	uint64_t since;           /* the timer runs from here */
	uint64_t head_ns;         /* when SND.UNA was sent last */
	uint64_t last_ns;         /* anything sent or heard */
	uint32_t timeouts;        /* without an answer */
	bool probed, said;
	uint32_t lost_ack;        /* the most that a lost segment of the other end acknowledges */
	struct sent *tx;
	uint32_t n, cap;
};

struct wait { uint64_t from, to; uint8_t side; bool late, caused, used; };
struct gap { uint64_t from, to; uint64_t rto_us, rtt_us; };

struct judge {
	struct end end[2];
	struct wait *wait;
	struct gap *gap;
	uint32_t n_wait, cap_wait, n_gap, cap_gap;
};

static void *grow(void *p, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap)
		return p;
	*cap = *cap * 2 + 64;
	p = realloc(p, *cap * size);
	if (p == NULL)
		abort();
	return p;
}

void stall_note(struct stall_log *l, const struct stall_event *e)
{
	l->e = grow(l->e, l->n, &l->cap, sizeof *l->e);
	l->e[l->n++] = *e;
}

static bool after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static bool covers(uint32_t seq, uint32_t len, uint32_t at)
{
	return at - seq < len;
}

/* How this octet was sent last. */
static struct sent *last_sent(struct end *s, uint32_t at)
{
	for (uint32_t i = s->n; i-- != 0;)
		if (covers(s->tx[i].seq, s->tx[i].len, at))
			return &s->tx[i];
	return NULL;
}

static uint64_t base_rto_us(const struct end *s)
{
	return (uint64_t)(s->srtt8 >> 3) + (s->rttvar4 > RTO_MIN_US ? s->rttvar4 : RTO_MIN_US);
}

static uint64_t rto_us(const struct end *s)
{
	uint64_t r = base_rto_us(s) << (s->timeouts < 16 ? s->timeouts : 16);

	return r < RTO_MAX_US ? r : RTO_MAX_US;
}

static void sample(struct end *s, uint64_t us)
{
	int64_t off = (int64_t)us - (s->srtt8 >> 3), dev = off < 0 ? -off : off;

	s->srtt8 = (uint32_t)(s->srtt8 + off);
	s->rttvar4 = (uint32_t)(s->rttvar4 + dev - (s->rttvar4 >> 2));
}

static void add_wait(struct judge *j, unsigned side, uint64_t to, bool late, bool caused)
{
	j->wait = grow(j->wait, j->n_wait, &j->cap_wait, sizeof *j->wait);
	j->wait[j->n_wait++] = (struct wait){ .from = j->end[side].since, .to = to, .side = (uint8_t)side, .late = late, .caused = caused };
}

/* The time is ns, and this end hasn't done anything since. */
static void too_late(struct judge *j, unsigned side, uint64_t ns)
{
	struct end *s = &j->end[side];
	uint64_t may = rto_us(s);

	if (s->said || (!after(s->nxt, s->una) && !after(s->wrote, s->nxt)))
		return;
	if (ns - s->since <= (may + may / 8 + (s->srtt8 >> 3) + STALL_MARGIN_US) * 1000)
		return;
	s->said = true;
	add_wait(j, side, ns, true, false);
}

static void restart(struct end *s, uint64_t ns)
{
	s->since = ns;
	s->said = false;
}

static void on_sent(struct judge *j, unsigned side, const struct stall_event *e)
{
	struct end *s = &j->end[side];
	const struct sent *head;

	if (e->len == 0)
		return;
	if (covers(e->seq, e->len, s->una)) {
		head = last_sent(s, s->una);
		if (head != NULL && e->ns - s->since >= rto_us(s) * 875) {
			/* seven eighths of it: not by an ACK, by the timer */
			add_wait(j, side, e->ns, false, head->lost || after(s->lost_ack, s->una));
			s->timeouts++;
		}
		s->head_ns = e->ns;
		restart(s, e->ns);
	} else if (s->timeouts == 0 && !s->probed && e->ns - s->last_ns >= (uint64_t)(s->srtt8 >> 3) * 1000) {
		/* a tail loss probe, and the RTO is counted from there; only one */
		s->probed = true;
		restart(s, e->ns);
	}
	s->tx = grow(s->tx, s->n, &s->cap, sizeof *s->tx);
	s->tx[s->n++] = (struct sent){ .ns = e->ns, .seq = e->seq, .len = e->len, .again = after(s->nxt, e->seq) };
	if (after(e->seq + e->len, s->nxt))
		s->nxt = e->seq + e->len;
	s->last_ns = e->ns;
}

static void on_lost(struct judge *j, unsigned side, const struct stall_event *e)
{
	struct end *s = &j->end[side], *to = &j->end[!side];
	struct sent *x = e->len != 0 ? last_sent(s, e->seq) : NULL;

	if (x != NULL)
		x->lost = true;
	if (after(e->ack, to->lost_ack))
		to->lost_ack = e->ack;
}

static void on_heard(struct judge *j, unsigned side, const struct stall_event *e)
{
	struct end *s = &j->end[side];
	const struct sent *first, *last;

	if (after(e->ack, s->una)) {
		first = last_sent(s, s->una);
		last = last_sent(s, e->ack - 1);
		if (first != NULL && last != NULL && !first->again && !last->again)
			sample(s, (e->ns - last->ns) / 1000);
		s->una = e->ack;
		last = last_sent(s, s->una);
		s->head_ns = last != NULL ? last->ns : e->ns;
		s->timeouts = 0;
		s->probed = false;
		restart(s, e->ns);
	} else if (e->sack && e->ns - s->head_ns <= (uint64_t)(s->srtt8 >> 3) * 2000) {
		/* about what was sent before the octet at SND.UNA was, the last time */
		restart(s, e->ns);
	}
	s->last_ns = e->ns;
}

static void on_wrote(struct judge *j, unsigned side, const struct stall_event *e)
{
	struct end *s = &j->end[side];

	if (!after(s->nxt, s->una) && !after(s->wrote, s->nxt))
		restart(s, e->ns);
	s->wrote = e->seq;
}

static void add_gap(struct judge *j, uint64_t from, uint64_t to)
{
	uint64_t rto[2] = { base_rto_us(&j->end[0]), base_rto_us(&j->end[1]) };
	uint32_t rtt[2] = { j->end[0].srtt8 >> 3, j->end[1].srtt8 >> 3 };

	if (to - from < (uint64_t)STALL_MIN_US * 1000)
		return;
	j->gap = grow(j->gap, j->n_gap, &j->cap_gap, sizeof *j->gap);
	j->gap[j->n_gap++] = (struct gap){ .from = from, .to = to, .rto_us = rto[0] > rto[1] ? rto[0] : rto[1], .rtt_us = rtt[0] > rtt[1] ? rtt[0] : rtt[1] };
}

static void say(struct stall_report *r, const char *what, unsigned side, uint64_t from, uint64_t to, uint64_t start)
{
	if (r->why[0] == 0)
		snprintf(r->why, sizeof r->why, what, 'a' + (int)side, (double)(to - from) / 1e6, ((double)from - (double)start) / 1e6);
}

static const char late_text[] = "end %c was silent for %.1f ms from %.1f ms on", other_text[] = "end %c read nothing for %.1f ms from %.1f ms on";

static void sort_out(struct judge *j, const struct gap *g, unsigned reader, uint64_t start, struct stall_report *r)
{
	uint64_t allowed = (g->rto_us + g->rtt_us + STALL_DELACK_US) * 1000, spent = 0, at = g->from;
	uint32_t timeouts = 0;
	bool late = false, caused = true;

	for (uint32_t i = 0; i < j->n_wait; i++) {
		struct wait *w = &j->wait[i];
		uint64_t from = w->from > at ? w->from : at, to = w->to < g->to ? w->to : g->to;

		if (w->from >= g->to || w->to <= g->from)
			continue;
		if (w->late) {
			if (!late)
				r->late[w->side]++;
			w->used = late = true;
			say(r, late_text, w->side, w->from, w->to, start);
			continue;
		}
		caused = caused && w->caused;
		timeouts++;
		if (to > from) {
			spent += to - from;
			at = to;
		}
	}
	if (late)
		return;
	if (g->to - g->from <= allowed) {
		r->within++;
	} else if (caused && g->to - g->from - spent <= allowed) {
		r->lost++;
		r->timeouts += timeouts;
	} else {
		r->other++;
		say(r, other_text, reader, g->from, g->to, start);
	}
}

void stall_judge(const struct stall_log *const logs[], unsigned n_logs, unsigned reader, uint64_t from_ns, uint64_t to_ns, const uint32_t rtt_us[2],
    struct stall_report *r)
{
	struct judge j = { .n_wait = 0 };
	uint32_t at[8] = { 0 };
	uint64_t read_ns = from_ns;

	memset(r, 0, sizeof *r);
	for (unsigned i = 0; i < 2; i++)
		j.end[i] = (struct end){ .srtt8 = rtt_us[i] * 8, .rttvar4 = rtt_us[i] * 2 };
	for (;;) {
		const struct stall_event *e = NULL;
		unsigned of = 0;

		for (unsigned i = 0; i < n_logs; i++)
			if (at[i] != logs[i]->n && (e == NULL || logs[i]->e[at[i]].ns < e->ns))
				e = &logs[of = i]->e[at[i]];
		if (e == NULL || e->ns > to_ns)
			break;
		at[of]++;
		too_late(&j, 0, e->ns);
		too_late(&j, 1, e->ns);
		switch ((enum stall_what)e->what) {
		case STALL_SENT: on_sent(&j, e->side, e); break;
		case STALL_LOST: on_lost(&j, e->side, e); break;
		case STALL_HEARD: on_heard(&j, e->side, e); break;
		case STALL_WROTE: on_wrote(&j, e->side, e); break;
		case STALL_READ:
			if (e->side == reader && e->ns > read_ns) {
				add_gap(&j, read_ns, e->ns);
				read_ns = e->ns;
			}
			break;
		}
	}
	too_late(&j, 0, to_ns);
	too_late(&j, 1, to_ns);
	add_gap(&j, read_ns, to_ns);
	for (uint32_t i = 0; i < j.n_gap; i++)
		sort_out(&j, &j.gap[i], reader, from_ns, r);
	for (uint32_t i = 0; i < j.n_wait; i++)
		if (j.wait[i].late && !j.wait[i].used) {
			r->late[j.wait[i].side]++;
			say(r, late_text, j.wait[i].side, j.wait[i].from, j.wait[i].to, from_ns);
		}
	for (unsigned i = 0; i < 2; i++)
		free(j.end[i].tx);
	free(j.wait);
	free(j.gap);
}
