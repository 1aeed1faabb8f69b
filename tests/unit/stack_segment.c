/*
 * stack_segment.c - what one segment does, against a model of RFC 9293 3.10.7.4 with RFC 5961, RFC 7323 and RFC 3168: very many segments
 * whose numbers, windows and stamps lie at, just before and just behind what they are compared with. Half of them may be predicted.
 */
#include "stack_rig.h"

#include "../sim/prng.h"
#include "stack/cc.h"

#define LIVES 8000
#define ROUNDS 400

static struct prng rng;
static struct rig r;

static uint32_t pick(uint32_t lo, uint32_t hi)
{
	return prng_in(&rng, lo, hi);
}

static bool once_in(uint32_t n)
{
	return pick(1, n) == 1;
}

static int32_t before(uint32_t a, uint32_t b) /* by how much */
{
	return (int32_t)(b - a);
}

static uint32_t near(uint32_t x)
{
	return x + pick(0, 2) - 1;
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)arg;
	(void)frame;
	(void)len;
}

static void pump(void)
{
	struct hv_tx tx;

	while (host_complete(&r.h, HOST_SQ), hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now))
		host_post(&r.h, &tx, wire, NULL);
	host_complete(&r.h, HOST_SQ);
	host_refill(&r.h);
}

static void start(void)
{
	rig_init(&r);
	r.img.opts = (uint8_t)(pick(0, UINT8_MAX) & (HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_ECN)) | HV_TCPO_WS;
	r.img.snd_wscale = (uint8_t)(once_in(2) ? 0 : 1);
	r.img.snd_mss = 100;
	r.img.mss_clamp = 112;
	r.img.pmtu = 152;
	r.img.ts_off = 500000;
	r.now += 200000000; /* for stamps that are too old to be believed */
	rig_start(&r);
}

/* Numbers that prediction or the slow path compares with something. */
static void any_state(struct hv_tcb *t)
{
	static const uint8_t data[400];
	unsigned acts = 0;
	uint32_t len;

	r.now += pick(0, 50000);
	if (hv_flight(t) == 0 && !once_in(4)) {
		for (uint32_t n = pick(1, 4); n != 0; n--) {
			len = pick(1, 100);
			hv_tcp_write(t, &r.h.env, data, len, false, &acts, r.now);
			pump();
		}
	}
	t->tf &= ~(TF_HEAD | TF_ACK_NOW | TF_PINGPONG | TF_ECE | TF_TS_KNOWN | TF_IMPORT | TF_CWR | TF_PROBE);
	t->tf |= (once_in(4) ? TF_ACK_NOW : 0u) | (once_in(2) ? TF_PINGPONG : 0u);
	if ((t->tf & TF_ECN) != 0 && once_in(4))
		t->tf |= TF_ECE;
	t->ts_recent = 0;
	if ((t->tf & TF_TS) != 0 && !once_in(4)) {
		t->tf |= TF_TS_KNOWN;
		t->ts_recent = (uint32_t)prng_u64(&rng);
	}
	t->import_us = once_in(2) ? 0 : r.now - 1000ull * pick(0, 9);
	t->ts_recent_at = once_in(2) ? r.now : r.now - 24ull * 86400 * 1000000 + pick(0, 2) - 1;
	t->last_ack = t->rcv_nxt - pick(0, 4);
	t->rcv_edge = t->rcv_nxt + (once_in(2) ? pick(0, 4) : 32000);
	t->rcv_mss = (uint16_t)pick(1, 4);
	t->wnd_keep = hv_wnd_keep(t);
	t->ack_at = once_in(2) ? HV_NEVER : r.now + pick(0, 90000);
	t->challenge_at = r.now + pick(0, 2) - 1;
	t->probe_ack_at = r.now + pick(0, 2) - 1;
	t->last_rx_us = once_in(2) ? r.now : r.now - hv_rto(t) - pick(0, 2) + 1;
	t->quick = (uint8_t)(once_in(2) ? 0 : pick(1, 16));
	t->ka_sent = pick(0, 1);
	t->snd_wl1 = t->rcv_nxt + pick(0, 6) - 3;
	t->snd_edge = t->snd_nxt + (once_in(4) ? 0 : 100 * pick(0, 3)) + pick(0, 2) - 1;
	t->max_wnd = once_in(2) ? near(65535) : 70000;
	t->probes = (uint8_t)pick(0, 1);
	t->nrtx = (uint8_t)pick(0, 1);
	t->cwr_end = t->snd_una + 100 * pick(0, 5) + pick(0, 2) - 101;
	t->rack_round_end = t->snd_una + 100 * pick(0, 5) + pick(0, 2) - 101;
	if ((t->tf & TF_SACK) == 0 && t->ca < HV_CA_RECOVERY) {
		t->dupacks = (uint8_t)pick(0, 2);
		t->reno_sacked = hv_min32(hv_flight(t) - t->lost_out, 100 * pick(0, 2));
		t->ca = t->dupacks != 0 || t->reno_sacked != 0 ? HV_CA_DISORDER : HV_CA_OPEN;
	} else if ((t->tf & TF_SACK) == 0) {
		t->dupacks = (uint8_t)pick(253, 255);
	}
	if (once_in(4)) { /* the kernel may have sent what we haven't */
		len = pick(1, 50);
		if (hv_tcp_write(t, &r.h.env, data, len, false, &acts, r.now) == len) {
			t->tf |= TF_IMPORT;
			t->import_end = t->snd_nxt + pick(0, t->snd_end - t->snd_nxt);
		}
	}
	if (once_in(50))
		t->tf |= TF_DEAD;
	if (once_in(30) && hv_flight(t) != 0) {
		hv_enter_loss(t, r.now);
		t->snd_edge = near(t->snd_una); /* shut, or nearly */
	}
	t->backoff = (uint8_t)pick(0, 1);
	hv_refresh(t);
	if (once_in(2))
		t->pred = HV_PRED_NEVER;
}

