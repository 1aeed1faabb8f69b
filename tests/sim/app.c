/*
 * app.c - the programs: a writer with random sizes and pauses, a reader that may be eager, slow, or asleep for a while.
 *
 * They act on READABLE and WRITABLE only, as a program woken by epoll would: a wake-up that the stack forgets shows as a stall.
 */
#include "sim.h"
#include "twin.h"

#include <string.h>

#define WRITES_PER_EVENT 8

uint8_t app_octet(const struct world *w, uint32_t who, uint32_t off)
{
	uint32_t x = (off + (who << 31)) * 0x9e3779b1u ^ (uint32_t)w->seed * 0x85ebca6bu;

	return (uint8_t)(x >> 24 ^ x >> 11);
}

void app_fill(const struct world *w, uint32_t who, uint32_t off, uint8_t *dst, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		dst[i] = app_octet(w, who, off + i);
}

static void sched_write(struct world *w, uint32_t who, uint32_t in_us)
{
	struct app *a = &w->side[who].app;

	if (!a->wr_sched) {
		a->wr_sched = true;
		world_push(w, w->now + in_us, EV_WRITE, who);
	}
}

static void sched_read(struct world *w, uint32_t who, uint32_t in_us)
{
	struct app *a = &w->side[who].app;

	if (!a->rd_sched) {
		a->rd_sched = true;
		world_push(w, w->now + in_us, EV_READ, who);
	}
}

static void random_option(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct hv_tcb *t = s->h.tcb;
	unsigned acts = 0;

	switch (prng_in(&w->rng, 0, 6)) {
	case 0: acts = hv_tcp_setopt(t, HV_TCP_NODELAY, prng_in(&w->rng, 0, 1), w->now); break;
	case 1: acts = hv_tcp_setopt(t, HV_TCP_CORK, prng_in(&w->rng, 0, 1), w->now); break;
	case 2: acts = hv_tcp_setopt(t, HV_TCP_QUICKACK, prng_in(&w->rng, 0, 1), w->now); break;
	case 3: acts = hv_tcp_setopt(t, HV_TCP_RCVBUF, prng_log(&w->rng, 4608, 1u << 22), w->now); break;
	case 4: acts = hv_tcp_setopt(t, HV_TCP_SNDBUF, prng_log(&w->rng, 4608, 1u << 22), w->now); break;
	case 5: acts = hv_tcp_setopt(t, HV_TCP_NOTSENT_LOWAT, prng_in(&w->rng, 0, 1) != 0 ? 0xffffffffu : prng_log(&w->rng, 1, 1u << 17),
	    w->now);
		break;
	case 6: acts = hv_tcp_setopt(t, HV_TCP_WINDOW_CLAMP, prng_in(&w->rng, 0, 1) != 0 ? 0 : prng_log(&w->rng, 2304, 1u << 20), w->now);
	    break;
	default: break;
	}
	side_after(w, who, acts);
}

/* Octets that the program has reason to write by now. */
static uint32_t due(const struct app *a)
{
	uint32_t n;

	if (a->ask == 0)
		return a->total;
	n = (a->read / a->answer + a->ahead) * a->ask;
	return n < a->total ? n : a->total;
}

/* True: the shortcut took the octets. */
static bool write_fast(struct world *w, uint32_t who, const uint8_t *data, uint32_t len)
{
	struct side *s = &w->side[who];
	struct wire_arg arg = { w, who, false };
	struct hv_tx tx;
	const char *differ;
	uint32_t outq = hv_tcp_outq(s->h.tcb), got;
	uint64_t deadline = hv_tcp_deadline(s->h.tcb);

	if (s->need_out || !host_sq_room(&s->h))
		return false;
	if (w->twins && (differ = twin_send(&s->h, data, len, w->now)) != NULL)
		world_fail(w, "%u: %s", who, differ);
	got = hv_tcp_send_fast(s->h.tcb, &s->h.env, data, len, &tx, w->now);
	host_check(&s->h);
	if (got != 0 && got != len)
		world_fail(w, "%u: send_fast took %u of %u octets", who, got, len);
	if (hv_tcp_outq(s->h.tcb) != outq || hv_tcp_deadline(s->h.tcb) != deadline)
		world_fail(w, "%u: send_fast changed the TCB before the commit", who);
	if (got == 0 || prng_ppm(&w->rng, 50000))
		return false; /* not posted after all: nothing may remain of it */
	if (!tx.inline_ok || tx.payload != len || tx.mss != 0)
		world_fail(w, "%u: send_fast built something else than one segment of %u octets by value", who, len);
	s->app.written += len;
	host_post(&s->h, &tx, wire_out, &arg);
	hv_tcp_send_commit(s->h.tcb, &s->h.env, data, len, w->now);
	if (hv_tcp_outq(s->h.tcb) != outq + len)
		world_fail(w, "%u: send_commit queued %u octets of %u", who, hv_tcp_outq(s->h.tcb) - outq, len);
	side_after(w, who, 0);
	return true;
}

