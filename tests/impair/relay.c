/*
 * relay.c - see relay.h.
 */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX 2048u
#define SEEN (1u << 16) /* slots of the table of stream places */

struct frame {
	uint64_t due, order;
	struct frame *next;
	uint32_t len;
	uint8_t to;
	uint8_t data[FRAME_MAX];
};

struct seen { uint32_t seq; uint32_t n; };

struct way { /* one direction */
	uint64_t index, busy_until, last_due;
	bool bad;             /* in a loss burst */
	bool syn;
	uint32_t base;        /* number of the first octet behind the SYN */
	struct seen *seen;
	struct relay_count count;
};

struct relay {
	struct relay_conf c;
	int fd[2];
	struct pcap *pcap[2];
	struct stall_log *log;
	atomic_bool armed, stop;
	struct way way[2];
	struct frame **heap, *free;
	uint32_t n, cap;
	uint64_t order;
};

const char relay_usage[] =
    "  --seed=N          script of decisions\n"
    "  --loss=PERCENT    lost frames, each way\n"
    "  --burst=N         losses come in bursts of that mean length\n"
    "  --reorder=PERCENT frames that are held back, by up to --hold=US (3000)\n"
    "  --dup=PERCENT     frames that come twice\n"
    "  --delay=US        one way (5000)\n"
    "  --jitter=US       plus or minus, one way, in order\n"
    "  --rate=MBITS      bottleneck, with a queue of --queue=OCTETS (250000); 0: none\n";