static void any_segment(const struct hv_tcb *t, struct hv_seg *s)
{
	static const uint8_t octets[8];

	memset(s, 0, sizeof *s);
	s->flags = HV_ACK | (once_in(2) ? HV_PSH : 0);
	if (once_in(3)) {
		static const uint8_t odd[] = { HV_FIN, HV_SYN, HV_RST, HV_URG, HV_ECE, HV_CWR, HV_ECE, HV_CWR };

		s->flags |= odd[pick(0, 7)];
		if (once_in(4))
			s->flags |= odd[pick(0, 7)];
		if (once_in(8))
			s->flags &= (uint8_t)~HV_ACK;
	}
	s->len = once_in(2) ? 0 : pick(1, 6);
	s->data = octets;
	s->seq = once_in(2) ? t->rcv_nxt : once_in(2) ? t->rcv_nxt + pick(0, 10) - 7 : near(t->rcv_edge);
	switch (pick(0, 7)) {
	case 0: s->ack = near(t->snd_una - t->max_wnd); break;
	case 1: s->ack = near(t->snd_nxt); break;
	case 2: s->ack = near(t->import_end); break;
	case 3: s->ack = near(t->snd_una); break;
	case 4: case 5: s->ack = t->snd_una; break;
	default: s->ack = t->snd_una + pick(0, hv_flight(t)); break;
	}
	s->wnd = once_in(8) ? 0 : once_in(2) ? near(t->snd_edge - s->ack) >> t->snd_wscale & 0xffff : once_in(2) ? pick(65533, 65535) : 300;
	s->has_ts = (t->tf & TF_TS) != 0 ? !once_in(16) : once_in(16);
	if (s->has_ts) {
		s->tsval = once_in(2) ? t->ts_recent : near(t->ts_recent);
		s->tsecr = once_in(8) ? 0 : (uint32_t)(r.now / 1000) + 500000 - (once_in(8) ? near(120000) : pick(0, 9));
	}
	s->ce = once_in(8);
}

/* What is compared afterwards. */
struct view {
	uint32_t acts, ts_recent, quick, rcv_nxt, una, nxt, edge, wl1, max_wnd, ndsack, dsack_start, dsack_end, probes, nrtx, dupacks;
	uint32_t reno_sacked, tf, segs_in, cwr_end, base, ka_sent, head, backoff, prr;
	uint64_t challenge_at, probe_ack_at, last_rx, ts_recent_at, ack_at, octets, acked;
	uint64_t paws, bad_seq, bad_ack, challenges, d_rst, d_fin, d_other, dups; /* counters */
};
#define SEEN (TF_PINGPONG | TF_ACK_NOW | TF_ECE | TF_TS_KNOWN | TF_IMPORT | TF_CWR)
enum { ANY_DUPS = 1, ANY_ACKS = 2, ANY_STAMP = 4, ANY_CWR = 8 }; /* not predicted by the model */

