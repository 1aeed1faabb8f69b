/*
 * play.c - plays a script against one side and compares.
 *
 * Time is counted from event to event, from when things really happened: the core is held to it within CORE_LATE, the kernel may be late by
 * what its coarse timers and a busy machine cost. A segment that comes out waits in a queue until a line of the script asks for it; how
 * it stands in time to the event before shows whether the order was right.
 */
#include "script.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE 512u
#define PATIENCE 10000000u /* what '*' waits for */
#define CORE_LATE 2000u    /* the core lets a quick ACK wait for a reply for 1 ms */
#define KERNEL_LATE 120000u
#define LOG 8192u

struct play {
	struct sc_target *t;
	const struct sc_script *s;
	uint64_t start, base; /* of the script; when the event before happened */
	uint64_t opened;
	struct sc_pkt q[QUEUE];
	unsigned q_n, q_at;
	char log[LOG];        /* what happened, for a failure's story */
	size_t log_n;
	bool verbose, failed;
};

static void note(struct play *p, uint64_t at, const char *dir, const char *text)
{
	char line[400];
	int n = snprintf(line, sizeof line, "  %11.3f %s %s\n", (double)(int64_t)(at - p->start) / 1000, dir, text);

	if (n < 0)
		return;
	if (p->verbose)
		fputs(line, stdout);
	while (p->log_n + (size_t)n >= sizeof p->log) { /* the oldest line goes */
		char *nl = memchr(p->log, '\n', p->log_n);
		size_t cut = nl != NULL ? (size_t)(nl - p->log) + 1 : p->log_n;

		memmove(p->log, p->log + cut, p->log_n - cut);
		p->log_n -= cut;
	}
	memcpy(p->log + p->log_n, line, (size_t)n);
	p->log_n += (size_t)n;
}

