/*
 * pmtu.c - how large a segment may be: the peer's MSS, the path's MTU, the options that go with every segment.
 *
 * ICMP arrives at the kernel (RFC 1191, 8201); the engine reads the verdict from there and tells it here, so a forged message has passed
 * the kernel's checks first (RFC 5927). Ring lock.
 */
#include "stack/cc.h"

void hv_mss_update(struct hv_tcb *t)
{
	uint32_t m = t->mss_clamp, hdr = HV_TCP_LEN + ((t->tf & TF_V6) != 0 ? HV_IP6_LEN : HV_IP4_LEN),
		 opt = (t->tf & TF_TS) != 0 ? HV_TS_OPT_LEN : 0;

	if (t->pmtu > hdr)
		m = hv_min32(m, t->pmtu - hdr);
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

unsigned hv_tcp_set_pmtu(struct hv_tcb *t, uint32_t pmtu, uint64_t now)
{
	uint32_t old = t->mss;

	if (pmtu < 68 || (t->tf & TF_DEAD) != 0)
		return 0;
	t->pmtu = pmtu;
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
