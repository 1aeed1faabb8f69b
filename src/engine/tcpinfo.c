/*
 * tcpinfo.c - TCP_INFO and the other figures of a connection, whoever owns it: the kernel's counts restart at each hand-off, and so do the
 * stack's.
 *
 * Lock held.
 */
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "engine/internal.h"

void hv_info_past_kernel(struct hv_sock *s, int fd)
{
	struct hv_tcp_counts *c = &s->p->past;
	struct tcp_info ti;
	socklen_t l = sizeof ti;

	memset(&ti, 0, sizeof ti);
	if (hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l) < 0)
		return;
	if (s->p->promotes == 0)
		c->advmss = ti.tcpi_advmss; /* was said on the SYN; the kernel computes it anew at each hand-off */
	c->bytes_acked += ti.tcpi_bytes_acked;
	c->bytes_received += ti.tcpi_bytes_received;
	c->bytes_sent += ti.tcpi_bytes_sent;
	c->bytes_retrans += ti.tcpi_bytes_retrans;
	c->segs_in += ti.tcpi_segs_in;
	c->segs_out += ti.tcpi_segs_out;
	c->total_retrans += ti.tcpi_total_retrans;
	c->data_segs_in += ti.tcpi_data_segs_in;
	c->data_segs_out += ti.tcpi_data_segs_out;
	c->delivered += ti.tcpi_delivered;
	c->rcv_ooopack += ti.tcpi_rcv_ooopack;
}

/* Segments that the peer has, as the kernel counts them. */
static uint32_t delivered(const struct hv_tcp_stat *st)
{
	uint32_t away = st->unacked > st->sacked ? st->unacked - st->sacked : 0;

	return st->data_segs_out > away ? st->data_segs_out - away : 0;
}

void hv_info_past_vf(struct hv_sock *s)
{
	struct hv_tcp_counts *c = &s->p->past;
	struct hv_tcp_stat st;

	hv_tcp_stat(s->p->tcb, &st);
	c->bytes_acked += st.bytes_acked;
	c->bytes_received += st.bytes_received;
	c->bytes_sent += st.bytes_sent;
	c->bytes_retrans += st.bytes_retrans;
	c->segs_in += (uint32_t)st.segs_in;
	c->segs_out += (uint32_t)st.segs_out;
	c->total_retrans += st.total_retrans;
	c->data_segs_in += st.data_segs_in;
	c->data_segs_out += st.data_segs_out;
	c->delivered += delivered(&st);
	if (s->p->park.rtt_octet) { /* the kernel counts it once more */
		c->bytes_acked--;
		c->delivered--;
	}
}

/* A program takes differences of these: they must not go back. */
static void add_past(const struct hv_sock *s, struct tcp_info *ti)
{
	const struct hv_tcp_counts *c = &s->p->past;

	ti->tcpi_advmss = c->advmss;
	ti->tcpi_bytes_acked += c->bytes_acked;
	ti->tcpi_bytes_received += c->bytes_received;
	ti->tcpi_bytes_sent += c->bytes_sent;
	ti->tcpi_bytes_retrans += c->bytes_retrans;
	ti->tcpi_segs_in += c->segs_in;
	ti->tcpi_segs_out += c->segs_out;
	ti->tcpi_total_retrans += c->total_retrans;
	ti->tcpi_data_segs_in += c->data_segs_in;
	ti->tcpi_data_segs_out += c->data_segs_out;
	ti->tcpi_delivered += c->delivered;
	ti->tcpi_rcv_ooopack += c->rcv_ooopack;
	if (ti->tcpi_bytes_acked == UINT64_MAX) /* nothing was, and the octet of the hand-off isn't yet */
		ti->tcpi_bytes_acked = 0;
	if (ti->tcpi_delivered == UINT32_MAX)
		ti->tcpi_delivered = 0;
}

void hv_kernel_info(const struct hv_sock *s, void *val, socklen_t len)
{
	struct tcp_info ti;

	if (s->p->promotes == 0 || s->type != SOCK_STREAM)
		return;
	memset(&ti, 0, sizeof ti);
	memcpy(&ti, val, len < sizeof ti ? len : sizeof ti);
	add_past(s, &ti);
	memcpy(val, &ti, len < sizeof ti ? len : sizeof ti);
}

/* The kernel's answer describes the parked socket: what the handshake has settled is true there, the rest is the stack's, or 0 where
 * neither of them knows (rates, times of being limited, the receiver's own RTT). */
