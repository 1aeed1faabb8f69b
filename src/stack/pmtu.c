/*
 * pmtu.c - how large a segment may be: the peer's MSS, the path's MTU, the options that go with every segment.
 *
 * ICMP arrives at the kernel (RFC 1191, 8201); the engine reads the verdict from there and tells it here, so a forged message has passed
 * the kernel's checks first (RFC 5927). Where ICMP is dropped, timeouts of large segments have to tell (RFC 4821, 8899: black hole).
 * Ring lock.
 */
#include "stack/cc.h"

void hv_mss_update(struct hv_tcb *t)
{
	uint32_t m = t->mss_clamp, hdr = HV_TCP_LEN + ((t->tf & TF_V6) != 0 ? HV_IP6_LEN : HV_IP4_LEN),
		 opt = (t->tf & TF_TS) != 0 ? HV_TS_OPT_LEN : 0;

	if (t->pmtu > hdr)
		m = hv_min32(m, t->pmtu - hdr);
	if (t->bh_mss != 0)
		m = hv_min32(m, t->bh_mss);
	/* Tiny segments would make one octet cost more than it is worth (CVE-2019-11479); SACK blocks have to fit too. */
	m = hv_max32(m, HV_MSS_MIN) - opt;
	/* Two segments to a small window: with one, each would wait for the peer's delayed ACK (Linux's tcp_bound_to_half_wnd()). */
	if (t->max_wnd != 0)
		m = hv_max32(hv_min32(m, t->max_wnd > HV_MSS_DEFAULT ? t->max_wnd / 2 : t->max_wnd), HV_MSS_MIN - opt);
	t->mss = (uint16_t)hv_min32(m, 65000);
	/* what was a segment or two may be less than one now (both are zero during import) */
	if (t->cwnd != 0 && t->cwnd < t->mss)
		t->cwnd = t->mss;
	if (t->ssthresh != 0 && t->ssthresh < 2u * t->mss)
		t->ssthresh = 2u * t->mss;
}

/* The peer has offered more than ever. */
void hv_max_wnd(struct hv_tcb *t, uint32_t wnd)
{
	bool small = t->max_wnd < 2u * t->mss_clamp;

	t->max_wnd = wnd;
	if (small)
		hv_mss_update(t);
}

#define BH_TIMEOUTS 2u     /* so many retransmissions of a large segment were in vain */
#define BH_SAFE 1220u      /* what IPv6's least MTU carries isn't suspected */
#define BH_FIRST_WAIT_S 10u
#define BH_MAX_WAIT_S 600u /* as net.ipv4.tcp_probe_interval */

/* A timeout is about to be acted upon. Does the path swallow what is large? What is retransmitted is cut anew, to a size that more paths
 * carry: Ethernet behind jumbo frames, IPv6's least MTU, Linux's tcp_base_mss, RFC 1122's. The segment may be a message that doesn't
 * fill one. */
void hv_black_hole(struct hv_tcb *t, uint64_t now)
{
	static const uint16_t sizes[] = { 1400, 1200, 1024, HV_MSS_DEFAULT };
	uint32_t opt = (t->tf & TF_TS) != 0 ? HV_TS_OPT_LEN : 0;
	/* what is resent */
	uint32_t len = hv_min32(t->rec_n != 0 ? hv_rec(t, 0)->end - t->snd_una : hv_flight(t), t->mss), full = len + opt;
	bool trial = t->bh_prev != 0 && now - t->bh_at < BH_MAX_WAIT_S * 1000000ull;

	if (t->nrtx < (trial ? 1 : BH_TIMEOUTS) || (full <= BH_SAFE && (t->bh_mss == 0 || len < t->mss)))
		return;
	for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		if (sizes[i] > full - full / 8)
			continue;
		t->bh_mss = trial ? t->bh_prev : sizes[i];
		t->bh_prev = 0;
		/* The path may just have been down: try again soon, and less and less often. */
		t->bh_wait_s = t->bh_wait_s == 0 ? BH_FIRST_WAIT_S : hv_min32(trial ? 2 * t->bh_wait_s : t->bh_wait_s, BH_MAX_WAIT_S);
		t->bh_at = now + t->bh_wait_s * 1000000ull;
		hv_mss_update(t);
		return;
	}
}

/* Time to try full-sized segments again. One timeout is enough to see that they still vanish. */
void hv_black_hole_retry(struct hv_tcb *t, uint64_t now)
{
	t->bh_prev = t->bh_mss;
	t->bh_mss = 0;
	t->bh_at = now;
	hv_mss_update(t);
}

unsigned hv_tcp_set_pmtu(struct hv_tcb *t, uint32_t pmtu, uint64_t now)
{
	uint32_t old = t->mss;

	/* No path is narrower (RFC 791, RFC 8200 section 5): whoever says so lies. */
	if (pmtu < ((t->tf & TF_V6) != 0 ? 1280u : 68u) || (t->tf & TF_DEAD) != 0)
		return 0;
	t->pmtu = pmtu;
	t->bh_mss = t->bh_prev = 0; /* now it is known */
	hv_mss_update(t);
	/* What was cut larger is gone, and not by congestion: again, with cwnd as it was (Linux's tcp_simple_retransmit()). */
	if (t->mss < old && t->snd_nxt != t->snd_una && t->ca < HV_CA_RECOVERY) {
		hv_rec_mark_all_lost(t, false);
		t->reno_sacked = 0;
		t->recover = t->snd_nxt;
		t->recover_fs = hv_max32(hv_flight(t), t->mss);
		t->prr_delivered = t->prr_out = 0;
		t->ssthresh = hv_max32(t->cwnd, 2u * t->mss);
		t->ca = HV_CA_LOSS;
		t->tf &= ~(TF_UNDO | TF_UNDO_RX | TF_TLP_OUT | TF_TLP);
		hv_set_rtx(t, HV_RTX_RTO, now + hv_rto_backed(t));
	}
	hv_refresh(t);
	return hv_may_send(t) ? HV_TCP_OUT : 0;
}
