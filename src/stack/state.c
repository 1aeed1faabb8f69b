/*
 * state.c - a connection's way in and out: import from and export to struct hv_tcp_image, options, figures, release.
 *
 * Called by the engine with the ring's lock held (import: with the TCB not yet visible to anybody).
 */
#include "stack/cc.h"
#include "stack/frame.h"

size_t hv_tcb_size(void)
{
	return sizeof(struct hv_tcb);
}

static void make_template(struct hv_tcb *t, const uint8_t *l2, uint32_t l2_len)
{
	uint8_t *ip = t->hdr + l2_len, *ports;
	/* RFC 3168: ECT(0), as new data has it. What mustn't have it takes it out again, see hv_tcp_output(). */
	uint32_t l4_off, tos = t->tos | ((t->tf & TF_ECN) != 0 ? HV_ECT0 : 0);

	memset(t->hdr, 0, sizeof t->hdr);
	memcpy(t->hdr, l2, l2_len);
	t->l3_off = (uint8_t)l2_len;
	if (t->tuple.family == 6) {
		/* RFC 6437: one label per flow, not zero, not guessable from one field alone */
		uint32_t label = (hv_tuple_hash(&t->tuple) & 0xfffffu) | 1u;

		ip[0] = (uint8_t)(0x60u | tos >> 4);
		ip[1] = (uint8_t)(tos << 4 | label >> 16);
		hv_put16(ip + 2, label);
		ip[HV_IP6_NEXT] = HV_PROTO_TCP;
		ip[HV_IP6_HOPS] = t->ttl;
		memcpy(ip + HV_IP6_SRC, t->tuple.laddr, 16);
		memcpy(ip + HV_IP6_DST, t->tuple.raddr, 16);
		ports = ip + HV_IP6_LEN;
	} else {
		ip[0] = 0x45;
		ip[HV_IP4_TOS] = (uint8_t)tos;
		hv_put16(ip + HV_IP4_FRAG, HV_IP4_DF);
		ip[HV_IP4_TTL] = t->ttl;
		ip[HV_IP4_PROTO] = HV_PROTO_TCP;
		memcpy(ip + HV_IP4_SRC, t->tuple.laddr, 4);
		memcpy(ip + HV_IP4_DST, t->tuple.raddr, 4);
		ports = ip + HV_IP4_LEN;
	}
	memcpy(ports, &t->tuple.lport, 2);
	memcpy(ports + 2, &t->tuple.rport, 2);
	t->hdr_len = (uint8_t)(ports + 4 - t->hdr);
	l4_off = t->hdr_len - 4u;
	t->tx_lead = HV_TX_LEAD(l4_off + HV_TCP_LEN + ((t->tf & TF_TS) != 0 ? HV_TS_OPT_LEN : 0), t->l3_off, l4_off);
}

static bool sane(const struct hv_tcp_image *img, uint32_t l2_len)
{
	const uint32_t lim = 1u << 30;

	if ((img->tuple.family != 4 && img->tuple.family != 6) ||
	    (l2_len != HV_ETH_LEN && l2_len != HV_ETH_LEN + HV_VLAN_LEN))
		return false;
	if (img->snd_wscale > 14 || img->rcv_wscale > 14)
		return false;
	if (img->snd_nxt - img->snd_una > lim || img->snd_end - img->snd_una > lim ||
	    img->snd_end - img->snd_una < img->snd_nxt - img->snd_una)
		return false;
	if (img->snd_len != img->snd_end - img->snd_una || img->rcv_len > lim || (img->snd_len != 0 && img->snd == NULL) ||
	    (img->rcv_len != 0 && img->rcv == NULL))
		return false;
	if (img->rcv_nxt - img->rcv_wup > lim || img->rcv_wnd > lim || img->snd_wnd > lim || img->max_window > lim)
		return false;
	/* as the kernel checks TCP_REPAIR_WINDOW: a SND.WL1 ahead of all that the peer may send would shut window updates out */
	if (hv_seq_gt(img->snd_wl1, hv_seq_max(img->rcv_wup + img->rcv_wnd, img->rcv_nxt)))
		return false;
	if (img->rcvbuf == 0 || img->sndbuf == 0 || img->rcvbuf > lim || img->sndbuf > lim || img->rcvbuf_max > lim ||
	    img->sndbuf_max > lim)
		return false;
	return img->mss_clamp != 0 || img->snd_mss != 0;
}