int hv_info_vf(struct hv_sock *s, void *val, socklen_t len)
{
	struct tcp_info *ti = val;
	struct hv_tcp_stat st;
	socklen_t l = len; /* a kernel newer than this file has more to say */
	uint64_t now = hv_now_us();

	memset(val, 0, len);
	if (hv_sys_getsockopt(s->p->park.fd, IPPROTO_TCP, TCP_INFO, val, &l) < 0)
		return 0;
	hv_tcp_stat(s->p->tcb, &st);
	ti->tcpi_state = 1;
	ti->tcpi_ca_state = (uint8_t)st.ca_state;
	ti->tcpi_retransmits = (uint8_t)st.retransmits;
	ti->tcpi_probes = (uint8_t)st.probes;
	ti->tcpi_backoff = (uint8_t)st.backoff;
	/* a reconnect in repair mode doesn't know how the handshake went */
	ti->tcpi_options = (uint8_t)((ti->tcpi_options & ~(TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE | TCPI_OPT_ECN)) | s->p->park.tcp_opts);
	ti->tcpi_snd_wscale = s->p->park.snd_wscale & 15u;
	ti->tcpi_rcv_wscale = s->p->park.rcv_wscale & 15u;
	ti->tcpi_rto = st.rto_us;
	ti->tcpi_ato = st.ato_us;
	ti->tcpi_snd_mss = st.snd_mss;
	ti->tcpi_rcv_mss = st.rcv_mss;
	ti->tcpi_unacked = st.unacked;
	ti->tcpi_sacked = st.sacked;
	ti->tcpi_lost = st.lost;
	ti->tcpi_retrans = st.retrans;
	ti->tcpi_last_data_sent = (uint32_t)((now - st.last_tx_us) / 1000u);
	ti->tcpi_last_data_recv = ti->tcpi_last_ack_recv = (uint32_t)((now - st.last_rx_us) / 1000u);
	if (st.pmtu != 0)
		ti->tcpi_pmtu = st.pmtu;
	ti->tcpi_rcv_ssthresh = st.rcv_space;
	ti->tcpi_rtt = st.srtt_us;
	ti->tcpi_rttvar = st.rttvar_us;
	ti->tcpi_min_rtt = st.min_rtt_us != 0 ? st.min_rtt_us : UINT32_MAX;
	ti->tcpi_snd_ssthresh = st.ssthresh;
	ti->tcpi_snd_cwnd = st.cwnd;
	ti->tcpi_reordering = st.reordering;
	ti->tcpi_rcv_rtt = 0;
	ti->tcpi_rcv_space = st.rcv_space;
	ti->tcpi_pacing_rate = UINT64_MAX;
	ti->tcpi_delivery_rate = 0;
	ti->tcpi_busy_time = ti->tcpi_rwnd_limited = ti->tcpi_sndbuf_limited = 0;
	ti->tcpi_total_retrans = st.total_retrans;
	ti->tcpi_bytes_acked = st.bytes_acked;
	ti->tcpi_bytes_received = st.bytes_received;
	ti->tcpi_bytes_sent = st.bytes_sent;
	ti->tcpi_bytes_retrans = st.bytes_retrans;
	ti->tcpi_segs_in = (uint32_t)st.segs_in;
	ti->tcpi_segs_out = (uint32_t)st.segs_out;
	ti->tcpi_data_segs_in = st.data_segs_in;
	ti->tcpi_data_segs_out = st.data_segs_out;
	ti->tcpi_delivered = delivered(&st);
	ti->tcpi_dsack_dups = ti->tcpi_reord_seen = ti->tcpi_rcv_ooopack = 0;
	ti->tcpi_snd_wnd = st.snd_wnd;
	ti->tcpi_notsent_bytes = hv_tcp_outq_nsd(s->p->tcb);
	add_past(s, ti);
	return (int)l;
}

int hv_meminfo_vf(struct hv_sock *s, uint32_t *val, socklen_t len)
{
	socklen_t l = len;

	memset(val, 0, len);
	if (hv_sys_getsockopt(s->p->park.fd, SOL_SOCKET, SO_MEMINFO, val, &l) < 0)
		return 0;
	val[SK_MEMINFO_RMEM_ALLOC] = hv_tcp_readable(s->p->tcb);
	val[SK_MEMINFO_WMEM_ALLOC] = hv_tcp_outq(s->p->tcb) - hv_tcp_outq_nsd(s->p->tcb);
	val[SK_MEMINFO_WMEM_QUEUED] = hv_tcp_outq(s->p->tcb);
	return (int)l;
}