static void look(const struct hv_tcb *t, struct view *v)
{
	const struct hv_tcp_counters *c = t->cnt;

	memset(v, 0, sizeof *v);
	v->ts_recent = t->ts_recent;
	v->quick = t->quick;
	v->rcv_nxt = t->rcv_nxt;
	v->una = t->snd_una;
	v->nxt = t->snd_nxt;
	v->edge = t->snd_edge;
	v->wl1 = t->snd_wl1;
	v->max_wnd = t->max_wnd;
	v->ndsack = t->ndsack;
	v->dsack_start = t->dsack.start;
	v->dsack_end = t->dsack.end;
	v->probes = t->probes;
	v->nrtx = t->nrtx;
	v->dupacks = t->dupacks;
	v->reno_sacked = t->reno_sacked;
	v->tf = t->tf & SEEN;
	v->segs_in = t->segs_in;
	v->cwr_end = t->cwr_end;
	v->base = t->bytes_base;
	v->ka_sent = t->ka_sent;
	v->head = (t->tf & TF_HEAD) != 0;
	v->backoff = t->backoff;
	v->prr = t->prr_delivered;
	v->challenge_at = t->challenge_at;
	v->probe_ack_at = t->probe_ack_at;
	v->last_rx = t->last_rx_us;
	v->ts_recent_at = t->ts_recent_at;
	v->ack_at = t->ack_at;
	v->paws = c->paws_drops;
	v->bad_seq = c->bad_seq;
	v->bad_ack = c->bad_ack;
	v->challenges = c->challenge_acks;
	v->d_rst = c->demote_rst;
	v->d_fin = c->demote_fin;
	v->d_other = c->demote_other;
	v->octets = c->octets_in;
	v->dups = c->dup_acks;
	v->acked = t->bytes_acked;
}

static void challenge(struct view *v) /* RFC 5961 7: not too many */
{
	if (r.now >= v->challenge_at) {
		v->challenge_at = r.now + 500000;
		v->challenges++;
		v->tf |= TF_ACK_NOW;
	}
}

/* What comes again, and congestion, end a conversation's waiting for replies. */
static void quick(struct view *v)
{
	v->quick = 16;
	v->tf &= ~TF_PINGPONG;
}

static unsigned dropped(struct view *v)
{
	v->acts = HV_TCP_DROP | ((v->tf & TF_ACK_NOW) != 0 ? HV_TCP_OUT : 0u);
	return 0;
}