static uint32_t segs_to_octets(uint32_t segs, uint32_t mss, uint32_t max)
{
	uint64_t v = (uint64_t)segs * mss;

	return v < max ? (uint32_t)v : max;
}

int hv_tcp_import(struct hv_tcb *t, struct hv_env *env, struct hv_tcp_counters *cnt, const struct hv_tcp_image *img, const uint8_t *hdr_l2,
    uint32_t l2_len, uint8_t *aux, uint64_t now)
{
	if (!sane(img, l2_len))
		return -EINVAL;
	memset(t, 0, sizeof *t);
	t->cnt = cnt;
	t->tuple = img->tuple;
	t->tuple.proto = HV_PROTO_TCP;
	t->ttl = img->ttl != 0 ? img->ttl : 64;
	t->tos = img->tos & 0xfcu; /* the ECN bits are ours: make_template() */
	t->tf = ((img->opts & HV_TCPO_TS) != 0 ? TF_TS : 0) | ((img->opts & HV_TCPO_SACK) != 0 ? TF_SACK : 0) |
	    ((img->opts & HV_TCPO_ECN) != 0 ? TF_ECN : 0) | (img->nodelay ? TF_NODELAY : 0) | (img->cork ? TF_CORK : 0) |
	    (img->keepalive ? TF_KEEPALIVE : 0) | (img->tuple.family == 6 ? TF_V6 : 0) | (img->quickack ? 0 : TF_PINGPONG);
	make_template(t, hdr_l2, l2_len);
	if ((img->opts & HV_TCPO_WS) != 0) {
		t->snd_wscale = img->snd_wscale;
		t->rcv_wscale = img->rcv_wscale;
	}
	t->mss_clamp = img->mss_clamp != 0 ? img->mss_clamp : img->snd_mss + ((t->tf & TF_TS) != 0 ? HV_TS_OPT_LEN : 0);
	t->pmtu = img->pmtu;
	t->max_wnd = hv_max32(img->max_window, img->snd_wnd);
	hv_mss_update(t);
	t->rcv_mss = (uint16_t)hv_min32(536, t->mss);

	/* receive side */
	t->rcvbuf = img->rcvbuf;
	t->rcvbuf_max = hv_max32(img->rcvbuf_max, img->rcvbuf);
	t->pool_lim = UINT32_MAX;
	if (env->rx_total != 0) /* half a slot of payload is a cautious guess */
		t->pool_lim = hv_max32(env->rx_total / 4, 16) * hv_max32(env->free_rx != NULL ? env->free_rx->cap / 2 : 1024, 512);
	t->window_clamp = img->window_clamp;
	hv_rwnd_lim(t);
	t->rcv_nxt = img->rcv_nxt;
	t->rcv_copied = img->rcv_nxt - img->rcv_len;
	t->rcv_edge = hv_seq_max(img->rcv_wup + img->rcv_wnd, img->rcv_nxt);
	if (t->rcv_edge - t->rcv_nxt > 65535u << t->rcv_wscale) /* no segment can have said that */
		t->rcv_edge = t->rcv_nxt + (65535u << t->rcv_wscale);
	t->last_ack = img->rcv_wup;
	hv_rcv_autotune_init(t, now);
	if (img->rcv_len != 0) {
		if (aux != img->rcv)
			memcpy(aux, img->rcv, img->rcv_len);
		t->aux = aux;
		t->aux_len = img->rcv_len;
		t->rx_charge = img->rcv_len;
	}
	t->ts_off = img->ts_off;
	t->import_us = now;
	if ((t->tf & TF_TS) != 0 && img->ts_recent_valid) {
		t->ts_recent = img->ts_recent;
		t->ts_recent_at = now;
		t->tf |= TF_TS_KNOWN;
	}
	t->quick = HV_MAX_QUICKACKS;
	t->last_rx_us = t->last_tx_us = now;
	t->ack_at = HV_NEVER;
	if (t->last_ack != t->rcv_nxt) { /* the kernel was holding an ACK back */
		t->tf |= TF_ACK_PEND;
		t->ack_at = now + HV_DELACK;
	}

	/* send side */
	t->sndbuf = img->sndbuf;
	t->sndbuf_max = hv_max32(img->sndbuf_max, img->sndbuf);
	t->notsent_lowat = img->notsent_lowat != 0 ? img->notsent_lowat : UINT32_MAX;
	if (t->notsent_lowat != UINT32_MAX)
		t->tf |= TF_LOWAT;
	t->snd_una = t->snd_nxt = t->snd_end = img->snd_una;
	t->snd_sml = t->rack_round_end = img->snd_una;
	t->recover = t->cwr_end = img->snd_una - 1; /* all of it is beyond these */
	t->snd_edge = img->snd_una + img->snd_wnd;
	t->snd_wl1 = img->snd_wl1;
	t->rec = t->embed;
	t->rec_cap = HV_XREC_EMBED;
	t->rack_mult = 1;
	t->peer_delack_us = 3000;
	t->rtx_at = t->ka_at = HV_NEVER;
	if (img->srtt_us != 0) {
		t->srtt8 = hv_min32(img->srtt_us, HV_RTO_MAX) << 3;
		t->rttvar4 = hv_min32(img->rttvar_us, HV_RTO_MAX) << 2;
	}
	/* ~0: the kernel has none yet */
	t->min_rtt = t->srtt8 != 0 && img->min_rtt_us != UINT32_MAX ? hv_min32(img->min_rtt_us, HV_RTO_MAX / 2) : 0;
	t->min_rtt_at = now;
	t->rto_init = img->rto_us >= HV_RTO_MIN && img->rto_us <= HV_RTO_MAX ? img->rto_us : HV_RTO_INIT;
	t->ssthresh = img->snd_ssthresh != 0 ? segs_to_octets(hv_max32(img->snd_ssthresh, 2), t->mss, HV_SSTHRESH_INF) : HV_SSTHRESH_INF;
	t->cwnd = img->snd_cwnd != 0 ? segs_to_octets(img->snd_cwnd, t->mss, HV_CWND_MAX) : hv_iw(t);
	t->user_timeout_ms = img->user_timeout_ms;
	t->ka_idle_s = img->keepidle_s != 0 ? img->keepidle_s : 7200;
	t->ka_intvl_s = img->keepintvl_s != 0 ? img->keepintvl_s : 75;
	t->ka_cnt = img->keepcnt != 0 ? img->keepcnt : 9;
	if ((t->tf & TF_KEEPALIVE) != 0)
		t->ka_at = now + (uint64_t)t->ka_idle_s * 1000000u;

	if (img->snd_len != 0 && hv_snd_append(t, env, img->snd, img->snd_len) != img->snd_len) {
		hv_snd_release(t, env);
		return -ENOBUFS;
	}
	if (img->snd_nxt != img->snd_una) {
		/* In flight, sent by the kernel at times we don't know: no RTT from it, and a short first timeout, otherwise frequent moves
		 * would restart the RTO for ever (handoff.md 1.2 step 7). */
		uint32_t d = hv_max32(t->srtt8 >> 1, 10000);

		hv_rec_sent(t, env, img->snd_una, img->snd_nxt, (uint32_t)now, XRF_EVER | XRF_REXMIT | XRF_KERNEL);
		t->snd_nxt = img->snd_nxt;
		t->bytes_base = img->snd_nxt - img->snd_una;
		hv_set_rtx(t, HV_RTX_IMPORT, now + d);
	}
	if (t->snd_end != t->snd_nxt) {
		t->tf |= TF_IMPORT;
		t->import_end = t->snd_end;
		if (t->snd_nxt == t->snd_una)
			hv_timer_rearm(t, now); /* in case the caller is slow to ask for output */
	}
	hv_refresh(t);
	return 0;
}