static bool fail(struct play *p, const struct sc_event *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool fail(struct play *p, const struct sc_event *e, const char *fmt, ...)
{
	va_list ap;

	if (p->failed)
		return false;
	p->failed = true;
	if (p->t->slipped)
		return false; /* the caller tries again */
	printf("%s:%u: on the %s: ", p->s->file, e->line, p->t->name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n  line %u: %s\n", e->line, e->text);
	if (!p->verbose)
		printf("  what happened (ms, < to it, > from it):\n%.*s", (int)p->log_n, p->log);
	return false;
}

static bool enqueue(struct play *p, const struct sc_event *e, const struct sc_pkt *k)
{
	char b[300];

	if (p->q_n == QUEUE)
		return fail(p, e, "too many segments that nobody asked for");
	p->q[p->q_n++] = *k;
	sc_show(&p->t->c, b, sizeof b, k, false);
	note(p, k->at, ">", b);
	return true;
}

/* Let the side run until the time given; what comes out is kept. */
static bool run(struct play *p, const struct sc_event *e, uint64_t until)
{
	struct sc_pkt k;

	while (p->t->wait(p->t, until, &k))
		if (!enqueue(p, e, &k))
			return false;
	if (p->t->why[0] != 0)
		return fail(p, e, "%s", p->t->why);
	return true;
}

static bool same(struct play *p, const struct sc_event *e, const struct sc_pkt *k)
{
	const struct sc_pkt *w = &e->pkt;
	const char *what = NULL;
	char a[300], b[300];

	if (((w->flags ^ k->flags) & ~8u) != 0)
		what = "flags";
	else if (w->has_seq && (w->seq != k->seq || w->len != k->len))
		what = "octets";
	else if (!w->has_seq && k->len != 0)
		what = "octets (none wanted)";
	else if (w->has_ack && w->ack != k->ack)
		what = "acknowledgment";
	else if ((w->has_wnd && w->wnd != k->wnd) || k->wnd < w->min_wnd)
		what = "window";
	else if (w->has_tos && w->tos != k->tos)
		what = "ECN field";
	else if (w->has_val && (!k->has_ts || w->tsval != k->tsval))
		what = "TSval";
	else if (w->has_ecr && (!k->has_ts || w->tsecr != k->tsecr))
		what = "TSecr";
	else if (k->has_ts != p->t->c.ts && (k->flags & 4) == 0)
		what = "timestamps";
	else if (w->nsack != k->nsack || memcmp(w->sack, k->sack, sizeof w->sack) != 0)
		what = "SACK blocks";
	else if (k->bad)
		what = "payload";
	if (what == NULL)
		return true;
	sc_show(&p->t->c, a, sizeof a, w, true);
	sc_show(&p->t->c, b, sizeof b, k, false);
	return fail(p, e, "wrong %s\n  wanted %s\n  came   %s", what, a, b);
}

static bool expect(struct play *p, const struct sc_event *e)
{
	struct sc_target *t = p->t;
	uint64_t late = t->core ? CORE_LATE : KERNEL_LATE + (uint64_t)p->s->late_ms * 1000 + e->t1 / 8, min = e->t0, max = e->t1 + late;
	char b[300];
	const struct sc_pkt *k;
	int64_t dt;

	if (e->any) {
		min = 0;
		max = PATIENCE;
	} else if (!t->core && min != 0) {
		min -= min / 16 + (min > 8000 ? 4000 : min / 2); /* jiffies are 4 ms, and stamps of two clocks are compared */
	} else if (min != 0) {
		min -= min > 1000 ? 1000 : min;
	}
	while (p->q_at == p->q_n) {
		struct sc_pkt got;

		if (!t->wait(t, p->base + max, &got)) {
			if (t->why[0] != 0)
				return fail(p, e, "%s", t->why);
			sc_show(&t->c, b, sizeof b, &e->pkt, true);
			return fail(p, e, "nothing came within %.1f ms\n  wanted %s", (double)max / 1000, b);
		}
		if (!enqueue(p, e, &got))
			return false;
	}
	k = &p->q[p->q_at++];
	if (p->q_at == p->q_n)
		p->q_at = p->q_n = 0;
	if (!same(p, e, k))
		return false;
	dt = (int64_t)(k->at - p->base);
	if (dt < (int64_t)min || dt > (int64_t)max) {
		sc_show(&t->c, b, sizeof b, k, false);
		return fail(p, e, "the segment came %.3f ms after the event before it, not %.1f to %.1f\n  came %s", (double)dt / 1000,
		    (double)min / 1000, (double)max / 1000, b);
	}
	if (e->pkt.val_label >= 0)
		t->c.label[e->pkt.val_label] = k->tsval;
	p->base = k->at;
	return true;
}

static bool inject(struct play *p, const struct sc_event *e)
{
	struct sc_target *t = p->t;
	struct sc_conn *c = &t->c;
	struct sc_pkt k = e->pkt;
	char b[300];
	uint32_t end;

	if (!k.has_seq)
		k.seq = c->peer_nxt;
	if (!k.has_ack)
		k.ack = c->last_ack;
	if (!k.has_wnd)
		k.wnd = c->last_wnd;
	if ((k.flags & (2 | 4)) == 0 && (k.flags & 16) != 0) {
		c->last_ack = k.ack;
		c->last_wnd = k.wnd;
	}
	k.has_ts = c->ts && !k.no_ts;
	if (!k.has_val)
		k.tsval = 1000 + (uint32_t)((t->now(t) - p->opened) / 1000);
	if (k.ecr_label >= 0)
		k.tsecr = c->label[k.ecr_label];
	else if (!k.has_ecr)
		k.tsecr = c->last_tsval;
	k.at = t->now(t);
	sc_show(c, b, sizeof b, &k, false);
	note(p, k.at, "<", b);
	end = k.seq + k.len + ((k.flags & 1) != 0);
	if ((int32_t)(end - c->peer_nxt) > 0 && (k.flags & (2 | 4)) == 0)
		c->peer_nxt = end;
	p->base = k.at;
	return t->inject(t, &k) || fail(p, e, "%s", t->why);
}

static bool holds(const struct sc_cond *c, uint32_t v)
{
	if (c->max != c->val)
		return v >= c->val && v <= c->max;
	switch (c->op[0]) {
	case '<':
		return c->op[1] == '=' ? v <= c->val : v < c->val;
	case '>':
		return c->op[1] == '=' ? v >= c->val : v > c->val;
	default:
		return v == c->val;
	}
}

static const uint32_t *figure(const struct sc_figures *f, const char *name)
{
#define F(n) { #n, offsetof(struct sc_figures, n) }
	static const struct { const char *name; size_t at; } list[] = {
		F(cwnd), F(ssthresh), F(mss), F(ca), F(unacked), F(sacked), F(lost), F(retrans), F(total_retrans), F(rtt_ms), F(rto_ms), F(snd_wnd),
		F(notsent),
	};
#undef F
	for (size_t i = 0; i < sizeof list / sizeof *list; i++)
		if (strcmp(list[i].name, name) == 0)
			return (const uint32_t *)(const void *)((const char *)f + list[i].at);
	return NULL;
}

static bool info(struct play *p, const struct sc_event *e)
{
	struct sc_figures now;

	if (!p->t->info(p->t, &now))
		return fail(p, e, "there are no figures");
	for (unsigned i = 0; i < e->n_cond; i++) {
		const uint32_t *v = figure(&now, e->cond[i].field);

		if (v == NULL)
			return fail(p, e, "there is no figure '%s'", e->cond[i].field);
		if (!holds(&e->cond[i], *v))
			return fail(p, e, "%s is %u", e->cond[i].field, *v);
	}
	return true;
}

static bool returned(struct play *p, const struct sc_event *e, int64_t r)
{
	char b[64];

	snprintf(b, sizeof b, "returns %lld", (long long)r);
	note(p, p->base, " ", b);
	if (p->t->why[0] != 0)
		return fail(p, e, "%s", p->t->why);
	if (r != e->want)
		return fail(p, e, "returned %lld%s%s%s", (long long)r, r < 0 ? " (" : "", r < 0 ? strerror((int)-r) : "", r < 0 ? ")" : "");
	return true;
}

static bool quiet(struct play *p, const struct sc_event *e)
{
	char b[300];

	if (p->q_at == p->q_n)
		return true;
	sc_show(&p->t->c, b, sizeof b, &p->q[p->q_at], false);
	return fail(p, e, "a segment nobody asked for, at %.3f ms\n  came %s", (double)(p->q[p->q_at].at - p->start) / 1000, b);
}

static bool one(struct play *p, const struct sc_event *e)
{
	struct sc_target *t = p->t;
	unsigned r;

	if (e->kind == SC_OUT)
		return expect(p, e);
	if (e->kind == SC_DEMOTES)
		return t->demotes(t, e) || fail(p, e, "%s", t->why);
	if (e->kind != SC_OPEN && !run(p, e, p->base + e->t0))
		return false;
	if (e->kind == SC_IN)
		return inject(p, e);
	if (e->kind != SC_INFO && e->kind != SC_POLL && e->kind != SC_INQ && e->kind != SC_OUTQ)
		p->base = t->now(t);
	if (e->kind != SC_QUIET && e->kind != SC_WAIT)
		note(p, p->base, " ", e->text);
	switch (e->kind) {
	case SC_OPEN:
		t->c.last_wnd = e->open.wnd;
		t->c.last_ack = t->c.peer_nxt = 1;
		if (!t->open(t, &e->open))
			return fail(p, e, "%s", t->why);
		p->base = t->now(t);
		return true;
	case SC_QUIET:
		return quiet(p, e);
	case SC_WRITE:
		return returned(p, e, t->write(t, e->n, e->more));
	case SC_READ:
		return returned(p, e, t->read(t, e->n));
	case SC_SHUTDOWN:
		return returned(p, e, t->shutdown(t));
	case SC_CLOSE:
		return returned(p, e, t->close(t));
	case SC_SETOPT:
		return returned(p, e, t->setopt(t, e->name, e->n));
	case SC_INFO:
		return info(p, e);
	case SC_POLL:
		r = t->poll(t) & e->mask;
		return r == e->ready || fail(p, e, "poll says%s%s%s", (r & SC_IN_READY) != 0 ? " in" : "", (r & SC_OUT_READY) != 0 ? " out" : "",
					(r & SC_HUP) != 0 ? " hup" : "");
	case SC_INQ:
		return t->inq(t) == (int64_t)e->n || fail(p, e, "it is %lld", (long long)t->inq(t));
	case SC_OUTQ:
		return t->outq(t) == (int64_t)e->n || fail(p, e, "it is %lld", (long long)t->outq(t));
	case SC_PMTU:
		return t->pmtu(t, e->n) || fail(p, e, "%s", t->why);
	case SC_MOVE:
		return t->move(t) || fail(p, e, "%s", t->why);
	default:
		return true;
	}
}

int sc_play(struct sc_target *t, const struct sc_script *s, bool verbose)
{
	struct play *p = calloc(1, sizeof *p);
	unsigned i;
	int rc;

	if (p == NULL)
		abort();
	p->t = t;
	p->s = s;
	p->verbose = verbose;
	p->start = p->base = p->opened = t->now(t);
	for (i = 0; i < s->n && !p->failed && !t->ended; i++) {
		const struct sc_event *e = &s->ev[i];

		if (e->side != SC_BOTH && (e->side == SC_CORE) != t->core)
			continue;
		one(p, e);
	}
	/* What came out and nobody asked for is an error, also at the end. */
	if (!p->failed && !t->ended && i != 0 && run(p, &s->ev[i - 1], t->now(t)))
		quiet(p, &s->ev[i - 1]);
	rc = !p->failed ? 0 : t->slipped ? 2 : 1;
	t->end(t);
	if (rc == 0 && t->why[0] != 0) {
		printf("%s: on the %s: %s\n", s->file, t->name, t->why);
		rc = 1;
	}
	free(p);
	return rc;
}