/* Changes v to what must be seen; returns what isn't modelled. */
static unsigned model(const struct hv_tcb *t, const struct hv_seg *s, struct view *v)
{
	bool rst = (s->flags & HV_RST) != 0, syn = (s->flags & HV_SYN) != 0, fin = (s->flags & HV_FIN) != 0;
	uint32_t end = s->seq + s->len + fin, last = t->snd_nxt, wnd = s->wnd << t->snd_wscale;
	uint64_t idle = r.now - t->ts_recent_at, month = 24ull * 86400 * 1000000;
	unsigned any = 0;
	bool changed, sack = (t->tf & TF_SACK) != 0;

	v->segs_in++;
	if ((t->tf & TF_DEAD) != 0) {
		v->acts = HV_TCP_DROP;
		return 0;
	}
	/* R1 */
	if ((t->tf & TF_TS) != 0 && (t->tf & TF_TS_KNOWN) != 0 && s->has_ts && !rst && before(s->tsval, t->ts_recent) > 0 && idle < month) {
		v->paws++;
		if (s->len > 0)
			v->tf |= TF_ACK_NOW;
		else
			challenge(v);
		return dropped(v);
	}
	/* first */
	if (!hv_seq_acceptable(s->seq, end, t->last_ack, t->rcv_nxt, t->rcv_edge)) {
		v->bad_seq++;
		if (rst) {
			v->acts = HV_TCP_DROP;
			return 0;
		}
		if (syn) {
			challenge(v);
		} else if (s->len > 0) {
			v->tf |= TF_ACK_NOW;
			if (before(end, t->rcv_nxt) >= 0)
				quick(v);
			if (sack && before(end, t->rcv_nxt) >= 0) {
				v->ndsack = 1;
				v->dsack_start = s->seq;
				v->dsack_end = s->seq + s->len;
			}
		} else {
			challenge(v);
			if (s->seq + 1 == t->rcv_nxt && r.now >= t->probe_ack_at) {
				v->probe_ack_at = r.now + 20000;
				v->tf |= TF_ACK_NOW;
			}
		}
		return dropped(v);
	}
	/* second, fourth, fifth */
	if (rst && s->seq == t->rcv_nxt) {
		v->acts = HV_TCP_DEMOTE;
		v->d_rst++;
		return 0;
	}
	if (rst || syn) {
		challenge(v);
		return dropped(v);
	}
	if ((s->flags & HV_ACK) == 0) {
		v->acts = HV_TCP_DROP;
		return 0;
	}
	if ((t->tf & TF_IMPORT) != 0 && before(last, t->import_end) > 0)
		last = t->import_end;
	if (before(last, s->ack) > 0 || before(s->ack, t->snd_una - t->max_wnd) > 0) {
		v->bad_ack++;
		challenge(v);
		return dropped(v);
	}
	if ((s->flags & HV_URG) != 0) {
		v->acts = HV_TCP_DEMOTE;
		v->d_other++;
		return 0;
	}
	if (fin) {
		v->acts = HV_TCP_DEMOTE;
		v->d_fin++;
		return 0;
	}
	/* it counts */
	if ((t->tf & TF_TS) != 0 && s->has_ts && before(s->seq, t->last_ack) >= 0 &&
	    ((t->tf & TF_TS_KNOWN) == 0 || before(t->ts_recent, s->tsval) >= 0 || idle >= month)) {
		if (t->pred != HV_PRED_NEVER && s->tsval == t->ts_recent)
			any |= ANY_STAMP; /* prediction doesn't write down that the same stamp came again */
		v->ts_recent = s->tsval;
		v->ts_recent_at = r.now;
		v->tf |= TF_TS_KNOWN;
	}
	if (r.now - t->last_rx_us > hv_rto(t))
		v->quick = 16;
	if ((t->tf & TF_ECN) != 0) {
		if ((s->flags & HV_CWR) != 0)
			v->tf &= ~TF_ECE;
		if (s->ce) {
			v->tf |= TF_ECE;
			quick(v);
		}
	}
	v->last_rx = r.now;
	v->ka_sent = 0;
	if (before(v->nxt, s->ack) > 0)
		v->nxt = s->ack; /* the kernel had sent that */
	v->base += v->nxt - t->snd_nxt;
	/* marks that are behind or ahead of what is in flight are nobody's */
	if (before(v->cwr_end, t->snd_una) > 0 || before(v->nxt, v->cwr_end) > 0)
		v->cwr_end = t->snd_una - 1;
	if (before(s->ack, t->snd_una) <= 0) {
		changed = false;
		if (s->ack != t->snd_una || before(t->snd_wl1, s->seq) > 0 ||
		    (s->seq == t->snd_wl1 && (before(t->snd_edge, s->ack + wnd) > 0 || wnd == 0))) {
			changed = t->snd_edge != s->ack + wnd;
			v->edge = s->ack + wnd;
			v->wl1 = s->seq;
			if (wnd > v->max_wnd)
				v->max_wnd = wnd;
		}
		v->una = s->ack;
		v->acked += s->ack - t->snd_una;
		v->probes = 0;
		if (s->ack != t->snd_una) {
			v->nrtx = 0;
			if (!sack) {
				v->dupacks = 0;
				v->reno_sacked -= hv_min32(v->reno_sacked, s->ack - t->snd_una);
				v->reno_sacked = hv_min32(v->reno_sacked, v->nxt - v->una - t->lost_out);
			}
			if (t->lost_out != 0)
				any |= ANY_DUPS;
		} else if (t->ca == HV_CA_LOSS && v->nxt != v->una && before(t->snd_una, t->snd_edge) <= 0 &&
		    before(v->una, v->edge) > 0) {
			v->head = 1; /* the window opens: what was sent into the shut one goes again */
			v->backoff = 0;
		} else if (s->len == 0 && !changed && v->nxt != v->una) {
			v->dups++;
			if (!sack) {
				v->dupacks += v->dupacks < 255;
				if (v->reno_sacked + t->lost_out + t->mss < v->nxt - v->una &&
				    v->dupacks * t->mss <= (t->ca == HV_CA_RECOVERY ? t->recover_fs : v->nxt - v->una)) {
					v->reno_sacked += t->mss;
					v->prr += t->mss;
				}
			}
		}
		if ((t->tf & TF_IMPORT) != 0 && before(t->import_end, v->nxt) >= 0)
			v->tf &= ~TF_IMPORT;
		if ((s->flags & HV_ECE) != 0 && (t->tf & TF_ECN) != 0 && t->ca < HV_CA_RECOVERY && before(v->cwr_end, v->una) > 0) {
			v->tf |= TF_CWR;
			v->cwr_end = v->nxt;
		}
		/* prediction runs without probes, and leaves marks of reductions as they are: the slow path puts them in order before it looks */
		if (t->pred != HV_PRED_NEVER)
			any |= ANY_CWR;
	}
	if (s->len != 0) {
		uint32_t to = before(t->rcv_edge, end) > 0 ? t->rcv_edge : end;

		if (before(s->seq, t->rcv_nxt) >= 0 && before(t->rcv_nxt, to) > 0)
			v->rcv_nxt = to;
		if (before(s->seq, t->rcv_nxt) > 0)
			quick(v);
		v->octets += v->rcv_nxt - t->rcv_nxt;
		if (s->seq == t->rcv_nxt && end == to) { /* whole and in order: RFC 9293 3.8.6.3 */
			bool waits = (v->tf & TF_PINGPONG) != 0; /* for a reply */
			uint64_t soon = r.now + (!waits && (v->quick != 0 || (s->flags & HV_PSH) != 0) ? 1000 : 40000);
			uint32_t full = s->len > t->rcv_mss ? s->len : t->rcv_mss;

			if (v->rcv_nxt - t->last_ack > full)
				v->tf |= TF_ACK_NOW;
			else if (t->ack_at == HV_NEVER || (!waits && soon < t->ack_at))
				v->ack_at = soon;
		} else {
			any |= ANY_ACKS;
		}
	}
	return any;
}

