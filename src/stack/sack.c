/*
 * sack.c - transmit records and the SACK scoreboard (RFC 2018, 2883, 6675).
 *
 * Owns rec[], sacked_out, lost_out. Records are an ordered array without holes over [snd_una, snd_nxt), in embed[] first and in a chunk of
 * the pool when those eight don't suffice. It is bounded: when it is full, knowledge is given up (neighbours are merged, at worst a SACK
 * is forgotten, which is always allowed), never correctness. Ring lock.
 */
#include "stack/tcb.h"

void hv_rec_materialize(struct hv_tcb *t)
{
	struct hv_xrec *r;

	if (t->rec_n != 0 || t->snd_una == t->snd_nxt)
		return;
	t->tf &= ~TF_RACK_VALID; /* nothing that was sent earlier is left, and its stamps may have wrapped */
	t->rec_head = 0;
	t->rec_n = 1;
	r = &t->rec[0];
	r->seq = t->snd_una;
	r->end = t->snd_nxt;
	r->xmit_us = t->timed_us;
	r->st = XR_PLAIN;
	r->flags = 0;
}

static void merge_into(struct hv_xrec *a, const struct hv_xrec *b)
{
	a->end = b->end;
	if (a->xmit_us != b->xmit_us)
		a->flags |= XRF_EVER; /* no longer a round trip to be measured */
	if (hv_seq_gt(b->xmit_us, a->xmit_us))
		a->xmit_us = b->xmit_us; /* the later one: RACK must not see them lost too early */
	a->flags |= b->flags;
}

/* Merge neighbours of one state, and of one history or (level 1) any; with level 2, also give up the last SACKed record. */
static void squeeze(struct hv_tcb *t, unsigned level)
{
	struct hv_xrec *a = &t->rec[t->rec_head];
	uint32_t n = t->rec_n, out = 0;

	if (level == 2) {
		for (uint32_t i = n; i-- > 0;) {
			if (a[i].st == XR_SACKED) {
				hv_rec_set(t, &a[i], i + 1 < n ? a[i + 1].st == XR_SACKED ? XR_PLAIN : a[i + 1].st : XR_PLAIN);
				break;
			}
		}
	}
	for (uint32_t i = 1; i < n; i++) {
		if (a[out].st == a[i].st && (level != 0 || ((a[out].flags ^ a[i].flags) & XRF_REXMIT) == 0))
			merge_into(&a[out], &a[i]);
		else
			a[++out] = a[i];
	}
	t->rec_n = (uint16_t)(out + 1);
}

/* Room for one more record, at any place. */
static bool make_room(struct hv_tcb *t, struct hv_env *env)
{
	if (t->rec_head + t->rec_n < t->rec_cap)
		return true;
	if (t->rec_head != 0) {
		memmove(t->rec, t->rec + t->rec_head, t->rec_n * sizeof t->rec[0]);
		t->rec_head = 0;
		return true;
	}
	if (t->rec_chunk == NULL && env != NULL && env->free_tx != NULL && env->free_tx->cap >= 2 * sizeof t->embed &&
	    ((uintptr_t)env->free_tx->base & 7u) == 0) {
		struct hv_chunk *c = env->free_tx;

		env->free_tx = c->next;
		env->n_free_tx--;
		c->next = NULL;
		c->off = c->end = 0;
		c->on_wire = false;
		t->rec_chunk = c;
		t->rec_cap = (uint16_t)hv_min32(c->cap / (uint32_t)sizeof t->rec[0], 1024);
		memcpy(c->base, t->rec, t->rec_n * sizeof t->rec[0]);
		t->rec = (struct hv_xrec *)(void *)c->base;
		return true;
	}
	for (unsigned level = 0; level <= 2 && t->rec_n == t->rec_cap; level++)
		squeeze(t, level);
	return t->rec_n < t->rec_cap;
}

/* The chunk goes home when the records fit into the TCB again (always when nothing is in flight). */
void hv_rec_drop_storage(struct hv_tcb *t, struct hv_env *env)
{
	if (t->rec_chunk == NULL || t->rec_n > HV_XREC_EMBED / 2)
		return;
	memcpy(t->embed, t->rec + t->rec_head, t->rec_n * sizeof t->rec[0]);
	t->rec = t->embed;
	t->rec_head = 0;
	t->rec_cap = HV_XREC_EMBED;
	t->rec_chunk->off = t->rec_chunk->end = 0;
	hv_chunk_put(env, t->rec_chunk);
	t->rec_chunk = NULL;
}