/* Everything is written: the time of the last word has come, at once or later. */
static void closing(struct world *w, uint32_t who)
{
	struct app *a = &w->side[who].app;

	if (!a->closes || a->close_sched || a->written != a->total)
		return;
	a->close_sched = true;
	world_push(w, w->now + a->close_us, EV_SHUT, who);
}

/* The last octet fills the other's window to the brim: there is no room for the FIN. */
static void end_at_edge(struct world *w, uint32_t who)
{
	struct app *a = &w->side[who].app;
	uint32_t room = w->side[1 - who].edge_max - a->base - a->written;

	if (a->to_edge && a->ask == 0 && room - 1 < 65536 && room < a->total - a->written)
		a->total = a->written + room;
}

static void write_kernel(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct app *a = &s->app;

	for (int i = 0; i < WRITES_PER_EVENT && a->written < due(a); i++) {
		uint32_t len = a->ask != 0 ? a->ask : prng_log(&w->rng, 1, a->wr_max), room = kern_room(s);
		if (len > due(a) - a->written)
			len = due(a) - a->written;
		a->blocked = len > room;
		a->written += len < room ? len : room;
		if (a->blocked || a->think_us != 0)
			break;
	}
	kern_wrote(w, who);
}

void app_write(struct world *w, uint32_t who)
{
	static uint8_t data[1u << 18];
	struct side *s = &w->side[who];
	struct app *a = &s->app;

	a->wr_sched = false;
	end_at_edge(w, who);
	if (s->kern.on)
		write_kernel(w, who);
	for (int i = 0; i < WRITES_PER_EVENT && a->written < due(a) && !s->kern.on && w->fail[0] == 0; i++) {
		uint32_t len = a->ask != 0 ? a->ask : prng_log(&w->rng, 1, a->wr_max), took, room;
		unsigned acts = 0;
		if (s->frozen || !s->h.live)
			return;
		if (prng_ppm(&w->rng, a->opt_ppm))
			random_option(w, who);
		if (len > due(a) - a->written)
			len = due(a) - a->written;
		app_fill(w, who, a->written, data, len);
		if (prng_ppm(&w->rng, a->fast_ppm) && write_fast(w, who, data, len)) {
			if (a->think_us != 0)
				break;
			continue;
		}
		room = hv_tcp_write_room(s->h.tcb);
		took = hv_tcp_write(s->h.tcb, &s->h.env, data, len, prng_ppm(&w->rng, a->more_ppm), &acts, w->now);
		if (took > len || took > room)
			world_fail(w, "%u: write took %u octets of %u, room was %u", who, took, len, room);
		if (took < len && took < room && s->h.env.free_tx != NULL)
			world_fail(w, "%u: write took %u octets of %u although room was %u and chunks are left", who, took, len, room);
		if (took != 0)
			memset(data, 0xbb, took); /* the caller's memory is the caller's again */
		a->written += took;
		a->blocked = took < len;
		side_after(w, who, acts);
		if (a->blocked)
			return;
		if (a->think_us != 0)
			break;
	}
	if (a->written < due(a) && !a->blocked)
		sched_write(w, who, a->think_us != 0 ? prng_in(&w->rng, 0, a->think_us * 2) : 1);
	closing(w, who);
}

static void read_again(struct world *w, uint32_t who, uint32_t left)
{
	struct app *a = &w->side[who].app;
	uint32_t wait = a->rd_us;

	if (left == 0)
		return;
	if (a->mode == READ_PAUSES && a->pauses != 0 && prng_ppm(&w->rng, 30000)) {
		a->pauses--;
		wait += prng_in(&w->rng, 10000, 5000000);
	}
	sched_read(w, who, wait);
}