/* RFC 6298 3 (Karn): an ACK for octets that were sent once measures the round trip; for others a stamp does, if it is ours and not absurd. */
static bool measures(const struct hv_tcb *t, const struct hv_seg *s)
{
	uint32_t age = (uint32_t)(r.now / 1000) + 500000 - s->tsecr;

	if (t->rec_n == 0)
		return true;
	for (uint32_t i = 0; i < t->rec_n && before(hv_rec(t, i)->seq, s->ack) > 0; i++)
		if ((hv_rec(t, i)->flags & XRF_EVER) == 0)
			return true;
	return (t->tf & TF_TS) != 0 && s->has_ts && s->tsecr != 0 && age <= 120000 && age <= r.now / 1000 - t->import_us / 1000;
}

#define SAME(f) \
	do { \
		if (got.f != want.f) \
			fail_msg("life %u, round %u: " #f " is %llu, the model says %llu", life, round, (unsigned long long)got.f, \
			    (unsigned long long)want.f); \
	} while (0)

static void one(uint32_t life, uint32_t round)
{
	struct hv_tcb *t = r.h.tcb;
	struct view want, got;
	struct hv_seg s;
	unsigned any, acts, none = 0;
	bool sack = (t->tf & TF_SACK) != 0, sample;
	uint32_t una;
	uint8_t ca, buf[64];
	bool taken;

	any_state(t);
	any_segment(t, &s);
	look(t, &want);
	any = model(t, &s, &want);
	taken = (want.acts & (HV_TCP_DROP | HV_TCP_DEMOTE)) == 0;
	ca = t->ca;
	una = t->snd_una;
	sample = taken && before(una, s.ack) > 0 && before(s.ack, t->snd_nxt) >= 0;
	if (sample && measures(t, &s))
		want.backoff = 0;
	acts = hv_tcp_input(t, &r.h.env, &s, r.now);
	look(t, &got);
	got.acts = taken ? acts & HV_TCP_DEMOTE : acts;
	if ((any & ANY_STAMP) != 0)
		got.ts_recent_at = want.ts_recent_at;
	if ((any & ANY_CWR) != 0) {
		got.cwr_end = want.cwr_end;
		got.probes = want.probes;
		got.ka_sent = want.ka_sent;
	}
	if ((any & ANY_ACKS) != 0) {
		got.ack_at = want.ack_at;
		got.tf = (got.tf & ~TF_ACK_NOW) | (want.tf & TF_ACK_NOW);
		got.ndsack = want.ndsack;
		got.dsack_start = want.dsack_start;
		got.dsack_end = want.dsack_end;
	}
	if (ca != t->ca && (ca >= HV_CA_RECOVERY || t->ca >= HV_CA_RECOVERY)) { /* recovery.c has more to say: stack_model.c */
		got.dupacks = want.dupacks;
		got.reno_sacked = want.reno_sacked;
		got.cwr_end = want.cwr_end;
		got.tf = (got.tf & ~TF_CWR) | (want.tf & TF_CWR);
	}
	if ((any & ANY_DUPS) != 0) {
		got.reno_sacked = want.reno_sacked;
		got.tf = (got.tf & ~TF_CWR) | (want.tf & TF_CWR);
	}
	if (s.nsack != 0 || ca >= HV_CA_RECOVERY)
		got.reno_sacked = want.reno_sacked;
	SAME(acts);
	SAME(segs_in);
	SAME(paws);
	SAME(bad_seq);
	SAME(bad_ack);
	SAME(challenges);
	SAME(d_rst);
	SAME(d_fin);
	SAME(d_other);
	SAME(tf);
	SAME(challenge_at);
	SAME(probe_ack_at);
	SAME(last_rx);
	SAME(ts_recent);
	SAME(ts_recent_at);
	SAME(quick);
	SAME(ka_sent);
	if (want.head > got.head)
		fail_msg("life %u, round %u: the head isn't to go again", life, round);
	if (want.head != 0 || (sample && got.una != got.nxt)) /* else a window that opens may end the backing off */
		SAME(backoff);
	if (!sack && ca == HV_CA_RECOVERY && t->ca == ca && s.ack == una)
		SAME(prr);
	SAME(una);
	SAME(nxt);
	SAME(acked);
	SAME(base);
	SAME(edge);
	SAME(wl1);
	SAME(max_wnd);
	SAME(probes);
	SAME(nrtx);
	SAME(dups);
	SAME(dupacks);
	SAME(reno_sacked);
	SAME(cwr_end);
	SAME(rcv_nxt);
	SAME(octets);
	SAME(ack_at);
	SAME(ndsack);
	SAME(dsack_start);
	SAME(dsack_end);
	/* whoever has something to send is told */
	if (taken && !(acts & HV_TCP_OUT) && hv_may_send(t))
		fail_msg("life %u, round %u: nobody is told to send", life, round);
	if (taken && got.rcv_nxt != want.rcv_nxt && !(acts & HV_TCP_READABLE))
		fail_msg("life %u, round %u: nobody is told to read", life, round);
	t->tf &= ~TF_DEAD;
	while (hv_tcp_read(t, &r.h.env, buf, sizeof buf, false, &none, r.now) != 0)
		;
	pump();
}