bool hv_tcp_aux_done(const struct hv_tcb *t)
{
	return t->aux_len == 0 || t->late_chunk != NULL;
}

void hv_tcp_export(const struct hv_tcb *t, struct hv_tcp_image *img, uint64_t now)
{
	(void)now;
	memset(img, 0, sizeof *img);
	img->tuple = t->tuple;
	img->opts = (uint8_t)(((t->tf & TF_TS) != 0 ? HV_TCPO_TS : 0) | ((t->tf & TF_SACK) != 0 ? HV_TCPO_SACK : 0) |
	    ((t->tf & TF_ECN) != 0 ? HV_TCPO_ECN : 0) | ((t->snd_wscale | t->rcv_wscale) != 0 ? HV_TCPO_WS : 0));
	img->snd_wscale = t->snd_wscale;
	img->rcv_wscale = t->rcv_wscale;
	img->ttl = t->ttl;
	img->tos = t->tos;
	img->snd_una = t->snd_una;
	img->snd_nxt = t->snd_nxt;
	img->snd_end = t->snd_end;
	img->rcv_nxt = t->rcv_nxt;
	img->snd_wl1 = hv_seq_min(t->snd_wl1, t->rcv_nxt);
	img->snd_wnd = hv_seq_gt(t->snd_edge, t->snd_una) ? t->snd_edge - t->snd_una : 0;
	img->max_window = hv_max32(t->max_wnd, img->snd_wnd);
	img->rcv_wnd = t->rcv_edge - t->rcv_nxt;
	img->rcv_wup = t->rcv_nxt;
	img->mss_clamp = t->mss_clamp;
	img->snd_mss = t->mss;
	img->pmtu = t->pmtu;
	img->ts_off = t->ts_off;
	img->ts_recent = t->ts_recent;
	img->ts_recent_valid = (t->tf & TF_TS_KNOWN) != 0;
	img->srtt_us = t->srtt8 >> 3;
	img->rttvar_us = t->rttvar4 >> 2;
	img->min_rtt_us = hv_min_rtt(t);
	img->rto_us = hv_rto(t);
	img->snd_cwnd = hv_max32(t->cwnd / t->mss, 1);
	img->snd_ssthresh = t->ssthresh >= HV_SSTHRESH_INF ? HV_SSTHRESH_INF : hv_max32(t->ssthresh / t->mss, 2);
	img->rcvbuf = t->rcvbuf;
	img->sndbuf = t->sndbuf;
	img->rcvbuf_max = t->rcvbuf_max;
	img->sndbuf_max = t->sndbuf_max;
	img->nodelay = (t->tf & TF_NODELAY) != 0;
	img->cork = (t->tf & TF_CORK) != 0;
	img->quickack = (t->tf & TF_PINGPONG) == 0;
	img->user_timeout_ms = t->user_timeout_ms;
	img->keepalive = (t->tf & TF_KEEPALIVE) != 0;
	img->keepidle_s = t->ka_idle_s;
	img->keepintvl_s = t->ka_intvl_s;
	img->keepcnt = t->ka_cnt;
	img->notsent_lowat = t->notsent_lowat;
	img->window_clamp = t->window_clamp;
	img->rcv_len = t->rcv_nxt - t->rcv_copied;
	img->snd_len = t->snd_end - t->snd_una;
}

