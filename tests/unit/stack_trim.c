/*
 * stack_trim.c - every order in which three small segments can arrive in, around and beyond a small window, against a model that is an
 * array of octets: what is delivered, what is held, what is reported, and that nothing depends on where the sequence space wraps.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

#include <stdio.h>

#define WND 7      /* octets */
#define LOW (-2)   /* first octets of segments, relative to RCV.NXT */
#define HIGH 8
#define LEN 4

static struct rig r;
static const uint8_t *octets; /* of relative 0 */

struct model {
	bool got[WND + 1];
	int nxt;
};

static uint32_t n_cases;

static void start(uint32_t base, bool sack)
{
	r.img.opts = sack ? HV_TCPO_SACK : 0;
	r.img.rcv_nxt = r.img.rcv_wup = r.img.snd_wl1 = base;
	r.img.rcv_wnd = WND;
	assert_int_equal(host_import(&r.h, &r.img, r.now), 0);
}

/* The segment itself, without frame and parser: other tests have those. */
static unsigned put(uint32_t base, int first, int len)
{
	struct hv_seg seg = { .seq = base + (uint32_t)first, .ack = r.iss, .wnd = 64000, .len = (uint32_t)len, .flags = SEG_ACK };
	struct hv_buf *b = r.h.ring;
	unsigned acts;

	r.h.ring = b->next;
	r.h.n_ring--;
	memcpy(b->base, octets + first, (size_t)len);
	b->data = b->base;
	b->len = (uint32_t)len;
	seg.buf = b;
	seg.data = b->base;
	acts = hv_tcp_input(r.h.tcb, &r.h.env, &seg, r.now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&r.h, b);
	host_refill(&r.h);
	return acts;
}

/* What the model makes of it; returns how many octets were new, *dup: some were not. */
static int model_put(struct model *m, int first, int len, bool *dup)
{
	int n = 0;

	*dup = false;
	for (int i = first; i < first + len; i++) {
		if (i < m->nxt || (i < WND && m->got[i]))
			*dup = true;
		else if (i < WND)
			n += m->got[i] = true;
	}
	while (m->nxt < WND && m->got[m->nxt])
		m->nxt++;
	return n;
}

static bool same(const struct model *m, uint32_t base)
{
	const struct hv_tcb *t = r.h.tcb;
	uint32_t cursor = 0, seq, len, held = 0;
	const uint8_t *data;
	uint8_t read[WND];
	unsigned none = 0;

	if (t->rcv_nxt != base + (uint32_t)m->nxt || t->rcv_edge != base + WND || hv_tcp_readable(t) != (uint32_t)m->nxt)
		return false;
	if (hv_tcp_read(r.h.tcb, &r.h.env, read, sizeof read, true, &none, r.now) != (uint32_t)m->nxt ||
	    memcmp(read, octets, (size_t)m->nxt) != 0)
		return false;
	while (hv_tcp_export_ooo(t, &cursor, &seq, &data, &len))
		for (uint32_t i = 0; i < len; i++, held++) {
			uint32_t at = seq + i - base;
			if (at >= WND || (int)at <= m->nxt || !m->got[at] || data[i] != octets[at])
				return false;
		}
	for (int i = m->nxt; i < WND; i++)
		held -= m->got[i];
	if (held != 0)
		return false;
	for (unsigned i = 0; i < t->nrsack; i++) { /* whole intervals of what is held */
		uint32_t s = t->rsack[i].start - base, e = t->rsack[i].end - base;
		if (s >= e || e > WND || (int)s <= m->nxt || m->got[s - 1] || (e < WND && m->got[e]))
			return false;
		for (uint32_t k = s; k < e; k++)
			if (!m->got[k])
				return false;
	}
	return true;
}

static void one(uint32_t base, bool sack, const int (*seg)[2])
{
	struct model m = { .nxt = 0 };
	char text[160];

	start(base, sack);
	for (int k = 0; k < 3; k++) {
		struct model was = m;
		bool dup;
		int first = seg[k][0], len = seg[k][1], n = model_put(&m, first, len, &dup);
		uint32_t probe = r.h.tcb->rcv_nxt;
		unsigned acts;
		const char *what = NULL;
		r.h.tcb->ndsack = 0;
		acts = put(base, first, len);
		if (!same(&m, base))
			what = "state";
		else if (((acts & HV_TCP_READABLE) != 0) != (m.nxt != was.nxt))
			what = "READABLE";
		else if ((acts & HV_TCP_DROP) != 0 && n != 0) /* a buffer that covers several may well take their place */
			what = "DROP";
		else if ((r.h.tcb->ndsack != 0) != (sack && dup && first <= WND))
			what = "D-SACK";
		else if (r.h.tcb->ndsack != 0 && hv_seq_gt(r.h.tcb->dsack.end, probe))
			for (uint32_t i = hv_seq_max(r.h.tcb->dsack.start, probe); i != r.h.tcb->dsack.end; i++)
				if (i - base >= WND || !was.got[i - base])
					what = "D-SACK of an octet that is new";
		if (what == NULL && !host_check(&r.h))
			what = r.h.fail;
		if (what != NULL) {
			snprintf(text, sizeof text, "%s after segment %d of %d+%d %d+%d %d+%d, base %#x", what, k + 1, seg[0][0], seg[0][1], seg[1][0],
			    seg[1][1], seg[2][0], seg[2][1], base);
			fail_msg("%s", text);
		}
	}
	n_cases++;
	host_release(&r.h, 0);
}

static void every_order(uint32_t base, bool sack)
{
	int seg[3][2];

	for (int a = LOW; a <= HIGH; a++)
		for (int al = 1; al <= LEN; al++)
			for (int b = LOW; b <= HIGH; b++)
				for (int bl = 1; bl <= LEN; bl++)
					for (int c = LOW; c <= HIGH; c++)
						for (int cl = 1; cl <= LEN; cl++) {
							int all[3][2] = { { a, al }, { b, bl }, { c, cl } };
							memcpy(seg, all, sizeof seg);
							one(base, sack, seg);
						}
}

static void three_segments(void **state)
{
	static const uint32_t bases[] = { 0u - 3, 0x80000000u - 3 };
	static uint8_t memory[64];

	(void)state;
	for (uint32_t i = 0; i < sizeof memory; i++)
		memory[i] = (uint8_t)(i * 37 + 1);
	octets = memory + 16;
	rig_init(&r);
	every_order(bases[0], true);
	every_order(bases[1], true);
	every_order(bases[0], false);
	print_message("%u cases\n", n_cases);
	host_conserved(&r.h);
	assert_null(r.h.fail);
	host_destroy(&r.h);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(three_segments) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
