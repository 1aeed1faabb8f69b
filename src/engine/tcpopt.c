/*
 * tcpopt.c - socket options of VF-tier sockets. The kernel has already judged and stored the option (architecture rule 4); this is the mirror that the stack needs.
 */
#include <linux/tcp.h>
#include <netinet/in.h>

#include "engine/internal.h"

#ifndef TCP_NOTSENT_LOWAT
#define TCP_NOTSENT_LOWAT 25
#endif

static bool tcp_opt(struct hv_sock *s, int level, int opt, int v)
{
	struct hv_sock_priv *p = s->p;
	enum hv_tcp_opt o;

	if (level == SOL_SOCKET) {
		switch (opt) {
		case SO_KEEPALIVE: {
			/* On the parked kernel socket it must stay off: its timer doesn't know that it is parked. */
			p->park.keepalive = v != 0;
			hv_sys_setint(p->park.fd, SOL_SOCKET, SO_KEEPALIVE, 0);
			hv_sock_apply(s, hv_tcp_setopt(p->tcb, HV_TCP_KEEPALIVE, v != 0, hv_now_us()), hv_now_us());
			return true;
		}
		case SO_REUSEADDR:
			p->park.reuseaddr = v != 0;
			return true;
		case SO_RCVBUF:
		case SO_RCVBUFFORCE:
			v = hv_sys_getint(p->park.fd, SOL_SOCKET, SO_RCVBUF);
			o = HV_TCP_RCVBUF;
			break;
		case SO_SNDBUF:
		case SO_SNDBUFFORCE:
			v = hv_sys_getint(p->park.fd, SOL_SOCKET, SO_SNDBUF);
			o = HV_TCP_SNDBUF;
			break;
		case SO_RCVLOWAT:
			return v <= 1;
		/* no meaning for the VF tier, or handled above the engine */
		case SO_RCVTIMEO:
		case SO_SNDTIMEO:
		case SO_LINGER:
		case SO_PRIORITY:
		case SO_DEBUG:
		case SO_OOBINLINE:
		case SO_BUSY_POLL:
		case SO_DONTROUTE:
		case SO_REUSEPORT:
		case SO_BROADCAST:
		case SO_INCOMING_CPU:
			return true;
		default:
			return false;
		}
	} else if (level == IPPROTO_TCP) {
		switch (opt) {
		case TCP_NODELAY: o = HV_TCP_NODELAY; break;
		case TCP_CORK: o = HV_TCP_CORK; break;
		case TCP_QUICKACK: o = HV_TCP_QUICKACK; p->park.quickack = v; break;
		case TCP_KEEPIDLE: o = HV_TCP_KEEPIDLE; break;
		case TCP_KEEPINTVL: o = HV_TCP_KEEPINTVL; break;
		case TCP_KEEPCNT: o = HV_TCP_KEEPCNT; break;
		case TCP_USER_TIMEOUT: o = HV_TCP_USER_TIMEOUT; break;
		case TCP_NOTSENT_LOWAT: o = HV_TCP_NOTSENT_LOWAT; break;
		case TCP_WINDOW_CLAMP: o = HV_TCP_WINDOW_CLAMP; p->park.window_clamp = v; break;
		case TCP_LINGER2:
		case TCP_SYNCNT:
		case TCP_DEFER_ACCEPT:
		case TCP_THIN_LINEAR_TIMEOUTS:
		case TCP_THIN_DUPACK:
			return true;
		default:
			return false;
		}
	} else {
		return false;
	}
	uint64_t now = hv_now_us();
	hv_sock_apply(s, hv_tcp_setopt(p->tcb, o, (uint32_t)v, now), now);
	return true;
}

static bool udp_opt(struct hv_sock *s, int level, int opt, int v)
{
	struct hv_udp *u = &s->p->udp;

	if (level == SOL_SOCKET) {
		switch (opt) {
		case SO_RCVBUF:
		case SO_RCVBUFFORCE:
			v = hv_sys_getint(hv_sock_fd(s), SOL_SOCKET, SO_RCVBUF);
			if (v > 0)
				u->rcvbuf = (uint32_t)v;
			return true;
		case SO_SNDBUF:
		case SO_SNDBUFFORCE:
		case SO_RCVTIMEO:
		case SO_SNDTIMEO:
		case SO_BROADCAST:
		case SO_BUSY_POLL:
		case SO_PRIORITY:
		case SO_RCVLOWAT:
			return true;
		default:
			return false;
		}
	}
	if (level == IPPROTO_IP && opt == IP_TTL) {
		u->ttl = (uint8_t)(v < 0 ? 64 : v);
		return true;
	}
	if (level == IPPROTO_IP && opt == IP_TOS) {
		u->tos = (uint8_t)v;
		return true;
	}
	if (level == IPPROTO_IPV6 && (opt == IPV6_UNICAST_HOPS || opt == IPV6_TCLASS)) {
		if (opt == IPV6_TCLASS)
			u->tos = (uint8_t)(v < 0 ? 0 : v);
		else
			u->ttl = (uint8_t)(v < 0 ? 64 : v);
		return true;
	}
	return false;
}

bool hv_vf_setsockopt(struct hv_sock *s, int level, int opt, const void *val, socklen_t len)
{
	int v = 0;
	bool ok = true;

	memcpy(&v, val, len < sizeof v ? len : sizeof v);
	hv_lock(&G.lock);
	if (hv_sock_vf(s))
		ok = s->type == SOCK_STREAM ? tcp_opt(s, level, opt, v) : udp_opt(s, level, opt, v);
	hv_unlock(&G.lock);
	return ok;
}