/* [seq, end) has just been sent for the first time; it follows the last record. flags: XRF_EVER, XRF_REXMIT, XRF_KERNEL for what the
 * kernel sent. */
void hv_rec_sent(struct hv_tcb *t, struct hv_env *env, uint32_t seq, uint32_t end, uint32_t now32, unsigned flags)
{
	struct hv_xrec *r;

	if (t->rec_n != 0) {
		r = hv_rec(t, t->rec_n - 1u);
		/* Same poll, or close to it. Not if something was retransmitted in between: RACK will ask which of the two was sent
		 * first. */
		if (r->st == XR_PLAIN && r->flags == flags && now32 - r->xmit_us <= t->srtt8 >> 7 &&
		    (t->ca == HV_CA_OPEN || hv_seq_lt(t->rexmit_us, r->xmit_us))) {
			r->end = end;
			return;
		}
		if (!make_room(t, env)) {
			r = hv_rec(t, t->rec_n - 1u);
			hv_rec_set(t, r, XR_PLAIN);
			r->end = end;
			r->xmit_us = now32;
			r->flags |= XRF_EVER;
			return;
		}
	}
	r = hv_rec(t, t->rec_n);
	t->rec_n++;
	r->seq = seq;
	r->end = end;
	r->xmit_us = now32;
	r->st = XR_PLAIN;
	r->flags = (uint8_t)flags;
}

uint32_t hv_rec_split(struct hv_tcb *t, struct hv_env *env, uint32_t i, uint32_t at)
{
	struct hv_xrec *r = hv_rec(t, i);
	uint32_t n = t->rec_n, seq = r->seq;

	if (hv_seq_le(at, r->seq) || hv_seq_ge(at, r->end))
		return hv_seq_ge(at, r->end);
	if (!make_room(t, env))
		return 0;
	if (t->rec_n != n) { /* squeezed: find it again */
		for (i = 0; i < t->rec_n && !hv_seq_in(seq, hv_rec(t, i)->seq, hv_rec(t, i)->end); i++)
			;
		if (hv_rec(t, i)->seq != seq)
			return 0;
	}
	r = hv_rec(t, i);
	memmove(r + 1, r, (t->rec_n - i) * sizeof *r);
	t->rec_n++;
	r[0].end = at;
	r[1].seq = at;
	return 1;
}

/* A record, or the front of one, has arrived. */
static void delivered(
    struct hv_tcb *t, const struct hv_xrec *r, uint32_t len, struct hv_ackinfo *ai, const struct hv_seg *seg, uint64_t now)
{
	uint32_t now32 = (uint32_t)now;

	ai->delivered += len;
	if ((r->flags & XRF_REXMIT) == 0 && hv_seq_le(r->end, t->recover))
		ai->orig = true;
	if ((r->flags & XRF_EVER) == 0) {
		uint32_t rtt = now32 - r->xmit_us;

		if (rtt == 0)
			rtt = 1;
		if (ai->rtt_first == 0 || rtt > ai->rtt_first)
			ai->rtt_first = rtt;
		if (ai->rtt_last == 0 || rtt < ai->rtt_last)
			ai->rtt_last = rtt;
		/* something below what had been delivered, sent once only: the path reorders (RFC 8985 6.2 step 3) */
		if ((t->tf & TF_RACK_VALID) != 0 && hv_seq_lt(r->end, ai->prior_fack))
			t->tf |= TF_RACK_REO;
	}
	if ((t->tf & TF_RACK_VALID) == 0 || hv_seq_gt(r->end, t->rack_fack))
		t->rack_fack = r->end;
	hv_rack_delivered(t, r, seg, now);
}

void hv_rec_acked(struct hv_tcb *t, uint32_t ack, struct hv_ackinfo *ai, const struct hv_seg *seg, uint64_t now)
{
	while (t->rec_n != 0) {
		struct hv_xrec *r = hv_rec(t, 0);
		uint32_t upto = hv_seq_min(r->end, ack), len;

		if (hv_seq_le(upto, r->seq))
			break;
		len = upto - r->seq;
		if (r->st == XR_SACKED) {
			t->sacked_out -= len;
		} else {
			struct hv_xrec part = *r;

			part.end = upto;
			delivered(t, &part, len, ai, seg, now);
		}
		if (r->st == XR_LOST)
			t->lost_out -= len;
		r->seq = upto;
		if (r->seq != r->end)
			break;
		t->rec_head++;
		t->rec_n--;
	}
	if (t->rec_n == 0)
		t->rec_head = 0;
}