void hv_tcp_export_rcv(const struct hv_tcb *t, uint8_t *dst)
{
	if (t->aux_len != 0)
		memcpy(dst, t->aux, t->aux_len);
	dst += t->aux_len;
	for (const struct hv_buf *b = t->rx_head; b != NULL; b = b->next) {
		memcpy(dst, b->data, b->len);
		dst += b->len;
	}
}

void hv_tcp_export_snd(const struct hv_tcb *t, uint8_t *dst)
{
	hv_snd_copy(t, dst);
}

bool hv_tcp_export_ooo(const struct hv_tcb *t, uint32_t *cursor, uint32_t *seq, const uint8_t **data, uint32_t *len)
{
	const struct hv_buf *b = t->ooo_head;

	for (uint32_t i = 0; b != NULL && i < *cursor; i++)
		b = b->next;
	if (b == NULL)
		return false;
	(*cursor)++;
	*seq = b->seq;
	*data = b->data;
	*len = b->len;
	return true;
}

void hv_tcp_release(struct hv_tcb *t, struct hv_env *env)
{
	hv_snd_release(t, env);
	hv_rcv_release(t, env);
	if (t->rec_chunk != NULL)
		hv_chunk_put(env, t->rec_chunk);
	t->rec_chunk = NULL;
	t->rec = t->embed;
	t->rec_n = t->rec_head = 0;
	t->rec_cap = HV_XREC_EMBED;
	t->sacked_out = t->lost_out = t->reno_sacked = 0;
	t->tf |= TF_DEAD;
	t->snd_una = t->snd_nxt = t->snd_end;
	t->rcv_copied = t->rcv_nxt;
	t->fast_edge = t->snd_nxt;
	t->pred = HV_PRED_NEVER;
	t->rtx_at = t->ack_at = t->ka_at = HV_NEVER;
	t->rtx_kind = HV_RTX_OFF;
}

