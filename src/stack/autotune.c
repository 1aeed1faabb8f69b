/*
 * autotune.c - how large the buffers of a connection are: the receive window follows what the reader takes in a round trip (dynamic
 * right sizing, Linux's tcp_rcv_space_adjust()), the send buffer follows cwnd (tcp_sndbuf_expand()).
 *
 * Neither grows beyond what the program or tcp_rmem and tcp_wmem allow, nor the window beyond its share of the ring's pool; neither
 * shrinks. Off the fast path: the window is looked at when an acknowledgment of bulk data moves its edge, the send buffer when it is
 * half full. Ring lock.
 */
#include "stack/cc.h"

/* What an empty receive queue may advertise: never more than the kernel could hold after a demotion, and not more than a quarter of the
 * ring's buffers if all of it came. */
HV_COLD void hv_rwnd_lim(struct hv_tcb *t)
{
	uint32_t w = t->rcvbuf / 2 + t->rcvbuf / 8;

	w = hv_min32(w, t->pool_lim);
	if (t->window_clamp != 0)
		w = hv_min32(w, t->window_clamp);
	t->rwnd_lim = hv_min32(w, 65535u << t->rcv_wscale);
	t->wnd_keep = hv_wnd_keep(t);
}

void hv_rcv_autotune_init(struct hv_tcb *t, uint64_t now)
{
	t->drs_seq = t->rcv_copied;
	t->drs_space = HV_IW_SEGS * t->mss;
	t->drs_at = t->drs_win_at = now;
	t->drs_win_seq = t->rcv_edge;
}

/* A receiver sends nothing whose ACK it could time. A timestamp echo tells the RTT in ms; without, one window takes one RTT at least. */
static uint32_t receiver_rtt(struct hv_tcb *t, uint64_t now)
{
	if ((t->tf & TF_TS) != 0) {
		uint32_t ms, us;

		if (t->rcv_tsecr != t->drs_tsecr && hv_echo_age(t, t->rcv_tsecr, now, &ms)) {
			us = hv_max32(ms, 1) * 1000;
			t->drs_tsecr = t->rcv_tsecr;
			t->drs_rtt8 = t->drs_rtt8 == 0 ? us << 3 : t->drs_rtt8 + us - (t->drs_rtt8 >> 3);
		}
		if (t->drs_rtt8 > 8000)
			return t->drs_rtt8 >> 3;
	} else if (hv_seq_ge(t->rcv_nxt, t->drs_win_seq)) {
		uint64_t us = now - t->drs_win_at;

		if (us < HV_RTO_MAX && (t->drs_rtt8 == 0 || us < t->drs_rtt8 >> 3))
			t->drs_rtt8 = hv_max32((uint32_t)us, 1) << 3;
		t->drs_win_seq = t->rcv_edge;
		t->drs_win_at = now;
	}
	return t->srtt8 != 0 ? t->srtt8 >> 3 : t->drs_rtt8 >> 3;
}

/* The advertised edge has just moved. */
HV_COLD void hv_rcv_autotune(struct hv_tcb *t, uint64_t now)
{
	uint64_t copied = t->rcv_copied - t->drs_seq, took = now - t->drs_at, win;
	uint32_t rtt = receiver_rtt(t, now);

	if (rtt == 0 || took < rtt)
		return;
	copied = copied * rtt / took;
	if (copied > t->drs_space) {
		/* Twice that, so that a sender in slow start isn't held back in the next round trip; more if the last one has grown
		 * more. */
		win = 2 * copied + 16u * t->rcv_mss;
		win += 2 * (win * (copied - t->drs_space) / t->drs_space);
		win = hv_min64(win * 8 / 5, t->rcvbuf_max);
		if (win > t->rcvbuf) {
			t->rcvbuf = (uint32_t)win;
			hv_rwnd_lim(t);
		}
		t->drs_space = (uint32_t)copied;
	}
	t->drs_seq = t->rcv_copied;
	t->drs_at = now;
}

/* An ACK has made room while the buffer was at least half full: it shall hold what is in flight, what will be with the next round trip, and
 * what the writer puts in meanwhile. */
HV_COLD void hv_snd_autotune(struct hv_tcb *t)
{
	uint64_t want = 3ull * hv_max32(t->cwnd, hv_iw(t));

	if (hv_pipe(t) >= t->cwnd) /* cwnd is what limits */
		return;
	want = hv_min64(want, t->sndbuf_max);
	if (want > t->sndbuf)
		t->sndbuf = (uint32_t)want;
}