uint64_t relay_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A number of 64 bits that depends on all of seed, direction, purpose and place (splitmix64's finalizer). */
static uint64_t draw(uint64_t seed, unsigned way, unsigned purpose, uint64_t place)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + place * 0xd1b54a32d192ed03u + ((uint64_t)way << 32 | purpose) * 0x8cb92ba72f3d8dd7u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static double unit(uint64_t x)
{
	return (double)(x >> 11) / 9007199254740992.0;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The TCP header of a frame and its payload's length; NULL: something else. */
static const uint8_t *tcp_of(const uint8_t *f, uint32_t len, uint32_t *payload)
{
	const uint8_t *ip = f + 14, *t;
	uint32_t l3, hl;

	if (len < 14 + 40)
		return NULL;
	if (ip[0] >> 4 == 4 && ip[9] == 6) {
		hl = (uint32_t)(ip[0] & 15) * 4;
		l3 = (uint32_t)ip[2] << 8 | ip[3];
	} else if (ip[0] >> 4 == 6 && ip[6] == 6) {
		hl = 40;
		l3 = 40 + ((uint32_t)ip[4] << 8 | ip[5]);
	} else {
		return NULL;
	}
	if (14 + l3 > len || l3 < hl + 20)
		return NULL;
	t = ip + hl;
	if (l3 < hl + (uint32_t)(t[12] >> 4) * 4)
		return NULL;
	*payload = l3 - hl - (uint32_t)(t[12] >> 4) * 4;
	return t;
}

/* How often has this place of the stream been sent before? */
static uint32_t times_seen(struct way *w, uint32_t seq)
{
	uint32_t i = (uint32_t)(draw(0, 0, 0, seq) % SEEN);

	for (uint32_t k = 0; k < SEEN; k++, i = (i + 1) % SEEN) {
		if (w->seen[i].n == 0)
			w->seen[i].seq = seq;
		if (w->seen[i].seq == seq)
			return w->seen[i].n++;
	}
	return 0;
}

static bool lose(struct relay *r, unsigned from, const uint8_t *f, uint32_t len)
{
	struct way *w = &r->way[from];
	uint32_t payload = 0;
	const uint8_t *t = tcp_of(f, len, &payload);
	uint64_t place = w->index;
	unsigned purpose = 1;

	if (t == NULL)
		return false; /* neighbour discovery isn't what is judged here */
	if ((t[13] & 4) != 0)
		w->count.resets++;
	if ((t[13] & 2) != 0) {
		w->syn = true;
		w->base = be32(t + 4) + 1;
		return false;
	}
	if (!atomic_load(&r->armed) || r->c.loss <= 0)
		return false;
	if (r->c.burst > 1) {
		double p = w->bad ? 1 / r->c.burst : r->c.loss / (r->c.burst * (1 - r->c.loss));

		if (unit(draw(r->c.seed, from, 2, w->index)) < p)
			w->bad = !w->bad;
		return w->bad;
	}
	if (payload != 0 && w->syn) {
		uint32_t at = be32(t + 4) - w->base;

		purpose = 3;
		place = (uint64_t)times_seen(w, at) << 32 | at;
	}
	return unit(draw(r->c.seed, from, purpose, place)) < r->c.loss;
}

static bool has_sack(const uint8_t *t)
{
	const uint8_t *p = t + 20, *end = t + (t[12] >> 4) * 4;

	while (p < end && *p != 0) {
		if (*p == 1) {
			p++;
			continue;
		}
		if (end - p < 2 || p[1] < 2)
			break;
		if (*p == 5)
			return true;
		p += p[1];
	}
	return false;
}

/* For tests/impair/stall.c. side: who sent it, or heard it. */
static void note(struct relay *r, enum stall_what what, unsigned side, const struct frame *f, uint64_t ns)
{
	uint32_t payload = 0;
	const uint8_t *t = r->log != NULL ? tcp_of(f->data, f->len, &payload) : NULL;
	unsigned from = what == STALL_HEARD ? !side : side;

	if (t == NULL || (t[13] & 2) != 0 || (t[13] & 16) == 0 || !r->way[0].syn || !r->way[1].syn)
		return;
	stall_note(r->log, &(struct stall_event){ .ns = ns, .what = (uint8_t)what, .side = (uint8_t)side, .seq = be32(t + 4) - r->way[from].base,
		.len = payload, .ack = be32(t + 8) - r->way[!from].base, .sack = has_sack(t) });
}

static bool before(const struct frame *a, const struct frame *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void push(struct relay *r, struct frame *f)
{
	uint32_t i = r->n++;

	if (r->n > r->cap) {
		r->cap = r->cap * 2 + 1024;
		r->heap = realloc(r->heap, r->cap * sizeof *r->heap);
		if (r->heap == NULL)
			abort();
	}
	f->order = r->order++;
	for (; i != 0 && before(f, r->heap[(i - 1) / 2]); i = (i - 1) / 2)
		r->heap[i] = r->heap[(i - 1) / 2];
	r->heap[i] = f;
}

static struct frame *pop(struct relay *r)
{
	struct frame *top = r->heap[0], *f = r->heap[--r->n];
	uint32_t i = 0, k;

	while ((k = 2 * i + 1) < r->n) {
		if (k + 1 < r->n && before(r->heap[k + 1], r->heap[k]))
			k++;
		if (!before(r->heap[k], f))
			break;
		r->heap[i] = r->heap[k];
		i = k;
	}
	r->heap[i] = f;
	return top;
}

static struct frame *frame_new(struct relay *r)
{
	struct frame *f = r->free;

	if (f != NULL)
		r->free = f->next;
	else if ((f = malloc(sizeof *f)) == NULL)
		abort();
	return f;
}

static void accept_frame(struct relay *r, unsigned from, struct frame *f, uint64_t now)
{
	struct way *w = &r->way[from];
	const struct relay_conf *c = &r->c;
	bool armed = atomic_load(&r->armed), again, gone;
	uint64_t i, at = now;

	w->count.frames++;
	if (r->pcap[from] != NULL)
		pcap_write(r->pcap[from], now / 1000, f->data, f->len);
	gone = lose(r, from, f->data, f->len);
	note(r, STALL_SENT, from, f, now);
	if (gone) {
		note(r, STALL_LOST, from, f, now);
		w->count.lost++;
		w->index++;
		f->next = r->free;
		r->free = f;
		return;
	}
	i = armed ? w->index++ : 0;
	if (c->rate_bps != 0) {
		uint64_t start = w->busy_until > now ? w->busy_until : now;

		if ((start - now) * c->rate_bps / 8000000000u + f->len > c->queue) {
			note(r, STALL_LOST, from, f, now);
			w->count.queue_drops++;
			f->next = r->free;
			r->free = f;
			return;
		}
		at = w->busy_until = start + (uint64_t)f->len * 8000000000u / c->rate_bps;
	}
	f->to = (uint8_t)!from;
	f->due = at + c->delay_us * 1000u;
	if (armed && c->jitter_us != 0)
		f->due = f->due - c->jitter_us * 1000u + (uint64_t)(unit(draw(c->seed, from, 4, i)) * c->jitter_us * 2000.0);
	if (armed && unit(draw(c->seed, from, 5, i)) < c->reorder) {
		w->count.held++;
		f->due += (uint64_t)(unit(draw(c->seed, from, 6, i)) * c->hold_us * 1000.0);
	} else {
		if (f->due < w->last_due)
			f->due = w->last_due;
		w->last_due = f->due;
	}
	again = armed && unit(draw(c->seed, from, 7, i)) < c->dup;
	push(r, f);
	if (again) {
		struct frame *g = frame_new(r);

		memcpy(g, f, sizeof *g);
		w->count.doubled++;
		push(r, g);
	}
}

static void deliver(struct relay *r, struct frame *f)
{
	bool taken = true;

	if (r->pcap[f->to] != NULL)
		pcap_write(r->pcap[f->to], relay_now_ns() / 1000, f->data, f->len);
	while (write(r->fd[f->to], f->data, f->len) < 0) {
		if (errno == EINTR)
			continue;
		r->way[!f->to].count.refused++;
		taken = false;
		break;
	}
	if (taken)
		note(r, STALL_HEARD, f->to, f, relay_now_ns());
	else
		note(r, STALL_LOST, !f->to, f, relay_now_ns());
	f->next = r->free;
	r->free = f;
}

struct relay *relay_new(const struct relay_conf *c, int fd_a, int fd_b, struct pcap *pcap_a, struct pcap *pcap_b)
{
	struct relay *r = calloc(1, sizeof *r);

	if (r == NULL)
		abort();
	r->c = *c;
	r->fd[0] = fd_a;
	r->fd[1] = fd_b;
	r->pcap[0] = pcap_a;
	r->pcap[1] = pcap_b;
	for (unsigned i = 0; i < 2; i++) {
		fcntl(r->fd[i], F_SETFL, fcntl(r->fd[i], F_GETFL) | O_NONBLOCK);
		r->way[i].seen = calloc(SEEN, sizeof *r->way[i].seen);
		if (r->way[i].seen == NULL)
			abort();
	}
	return r;
}

void relay_note(struct relay *r, struct stall_log *log)
{
	r->log = log;
}

void relay_arm(struct relay *r, bool on)
{
	atomic_store(&r->armed, on);
}

void relay_stop(struct relay *r)
{
	atomic_store(&r->stop, true);
}

void relay_counts(const struct relay *r, struct relay_count c[2])
{
	c[0] = r->way[0].count;
	c[1] = r->way[1].count;
}

void relay_run(struct relay *r)
{
	struct pollfd p[2] = { { .fd = r->fd[0], .events = POLLIN }, { .fd = r->fd[1], .events = POLLIN } };

	while (!atomic_load(&r->stop)) {
		uint64_t now = relay_now_ns(), wait = 20000000;
		struct timespec ts;

		while (r->n != 0 && r->heap[0]->due <= now)
			deliver(r, pop(r));
		if (r->n != 0) {
			now = relay_now_ns();
			if (r->heap[0]->due <= now)
				wait = 0;
			else if (r->heap[0]->due - now < wait)
				wait = r->heap[0]->due - now;
		}
		ts = (struct timespec){ .tv_sec = 0, .tv_nsec = (long)wait };
		if (ppoll(p, 2, &ts, NULL) <= 0)
			continue;
		for (unsigned i = 0; i < 2; i++) {
			/* not so many that what is due has to wait */
			for (int k = 0; k < 32; k++) {
				struct frame *f = frame_new(r);
				ssize_t n = read(r->fd[i], f->data, sizeof f->data);

				if (n <= 0) {
					f->next = r->free;
					r->free = f;
					break;
				}
				f->len = (uint32_t)n;
				accept_frame(r, i, f, relay_now_ns());
			}
		}
	}
}

void relay_free(struct relay *r)
{
	while (r->n != 0)
		free(pop(r));
	while (r->free != NULL) {
		struct frame *f = r->free;

		r->free = f->next;
		free(f);
	}
	free(r->heap);
	free(r->way[0].seen);
	free(r->way[1].seen);
	free(r);
}

bool relay_option(struct relay_conf *c, const char *arg)
{
	const char *eq = strchr(arg, '=');
	size_t n = eq != NULL ? (size_t)(eq - arg) : 0;
	double v = eq != NULL ? strtod(eq + 1, NULL) : 0;
#define IS(name) (n == sizeof name - 1 && memcmp(arg, name, n) == 0)

	if (IS("--seed"))
		c->seed = (uint64_t)v;
	else if (IS("--loss"))
		c->loss = v / 100;
	else if (IS("--burst"))
		c->burst = v;
	else if (IS("--reorder"))
		c->reorder = v / 100;
	else if (IS("--hold"))
		c->hold_us = (uint32_t)v;
	else if (IS("--dup"))
		c->dup = v / 100;
	else if (IS("--delay"))
		c->delay_us = (uint32_t)v;
	else if (IS("--jitter"))
		c->jitter_us = (uint32_t)v;
	else if (IS("--rate"))
		c->rate_bps = (uint64_t)(v * 1e6);
	else if (IS("--queue"))
		c->queue = (uint32_t)v;
	else
		return false;
#undef IS
	return true;
}

int relay_tap(const char *name)
{
	struct ifreq ifr;
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	memset(&ifr, 0, sizeof ifr);
	snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI;
	if (ioctl(fd, TUNSETIFF, &ifr) != 0) {
		int e = errno;

		close(fd);
		return -e;
	}
	return fd;
}