/* What arrives there was compared when it did, see kernel.c. */
static void read_kernel(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct app *a = &s->app;
	uint32_t avail = kern_readable(w, who), len = a->mode == READ_EAGER ? avail : prng_log(&w->rng, 1, a->rd_max);

	a->read += len < avail ? len : avail;
	if (avail == 0 && s->kern.eof) {
		if (a->eof || !w->side[1 - who].kern.shut || a->read != w->side[1 - who].app.total)
			world_fail(w, "%u: end of the stream at %u of %u%s", who, a->read, w->side[1 - who].app.total, a->eof ? " once more" : "");
		a->eof = true;
	}
	if (w->verbose)
		printf("%12lu %u reads %u of %u%s\n", (unsigned long)w->now, who, len < avail ? len : avail, avail, a->eof ? ": the end" : "");
	w->progress_at = w->now;
	kern_read(w, who);
	if (a->ask != 0 && !a->blocked && a->written < due(a))
		sched_write(w, who, prng_in(&w->rng, 0, a->think_us * 2));
	read_again(w, who, kern_readable(w, who) + (s->kern.eof && !a->eof));
}

void app_read(struct world *w, uint32_t who)
{
	static uint8_t data[1u << 18], peek[1u << 18];
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	struct app *a = &s->app;
	unsigned acts = 0;

	a->rd_sched = false;
	if (s->kern.on)
		read_kernel(w, who);
	if (s->frozen || !s->h.live)
		return;
	do {
		uint32_t len = a->mode == READ_EAGER ? sizeof data : prng_log(&w->rng, 1, a->rd_max), avail = hv_tcp_readable(s->h.tcb),
		    got;
		bool look = prng_ppm(&w->rng, 30000), discard = prng_ppm(&w->rng, 10000);
		unsigned none = 0;
		uint32_t want = len < avail ? len : avail;
		if (look && hv_tcp_read(s->h.tcb, &s->h.env, peek, len, true, &none, w->now) != want)
			world_fail(w, "%u: peek did not see %u octets", who, want);
		if (hv_tcp_readable(s->h.tcb) != avail)
			world_fail(w, "%u: peek consumed octets", who);
		got = hv_tcp_read(s->h.tcb, &s->h.env, discard ? NULL : data, len, false, &acts, w->now);
		if (got != want || hv_tcp_readable(s->h.tcb) != avail - got)
			world_fail(w, "%u: read gave %u octets, readable were %u, wanted %u", who, got, avail, len);
		for (uint32_t i = 0; i < got && w->fail[0] == 0; i++) {
			uint8_t octet = app_octet(w, 1 - who, a->read + i);
			if (a->read + i >= peer->app.written || (!discard && data[i] != octet) || (look && peek[i] != octet))
				world_fail(w, "%u: stream broken at offset %u (of %u written)", who, a->read + i, peer->app.written);
		}
		a->read += got;
		if (w->verbose)
			printf("%12lu %u reads %u of %u\n", (unsigned long)w->now, who, got, avail);
		if (got != 0)
			w->progress_at = w->now;
		side_after(w, who, acts);
		acts = 0;
		if (got == 0)
			break;
	} while (a->mode == READ_EAGER && w->fail[0] == 0);
	if (a->ask != 0 && !a->blocked && a->written < due(a))
		sched_write(w, who, prng_in(&w->rng, 0, a->think_us * 2));
	if (!s->no_flush)
		side_after(w, who, hv_tcp_ack_flush(s->h.tcb, w->now));
	read_again(w, who, hv_tcp_readable(s->h.tcb));
}

void app_kernel(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct app *a = &s->app;

	if (a->blocked && kern_room(s) >= 16384)
		a->blocked = false;
	if (!a->blocked)
		sched_write(w, who, 0);
	if (kern_readable(w, who) != 0 || (s->kern.eof && !a->eof))
		sched_read(w, who, a->mode == READ_EAGER ? prng_in(&w->rng, 0, 50) : a->rd_us);
}

void app_wake(struct world *w, uint32_t who, unsigned acts)
{
	struct side *s = &w->side[who];
	struct app *a = &s->app;

	if ((acts & HV_TCP_WRITABLE) != 0 && a->blocked) {
		a->blocked = false;
		sched_write(w, who, 0);
	}
	if ((acts & HV_TCP_READABLE) != 0) {
		if (hv_tcp_readable(s->h.tcb) == 0)
			world_fail(w, "%u: READABLE, but nothing to read", who);
		sched_read(w, who, a->mode == READ_EAGER ? prng_in(&w->rng, 0, 50) : a->rd_us);
	}
}