static void segments(void **state)
{
	uint32_t rounds = 0;

	(void)state;
	prng_seed(&rng, 9293);
	for (uint32_t life = 0; life < LIVES; life++) {
		start();
		for (uint32_t round = 0; round < ROUNDS && r.h.tcb->ooo_head == NULL && r.h.env.n_free_tx > 8; round++, rounds++)
			one(life, round);
		rig_end(&r);
	}
	print_message("%u segments\n", rounds);
	assert_true(rounds > 20000);
}

/* The newest of the octets that an ACK covers tell how short the round trip is, the oldest how long. */
static void round_trips(void **state)
{
	(void)state;
	rig_init(&r);
	rig_start(&r);
	rig_write(&r, 1000);
	r.now += 5000;
	rig_write(&r, 1000);
	r.now += 4000;
	in(&r, .ack = 2000);
	assert_int_equal(r.h.tcb->min_rtt, 4000);
	assert_int_equal(r.h.tcb->srtt8, 8 * 10000 - 1000); /* 10 ms from the image, and an eighth of the way to 9 ms */
	rig_drop_out(&r);
	rig_end(&r);
}

/* Only a stamp tells the round trip of what was sent twice, in milliseconds: one that is too short for these counts as one. */
static void round_trip_by_stamp(void **state)
{
	(void)state;
	rig_init(&r);
	rig_stamps(&r);
	rig_start(&r);
	rig_write(&r, 1000);
	rig_next(&r);
	assert_int_equal(r.h.cnt.rto, 1);
	rig_drop_out(&r);
	in(&r, .ack = 1000, .tsecr = (uint32_t)(r.now / 1000));
	assert_int_equal(r.h.tcb->srtt8, 8 * 10000 + 1000 - 10000);
	rig_end(&r);
}