void hv_tcp_set_l2(struct hv_tcb *t, const uint8_t *hdr_l2, uint32_t l2_len)
{
	if (l2_len == t->l3_off)
		memcpy(t->hdr, hdr_l2, l2_len);
	else if (l2_len >= HV_ETH_LEN && l2_len <= HV_ETH_LEN + HV_VLAN_LEN)
		make_template(t, hdr_l2, l2_len);
}

const struct hv_tuple *hv_tcp_tuple(const struct hv_tcb *t)
{
	return &t->tuple;
}

unsigned hv_tcp_setopt(struct hv_tcb *t, enum hv_tcp_opt opt, uint32_t val, uint64_t now)
{
	switch (opt) {
	case HV_TCP_NODELAY:
		/* what waits goes now, out of a cork too, which stays in for what comes later */
		t->tf = val != 0 ? t->tf | TF_NODELAY | TF_PUSH : t->tf & ~TF_NODELAY;
		break;
	case HV_TCP_CORK:
		t->tf = val != 0 ? t->tf | TF_CORK : t->tf & ~(TF_CORK | TF_MORE);
		if (val == 0 && (t->tf & TF_NODELAY) != 0)
			t->tf |= TF_PUSH;
		break;
	case HV_TCP_QUICKACK:
		if (val == 0) {
			t->tf |= TF_PINGPONG;
		} else {
			t->tf &= ~TF_PINGPONG;
			t->quick = HV_MAX_QUICKACKS;
			if ((t->tf & TF_ACK_PEND) != 0)
				t->tf |= TF_ACK_NOW;
			if (val == 2) /* one-shot, as in the kernel: even values don't leave interactive mode for good */
				t->tf |= TF_PINGPONG;
		}
		break;
	case HV_TCP_KEEPALIVE:
		t->tf = val != 0 ? t->tf | TF_KEEPALIVE : t->tf & ~TF_KEEPALIVE;
		t->ka_at = val != 0 ? now + (uint64_t)t->ka_idle_s * 1000000u : HV_NEVER;
		t->ka_sent = 0;
		break;
	case HV_TCP_KEEPIDLE:
		t->ka_idle_s = val != 0 ? val : 7200;
		if ((t->tf & TF_KEEPALIVE) != 0) {
			uint64_t at = t->last_rx_us + (uint64_t)t->ka_idle_s * 1000000u;

			t->ka_at = at > now ? at : now + 1;
		}
		break;
	case HV_TCP_KEEPINTVL:
		t->ka_intvl_s = val != 0 ? val : 75;
		break;
	case HV_TCP_KEEPCNT:
		t->ka_cnt = val != 0 ? val : 9;
		break;
	case HV_TCP_USER_TIMEOUT:
		t->user_timeout_ms = val;
		break;
	case HV_TCP_NOTSENT_LOWAT:
		t->notsent_lowat = val != 0 ? val : UINT32_MAX;
		t->tf = t->notsent_lowat != UINT32_MAX ? t->tf | TF_LOWAT : t->tf & ~TF_LOWAT;
		break;
	case HV_TCP_WINDOW_CLAMP:
		t->window_clamp = val;
		hv_rwnd_lim(t);
		break;
	case HV_TCP_RCVBUF:
		t->rcvbuf = t->rcvbuf_max = hv_min32(hv_max32(val, 2048), 1u << 30); /* fixed from now on */
		hv_rwnd_lim(t);
		break;
	case HV_TCP_SNDBUF:
		t->sndbuf = t->sndbuf_max = hv_min32(hv_max32(val, 2048), 1u << 30);
		break;
	case HV_TCP_TOS:
	case HV_TCP_TTL: {
		uint8_t l2[HV_ETH_LEN + HV_VLAN_LEN];
		uint32_t l2_len = t->l3_off;

		if (opt == HV_TCP_TOS)
			t->tos = val & 0xfcu;
		else
			t->ttl = (uint8_t)(val != 0 ? val : 64);
		memcpy(l2, t->hdr, l2_len);
		make_template(t, l2, l2_len);
		break;
	}
	case HV_TCP_CONGESTION:
		t->tf = val == HV_TCP_CC_RENO ? t->tf | TF_RENO : t->tf & ~TF_RENO;
		memset(&t->cubic, 0, sizeof t->cubic);
		break;
	}
	hv_refresh(t);
	return hv_may_send(t) ? HV_TCP_OUT : 0;
}