static int put(void *val, socklen_t *len, const void *src, socklen_t n)
{
	if (*len > n)
		*len = n;
	memcpy(val, src, *len);
	return (int)*len;
}

void hv_info_past_kernel(struct hv_sock *s, int fd)
{
	struct hv_tcp_counts *c = &s->p->past;
	struct tcp_info ti;
	socklen_t l = sizeof ti;

	memset(&ti, 0, sizeof ti);
	if (hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l) < 0)
		return;
	c->bytes_acked += ti.tcpi_bytes_acked;
	c->bytes_received += ti.tcpi_bytes_received;
	c->bytes_sent += ti.tcpi_bytes_sent;
	c->bytes_retrans += ti.tcpi_bytes_retrans;
	c->segs_in += ti.tcpi_segs_in;
	c->segs_out += ti.tcpi_segs_out;
	c->total_retrans += ti.tcpi_total_retrans;
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
}

/* A program takes differences of these: they must not go back. */
static void add_past(const struct hv_sock *s, struct tcp_info *ti)
{
	const struct hv_tcp_counts *c = &s->p->past;

	ti->tcpi_bytes_acked += c->bytes_acked;
	ti->tcpi_bytes_received += c->bytes_received;
	ti->tcpi_bytes_sent += c->bytes_sent;
	ti->tcpi_bytes_retrans += c->bytes_retrans;
	ti->tcpi_segs_in += c->segs_in;
	ti->tcpi_segs_out += c->segs_out;
	ti->tcpi_total_retrans += c->total_retrans;
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

/* The kernel's answer describes the parked socket: its static parts are true, the moving ones are ours. */
static int tcp_info(struct hv_sock *s, void *val, socklen_t *len)
{
	struct tcp_info ti;
	struct hv_tcp_stat st;
	socklen_t l = sizeof ti;
	uint64_t now = hv_now_us();

	memset(&ti, 0, sizeof ti);
	if (hv_sys_getsockopt(s->p->park.fd, IPPROTO_TCP, TCP_INFO, &ti, &l) < 0)
		return 0;
	hv_tcp_stat(s->p->tcb, &st);
	ti.tcpi_state = 1;
	ti.tcpi_ca_state = (uint8_t)st.ca_state;
	ti.tcpi_retransmits = 0;
	ti.tcpi_rto = st.rto_us;
	ti.tcpi_snd_mss = st.snd_mss;
	ti.tcpi_rcv_mss = st.rcv_mss;
	ti.tcpi_unacked = st.unacked;
	ti.tcpi_sacked = st.sacked;
	ti.tcpi_lost = st.lost;
	ti.tcpi_retrans = st.retrans;
	ti.tcpi_last_data_sent = st.last_tx_us != 0 ? (uint32_t)((now - st.last_tx_us) / 1000u) : 0;
	ti.tcpi_last_data_recv = st.last_rx_us != 0 ? (uint32_t)((now - st.last_rx_us) / 1000u) : 0;
	ti.tcpi_rtt = st.srtt_us;
	ti.tcpi_rttvar = st.rttvar_us;
	ti.tcpi_min_rtt = st.min_rtt_us;
	ti.tcpi_snd_ssthresh = st.ssthresh;
	ti.tcpi_snd_cwnd = st.cwnd;
	ti.tcpi_reordering = st.reordering;
	ti.tcpi_rcv_space = st.rcv_space;
	ti.tcpi_total_retrans = st.total_retrans;
	ti.tcpi_bytes_acked = st.bytes_acked;
	ti.tcpi_bytes_received = st.bytes_received;
	ti.tcpi_bytes_sent = st.bytes_sent;
	ti.tcpi_bytes_retrans = st.bytes_retrans;
	ti.tcpi_segs_in = (uint32_t)st.segs_in;
	ti.tcpi_segs_out = (uint32_t)st.segs_out;
	ti.tcpi_notsent_bytes = hv_tcp_outq_nsd(s->p->tcb);
	add_past(s, &ti);
	return put(val, len, &ti, l);
}

int hv_vf_getsockopt(struct hv_sock *s, int level, int opt, void *val, socklen_t *len)
{
	int r = 0, v;

	if (s->type != SOCK_STREAM)
		return 0;
	hv_lock(&G.lock);
	if (!hv_sock_vf(s))
		r = HV_MOVED;
	else if (level == IPPROTO_TCP && opt == TCP_INFO)
		r = tcp_info(s, val, len);
	else if (level == IPPROTO_TCP && opt == TCP_MAXSEG) { /* in repair mode the kernel would tell the clamp */
		struct hv_tcp_stat st;
		hv_tcp_stat(s->p->tcb, &st);
		v = (int)st.snd_mss;
		r = put(val, len, &v, sizeof v);
	} else if (level == SOL_SOCKET && opt == SO_KEEPALIVE) {
		v = s->p->park.keepalive;
		r = put(val, len, &v, sizeof v);
	} else if (level == SOL_SOCKET && opt == SO_REUSEADDR) {
		v = s->p->park.reuseaddr;
		r = put(val, len, &v, sizeof v);
	}
	hv_unlock(&G.lock);
	return r;
}