/* Many holes need a chunk of the pool to remember; it goes back as soon as they are few. */
static void records_go_back(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_SACK;
	r.img.snd_cwnd = 40;
	rig_start(&r);
	rig_write(&r, 30000);
	for (uint32_t i = 1; i < 29; i += 2)
		in(&r, .ack = 0, .nsack = 1, .sack = { { 1000 * i, 1000 * i + 1000 } });
	assert_non_null(r.h.tcb->rec_chunk);
	in(&r, .ack = 27000, .nsack = 1, .sack = { { 27000, 28000 } });
	assert_in_range(r.h.tcb->rec_n, 1, 4);
	assert_null(r.h.tcb->rec_chunk);
	in(&r, .ack = 30000);
	rig_drop_out(&r);
	rig_end(&r);
}

/* WRITABLE when there is room for half of what is queued, and, with TCP_NOTSENT_LOWAT, when less than half of that will wait after what
 * leaves now. */
static void writable(void **state)
{
	struct hv_tcb t;

	(void)state;
	prng_seed(&rng, 1122);
	for (uint32_t i = 0; i < 300000; i++) {
		uint32_t q, unsent, can;
		bool was = once_in(2), owed, room, tell;

		memset(&t, 0, sizeof t);
		t.tf = (once_in(2) ? TF_NOSPACE : 0) | (once_in(2) ? TF_LOWAT : 0);
		t.snd_una = 0u - 50;
		t.snd_nxt = t.snd_una + 10 * pick(0, 10);
		t.snd_end = t.snd_nxt + 10 * pick(0, 10) + pick(0, 2);
		t.snd_edge = t.snd_nxt + 10 * pick(0, 9) - 10;
		t.cwnd = 10 * pick(1, 20);
		t.sndbuf = 15 * pick(1, 20) + pick(0, 2);
		t.sacked_out = hv_min32(hv_flight(&t), 10 * pick(0, 3));
		t.notsent_lowat = (t.tf & TF_LOWAT) != 0 ? 10 * pick(1, 12) + pick(0, 1) : UINT32_MAX;
		q = t.snd_end - t.snd_una;
		unsent = t.snd_end - t.snd_nxt;
		owed = !was || (t.tf & TF_NOSPACE) != 0;
		room = q < t.sndbuf && 2 * (t.sndbuf - q) >= q - q % 2;
		can = hv_flight(&t) - t.sacked_out < t.cwnd ? t.cwnd - (hv_flight(&t) - t.sacked_out) : 0;
		if (before(t.snd_nxt, t.snd_edge) <= 0)
			can = 0;
		else if (can > t.snd_edge - t.snd_nxt)
			can = t.snd_edge - t.snd_nxt;
		tell = hv_tcp_writable(&t);
		if (!tell && (t.tf & TF_LOWAT) != 0 && room && can > 0)
			tell = 2 * (uint64_t)(unsent > can ? unsent - can : 0) < t.notsent_lowat;
		tell = tell && owed;
		if ((hv_space_event(&t, was) == HV_TCP_WRITABLE) != tell)
			fail_msg("round %u: WRITABLE should%s be told", i, tell ? "" : "n't");
		if (tell && (t.tf & TF_NOSPACE) != 0)
			fail_msg("round %u: still owed", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(segments), cmocka_unit_test(round_trips), cmocka_unit_test(round_trip_by_stamp),
		cmocka_unit_test(records_go_back),
		cmocka_unit_test(writable) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