void hv_tcp_stat(const struct hv_tcb *t, struct hv_tcp_stat *st)
{
	memset(st, 0, sizeof *st);
	st->srtt_us = t->srtt8 >> 3;
	st->rttvar_us = t->rttvar4 >> 2;
	st->min_rtt_us = hv_min_rtt(t);
	st->rto_us = (uint32_t)hv_rto_backed(t);
	st->cwnd = t->cwnd / t->mss;
	st->ssthresh = t->ssthresh >= HV_SSTHRESH_INF ? HV_SSTHRESH_INF : t->ssthresh / t->mss;
	st->snd_mss = t->mss;
	st->rcv_mss = t->rcv_mss;
	st->unacked = (hv_flight(t) + t->mss - 1) / t->mss;
	st->sacked = (t->sacked_out + t->reno_sacked + t->mss - 1) / t->mss;
	st->lost = (t->lost_out + t->mss - 1) / t->mss;
	for (uint32_t i = 0; i < t->rec_n; i++) {
		if (hv_rec(t, i)->st == XR_RETX)
			st->retrans += (hv_rec(t, i)->end - hv_rec(t, i)->seq + t->mss - 1) / t->mss;
	}
	st->rcv_wnd = t->rcv_edge - t->rcv_nxt;
	st->snd_wnd = hv_seq_gt(t->snd_edge, t->snd_una) ? t->snd_edge - t->snd_una : 0;
	st->rcv_space = t->rwnd_lim;
	st->reordering = (t->tf & TF_RACK_REO) != 0 ? HV_DUPTHRESH * t->rack_mult + 1 : HV_DUPTHRESH;
	st->ca_state = t->ca;
	st->retransmits = t->nrtx;
	st->probes = t->probes;
	st->backoff = t->backoff;
	st->ato_us = t->quick != 0 && (t->tf & TF_PINGPONG) == 0 ? HV_QUICKACK_US : HV_DELACK;
	st->pmtu = t->pmtu;
	st->data_segs_in = t->segs_in - t->pure_in;
	st->data_segs_out = t->segs_out - t->pure_out;
	st->bytes_sent = t->bytes_acked + hv_flight(t) - t->bytes_base + t->bytes_rexmit;
	st->bytes_acked = t->bytes_acked;
	st->bytes_received = t->bytes_in;
	st->bytes_retrans = t->bytes_rexmit;
	st->segs_in = t->segs_in;
	st->segs_out = t->segs_out;
	st->total_retrans = t->total_rexmit;
	st->last_rx_us = t->last_rx_us;
	st->last_tx_us = t->last_tx_us;
}