static void sack_range(
    struct hv_tcb *t, struct hv_env *env, uint32_t start, uint32_t end, struct hv_ackinfo *ai, const struct hv_seg *seg, uint64_t now)
{
	for (uint32_t i = 0; i < t->rec_n; i++) {
		struct hv_xrec *r = hv_rec(t, i);

		if (hv_seq_le(r->end, start))
			continue;
		if (hv_seq_ge(r->seq, end))
			return;
		if (r->st == XR_SACKED)
			continue;
		if (hv_seq_lt(r->seq, start)) {
			if (!hv_rec_split(t, env, i, start))
				return; /* no room: what isn't recorded is resent at worst */
			continue;    /* the second half comes next */
		}
		if (hv_seq_gt(r->end, end) && !hv_rec_split(t, env, i, end))
			return;
		r = hv_rec(t, i);
		if (hv_seq_lt(r->seq, start) || hv_seq_gt(r->end, end))
			return;
		delivered(t, r, r->end - r->seq, ai, seg, now);
		hv_rec_set(t, r, XR_SACKED);
		ai->sacked_new = true;
	}
}

/* RFC 2883: the first block tells of a duplicate if it is below the cumulative ACK or inside the second block. */
static bool is_dsack(const struct hv_seg *seg)
{
	if (hv_seq_le(seg->sack[0][1], seg->ack))
		return true;
	return seg->nsack > 1 && hv_seq_ge(seg->sack[0][0], seg->sack[1][0]) && hv_seq_le(seg->sack[0][1], seg->sack[1][1]);
}

void hv_sack_apply(struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, struct hv_ackinfo *ai, uint64_t now)
{
	unsigned i = 0;

	if (seg->nsack == 0)
		return;
	t->cnt->sack_in++;
	if (is_dsack(seg)) {
		uint32_t s = seg->sack[0][0], e = seg->sack[0][1];

		i = 1;
		/* Only about octets that we can have sent twice: not older than a window, not newer than SND.NXT, no more than were ever
		 * retransmitted. A peer that makes them up would take back each reduction of cwnd. */
		if (hv_seq_lt(s, e) && hv_seq_le(e, t->snd_nxt) && hv_seq_diff(t->snd_una, s) <= (int32_t)hv_max32(t->max_wnd, 65535) &&
		    e - s <= t->bytes_rexmit) {
			ai->dsack = true;
			if ((t->tf & TF_TLP_OUT) != 0 && e == t->tlp_end)
				ai->dsack_tlp = true;
			/* what was resent before this reduction says nothing about it */
			if ((t->tf & TF_UNDO) != 0 && hv_seq_gt(e, t->undo_una)) {
				uint32_t n = e - s;

				t->undo_rexmit = t->undo_rexmit > n ? t->undo_rexmit - n : 0;
			}
		}
	}
	for (; i < seg->nsack; i++) {
		uint32_t s = seg->sack[i][0], e = seg->sack[i][1];

		if (hv_seq_ge(s, e) || hv_seq_lt(s, seg->ack) || hv_seq_gt(e, t->snd_nxt) || hv_seq_le(e, t->snd_una))
			continue; /* never about what wasn't sent */
		hv_rec_materialize(t);
		sack_range(t, env, s, e, ai, seg, now);
	}
}

/* RTO: everything that isn't SACKed has to go again (RFC 6675 5.1); a receiver that has reneged loses its SACKs too. */
void hv_rec_mark_all_lost(struct hv_tcb *t, bool forget_sacks)
{
	hv_rec_materialize(t);
	for (uint32_t i = 0; i < t->rec_n; i++) {
		struct hv_xrec *r = hv_rec(t, i);

		if (r->st != XR_SACKED || forget_sacks) {
			hv_rec_set(t, r, XR_LOST);
			r->flags |= XRF_EVER;
		}
	}
	if (t->rec_n != 0)
		squeeze(t, 0);
}
