/*
 * promote.c - from the kernel to us (handoff.md 1.2): eligibility, freeze, read, undo.
 *
 * The receive queue is peeked, not drained: until something has been sent or acknowledged by us the kernel's socket is complete, so that a failure
 * or an undo only takes the filter away again. The price is that the test for out-of-order data (memory in use although nothing is readable) needs
 * an empty queue, or a count of out-of-order segments that has not moved since the queue was last known to be clean.
 *
 * Called by the engine for one socket, serialised; no globals but hv_g.
 */
#include <errno.h>
#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef TCP_AO_INFO
#define TCP_AO_INFO 40
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define OPT_USEC_TS 64u     /* TCPI_OPT_USEC_TS */
#define ESTABLISHED 1
#define TS_MARGIN_MS 2000u  /* pacing stamps segments ahead of the clock; a TSval that goes back is dropped by PAWS */
#define READ_TRIES 4
#define READ_MAX (1u << 30)

static int info_get(int fd, struct tcp_info *ti)
{
	socklen_t l = sizeof *ti;

	memset(ti, 0, sizeof *ti);
	return hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &l);
}

static int names(struct hv_park *pk)
{
	struct hv_tuple *t = &pk->tuple;
	union hv_sa l, r;
	socklen_t ll = sizeof l, rl = sizeof r;
	int e = hv_sys_getsockname(pk->fd, &l, &ll);

	if (e == 0)
		e = hv_sys_getpeername(pk->fd, &r, &rl);
	if (e < 0)
		return e;
	memset(t, 0, sizeof *t);
	t->proto = IPPROTO_TCP;
	if (pk->domain == AF_INET) {
		t->family = 4;
		t->lport = l.in.sin_port;
		t->rport = r.in.sin_port;
		memcpy(t->laddr, &l.in.sin_addr, 4);
		memcpy(t->raddr, &r.in.sin_addr, 4);
		return 0;
	}
	t->lport = l.in6.sin6_port;
	t->rport = r.in6.sin6_port;
	if (IN6_IS_ADDR_V4MAPPED(&r.in6.sin6_addr)) {
		t->family = 4;
		memcpy(t->laddr, &l.in6.sin6_addr.s6_addr[12], 4);
		memcpy(t->raddr, &r.in6.sin6_addr.s6_addr[12], 4);
		return 0;
	}
	t->family = 6;
	t->scope = r.in6.sin6_scope_id;
	memcpy(t->laddr, &l.in6.sin6_addr, 16);
	memcpy(t->raddr, &r.in6.sin6_addr, 16);
	return 0;
}

/* Kind of socket and what hangs on it. */
static enum hv_move_why check_kind(struct hv_park *pk)
{
	uint8_t b[256];
	uint64_t ns = 0;
	socklen_t l;
	int fd = pk->fd, v = hv_sys_getint(fd, SOL_SOCKET, SO_PROTOCOL);

	if (v == IPPROTO_MPTCP)
		return HV_MOVE_MPTCP;
	pk->domain = hv_sys_getint(fd, SOL_SOCKET, SO_DOMAIN);
	if (v != IPPROTO_TCP || (pk->domain != AF_INET && pk->domain != AF_INET6) || hv_sys_getint(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM)
		return HV_MOVE_FAMILY;
	l = sizeof ns;
	uint64_t ours = __atomic_load_n(&hv_g.netns, __ATOMIC_RELAXED);
	if (ours != 0 && hv_sys_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &ns, &l) == 0 && ns != ours)
		return HV_MOVE_FAMILY;
	if (hv_sys_getint(fd, IPPROTO_TCP, TCP_REPAIR) > 0)
		return HV_MOVE_REPAIR_IN_USE;
	l = 0; /* asks for the length of a classic filter; an eBPF one is refused */
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &l) < 0 || l != 0)
		return HV_MOVE_OWN_FILTER;
	l = 16;
	if (hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_ULP, b, &l) == 0 && l != 0)
		return HV_MOVE_ULP;
	l = sizeof b;
	memset(b, 0, sizeof b);
	if (hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_AO_INFO, b, &l) == 0)
		return HV_MOVE_MD5;
	l = 44;
	if (hv_sys_getsockopt(fd, IPPROTO_IP, IP_OPTIONS, b, &l) == 0 && l != 0)
		return HV_MOVE_NO_TS_OR_OPT;
	if (hv_sys_getint(fd, IPPROTO_TCP, TCP_TX_DELAY) > 0)
		return HV_MOVE_NO_TS_OR_OPT;
	return HV_MOVE_OK;
}

static enum hv_move_why check_info(const struct tcp_info *ti)
{
	if (ti->tcpi_options & OPT_USEC_TS)
		return HV_MOVE_USEC_TS;
	if (ti->tcpi_state != ESTABLISHED)
		return HV_MOVE_STATE;
	if (ti->tcpi_ca_state != 0 || ti->tcpi_retransmits != 0 || ti->tcpi_retrans != 0 || ti->tcpi_lost != 0 || ti->tcpi_sacked != 0)
		return HV_MOVE_RECOVERY;
	return HV_MOVE_OK;
}

/* Octets in the out-of-order queue are already selectively acknowledged, and TCP_REPAIR can't read them. */
static bool ooo_held(struct hv_park *pk, const struct tcp_info *ti, int inq)
{
	uint32_t mem[16] = { 0 };
	socklen_t l = sizeof mem;

	if (ti->tcpi_rcv_ooopack == pk->ooo_base)
		return false;
	if (inq != 0 || hv_sys_getsockopt(pk->fd, SOL_SOCKET, SO_MEMINFO, mem, &l) < 0 || mem[0] != 0)
		return true;
	pk->ooo_base = ti->tcpi_rcv_ooopack;
	return false;
}

enum hv_move_why hv_promote_check(int fd, struct hv_park *pk, struct hv_tcp_image *img, uint32_t max_octets)
{
	struct pollfd p = { fd, POLLPRI | POLLRDHUP, 0 };
	struct timespec zero = { 0, 0 };
	struct tcp_info ti;
	int inq = 0, outq = 0;

	if (!hv_handoff_open() && __atomic_load_n(&hv_g.eperm, __ATOMIC_RELAXED))
		return HV_MOVE_EPERM;
	if (pk->parked)
		return HV_MOVE_STATE;
	pk->fd = fd;
	enum hv_move_why why = check_kind(pk);
	if (why != HV_MOVE_OK)
		return why;
	if (info_get(fd, &ti) < 0)
		return HV_MOVE_FAMILY;
	why = check_info(&ti);
	if (why != HV_MOVE_OK)
		return why;
	/* RDHUP in ESTABLISHED: shutdown(SHUT_RD), which a disconnect would forget. ERR: a pending error or an entry in the error queue. */
	hv_sys_ppoll(&p, 1, &zero, NULL);
	if (p.revents & POLLPRI)
		return HV_MOVE_URGENT;
	if (p.revents & (POLLRDHUP | POLLERR | POLLHUP | POLLNVAL))
		return HV_MOVE_STATE;
	hv_sys_ioctl(fd, SIOCINQ, &inq);
	hv_sys_ioctl(fd, SIOCOUTQ, &outq);
	if ((uint32_t)inq > max_octets || (uint32_t)outq > max_octets)
		return HV_MOVE_TOO_MUCH;
	if (ooo_held(pk, &ti, inq))
		return HV_MOVE_OOO;
	int r = names(pk);
	if (r < 0)
		return HV_MOVE_STATE; /* reset meanwhile */
	img->tuple = pk->tuple;
	return HV_MOVE_OK;
}

/* The kernel's socket as it was. Everything in it is still there. */
static void thaw(struct hv_park *pk)
{
	int fd = pk->fd;

	hv_repair_queue(fd, TCP_NO_QUEUE);
	hv_drop_detach(fd);
	hv_sys_setint(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF);
	if (pk->reuseaddr > 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_REUSEADDR, pk->reuseaddr);
	if (pk->keepalive > 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (pk->peek_off >= 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_PEEK_OFF, pk->peek_off);
	pk->parked = false;
}

/* Unread octets and rcv_nxt, which belong together: a segment that was already past the filter may still move both. */
static int read_rcv(struct hv_park *pk, struct hv_tcp_image *img, uint8_t *buf, size_t cap)
{
	uint32_t a, b;
	int r, inq = 0;

	for (int i = 0; i < READ_TRIES; i++) {
		r = hv_queue_seq(pk->fd, TCP_RECV_QUEUE, &a);
		if (r < 0)
			return hv_step(pk, "read rcv_nxt", r);
		r = hv_sys_ioctl(pk->fd, SIOCINQ, &inq);
		if (r < 0)
			return hv_step(pk, "SIOCINQ", r);
		if ((size_t)inq > cap)
			return hv_step(pk, "unread octets", -EMSGSIZE);
		ssize_t n = inq != 0 ? hv_sys_recv(pk->fd, buf, (size_t)inq, MSG_PEEK | MSG_DONTWAIT) : 0;
		r = hv_queue_seq(pk->fd, TCP_RECV_QUEUE, &b);
		if (r < 0)
			return hv_step(pk, "read rcv_nxt", r);
		if (a != b || n != inq)
			continue;
		img->rcv_nxt = a;
		img->rcv = buf;
		img->rcv_len = (uint32_t)inq;
		return 0;
	}
	return hv_step(pk, "receive queue keeps moving", -EAGAIN);
}

/* Send queue. Acknowledgements that were past the filter may still shorten it. */
static int read_snd(struct hv_park *pk, struct hv_tcp_image *img, uint8_t *buf, size_t cap)
{
	int r, outq = 0, again = 0, unsent = 0;

	r = hv_sys_ioctl(pk->fd, SIOCOUTQNSD, &unsent);
	if (r < 0)
		return hv_step(pk, "SIOCOUTQNSD", r);
	r = hv_queue_seq(pk->fd, TCP_SEND_QUEUE, &img->snd_end);
	if (r < 0)
		return hv_step(pk, "read write_seq", r);
	for (int i = 0; i < READ_TRIES; i++) {
		r = hv_sys_ioctl(pk->fd, SIOCOUTQ, &outq);
		if (r < 0)
			return hv_step(pk, "SIOCOUTQ", r);
		if ((size_t)outq > cap)
			return hv_step(pk, "unacknowledged octets", -EMSGSIZE);
		ssize_t n = outq != 0 ? hv_sys_recv(pk->fd, buf, (size_t)outq, MSG_PEEK | MSG_DONTWAIT) : 0;
		r = hv_sys_ioctl(pk->fd, SIOCOUTQ, &again);
		if (r < 0)
			return hv_step(pk, "SIOCOUTQ", r);
		if (again != outq || n != outq)
			continue;
		img->snd = buf;
		img->snd_len = (uint32_t)outq;
		img->snd_una = img->snd_end - (uint32_t)outq;
		img->snd_nxt = img->snd_end - (uint32_t)(unsent < outq ? unsent : outq);
		return 0;
	}
	return hv_step(pk, "send queue keeps moving", -EAGAIN);
}

static uint32_t opt(int fd, int level, int name, uint32_t def)
{
	int v = hv_sys_getint(fd, level, name);

	return v >= 0 ? (uint32_t)v : def;
}

static void read_options(const struct hv_park *pk, struct hv_tcp_image *img)
{
	int fd = pk->fd;
	uint32_t lock = opt(fd, SOL_SOCKET, SO_BUF_LOCK, 3), v;

	if (img->tuple.family == 6) {
		img->ttl = (uint8_t)opt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64);
		img->tos = (uint8_t)opt(fd, IPPROTO_IPV6, IPV6_TCLASS, 0);
	} else {
		img->ttl = (uint8_t)opt(fd, IPPROTO_IP, IP_TTL, 64);
		img->tos = (uint8_t)opt(fd, IPPROTO_IP, IP_TOS, 0);
	}
	/* What it can hold in octets of payload if the program has fixed it: half, the rest is overhead. Otherwise it grows by itself. */
	v = opt(fd, SOL_SOCKET, SO_RCVBUF, 131072);
	img->rcvbuf_max = (lock & 2) == 0 && v < hv_g.rmem_max ? hv_g.rmem_max / 2 : 0;
	img->rcvbuf = (lock & 2) != 0 || img->rcvbuf_max == 0 ? v / 2 : v < img->rcvbuf_max ? v : img->rcvbuf_max;
	v = opt(fd, SOL_SOCKET, SO_SNDBUF, 131072);
	img->sndbuf_max = (lock & 1) == 0 && v < hv_g.wmem_max ? hv_g.wmem_max / 2 : 0;
	img->sndbuf = (lock & 1) != 0 || img->sndbuf_max == 0 ? v / 2 : v < img->sndbuf_max ? v : img->sndbuf_max;
	img->nodelay = opt(fd, IPPROTO_TCP, TCP_NODELAY, 0) != 0;
	img->cork = opt(fd, IPPROTO_TCP, TCP_CORK, 0) != 0;
	img->quickack = opt(fd, IPPROTO_TCP, TCP_QUICKACK, 0) != 0; /* reads the momentary mode: is this a conversation? */
	img->user_timeout_ms = opt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
	img->keepalive = pk->keepalive > 0;
	img->keepidle_s = opt(fd, IPPROTO_TCP, TCP_KEEPIDLE, 7200);
	img->keepintvl_s = opt(fd, IPPROTO_TCP, TCP_KEEPINTVL, 75);
	img->keepcnt = opt(fd, IPPROTO_TCP, TCP_KEEPCNT, 9);
	v = opt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0);
	img->notsent_lowat = v != 0 ? v : UINT32_MAX;
	img->window_clamp = 0; /* the kernel's own figure and the program's can't be told apart */
}

static int read_window(struct hv_park *pk, struct hv_tcp_image *img)
{
	struct tcp_repair_window w;
	socklen_t l = sizeof w;
	int r = hv_sys_getsockopt(pk->fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &l);

	if (r < 0)
		return hv_step(pk, "TCP_REPAIR_WINDOW", r);
	img->snd_wl1 = w.snd_wl1;
	img->snd_wnd = w.snd_wnd;
	img->max_window = w.max_window > w.snd_wnd ? w.max_window : w.snd_wnd;
	img->rcv_wup = w.rcv_wup;
	img->rcv_wnd = w.rcv_wnd;
	/* A late accept may have moved the base, never the meaning of the edge. */
	if (hv_seq_lt(img->rcv_nxt, img->rcv_wup)) {
		img->rcv_wnd += img->rcv_wup - img->rcv_nxt;
		img->rcv_wup = img->rcv_nxt;
	}
	if (hv_seq_lt(img->rcv_nxt, img->snd_wl1))
		img->snd_wl1 = img->rcv_nxt;
	return 0;
}

/* With the filter on and in repair mode: everything into *img. */
static enum hv_move_why read_all(struct hv_park *pk, struct hv_tcp_image *img, uint8_t *buf, size_t cap)
{
	struct tcp_info ti;
	int fd = pk->fd, v, inq = 0, r = info_get(fd, &ti);
	enum hv_move_why why;

	if (r < 0) {
		hv_step(pk, "TCP_INFO", r);
		return HV_MOVE_SYSCALL;
	}
	why = check_info(&ti);
	if (why != HV_MOVE_OK)
		return why;
	hv_sys_ioctl(fd, SIOCINQ, &inq);
	if (ooo_held(pk, &ti, inq))
		return HV_MOVE_OOO;
	v = hv_sys_getint(fd, IPPROTO_TCP, TCP_MAXSEG); /* in repair mode: the clamp */
	if (v < 0) {
		hv_step(pk, "TCP_MAXSEG", v);
		return HV_MOVE_SYSCALL;
	}
	img->tuple = pk->tuple;
	img->opts = pk->tcp_opts = ti.tcpi_options & (HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS | HV_TCPO_ECN);
	img->snd_wscale = pk->snd_wscale = ti.tcpi_snd_wscale;
	img->rcv_wscale = pk->rcv_wscale = ti.tcpi_rcv_wscale;
	img->mss_clamp = pk->mss_clamp = (uint32_t)v;
	img->snd_mss = ti.tcpi_snd_mss;
	img->pmtu = ti.tcpi_pmtu;
	img->srtt_us = ti.tcpi_rtt;
	img->rttvar_us = ti.tcpi_rttvar;
	img->min_rtt_us = ti.tcpi_min_rtt;
	img->rto_us = ti.tcpi_rto;
	img->snd_cwnd = ti.tcpi_snd_cwnd;
	img->snd_ssthresh = ti.tcpi_snd_ssthresh;
	img->ts_off = img->ts_recent = 0;
	img->ts_recent_valid = false;
	if (img->opts & HV_TCPO_TS) {
		uint32_t ts = 0, ms = (uint32_t)(hv_now_us() / 1000); /* together: later is another time */
		socklen_t l = sizeof ts;
		r = hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &ts, &l);
		if (r < 0) {
			hv_step(pk, "TCP_TIMESTAMP", r);
			return HV_MOVE_SYSCALL;
		}
		img->ts_off = ts + TS_MARGIN_MS - ms;
	}
	r = read_rcv(pk, img, buf, cap);
	if (r == 0)
		r = read_snd(pk, img, buf + img->rcv_len, cap - img->rcv_len);
	if (r == 0)
		r = read_window(pk, img); /* last: a peek may send an acknowledgement */
	if (r == 0) {
		r = hv_repair_queue(fd, TCP_NO_QUEUE); /* with a queue selected a stray send() would vanish in it */
		if (r < 0)
			hv_step(pk, "TCP_NO_QUEUE", r);
	}
	if (r < 0)
		return r == -EMSGSIZE ? HV_MOVE_TOO_MUCH : HV_MOVE_SYSCALL;
	read_options(pk, img);
	return HV_MOVE_OK;
}

enum hv_move_why hv_promote(int fd, struct hv_park *pk, struct hv_tcp_image *img, uint8_t *buf, size_t cap)
{
	bool new_key = !pk->guarded;
	socklen_t l = sizeof(int);
	enum hv_move_why why;
	int r;

	pk->step = NULL;
	pk->err = 0;
	if (!hv_handoff_open()) {
		hv_step(pk, "hv_handoff_init", -ENODEV);
		return __atomic_load_n(&hv_g.eperm, __ATOMIC_RELAXED) ? HV_MOVE_EPERM : HV_MOVE_SYSCALL;
	}
	if (pk->parked)
		return HV_MOVE_STATE;
	if (cap > READ_MAX)
		cap = READ_MAX;
	pk->fd = fd;
	if (pk->tuple.family == 0) {
		pk->domain = hv_sys_getint(fd, SOL_SOCKET, SO_DOMAIN);
		r = names(pk);
		if (r < 0)
			return HV_MOVE_STATE;
	}
	pk->settled = pk->unhashed = pk->clobbered = pk->late_fin = pk->late_rst = pk->had_outq = false;
	pk->rto_min_us = pk->delack_max_us = pk->quickack = -1;
	pk->window_clamp = 0;
	r = hv_guard_add(&pk->tuple);
	if (r < 0) {
		hv_step(pk, "guard key", r);
		HV_MOVED(promote_fails, 1);
		return HV_MOVE_SYSCALL;
	}
	pk->guarded = true;
	pk->reuseaddr = hv_sys_getint(fd, SOL_SOCKET, SO_REUSEADDR);
	pk->keepalive = hv_sys_getint(fd, SOL_SOCKET, SO_KEEPALIVE);
	pk->tfo_connect = hv_sys_getint(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) > 0;
	pk->peek_off = -1;
	hv_sys_getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &pk->peek_off, &l);

	r = hv_drop_attach(fd);
	if (r < 0) {
		hv_step(pk, "drop filter", r);
		why = r == -EPERM ? HV_MOVE_EPERM : HV_MOVE_SYSCALL;
		goto fail;
	}
	pk->frozen_us = hv_now_us();
	if (pk->keepalive > 0) /* the keepalive timer runs in repair mode too, and would reset for want of an answer */
		hv_sys_setint(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	if (pk->peek_off >= 0) /* or our peeks would start there */
		hv_sys_setint(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	r = hv_sys_setint(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (r < 0) {
		hv_step(pk, "TCP_REPAIR", r);
		why = r == -EPERM ? HV_MOVE_EPERM : HV_MOVE_SYSCALL;
	} else {
		why = read_all(pk, img, buf, cap);
	}
	if (why != HV_MOVE_OK) {
		thaw(pk);
		goto fail;
	}
	pk->rcv_nxt = img->rcv_nxt;
	pk->copied_seq = img->rcv_nxt - img->rcv_len;
	pk->write_seq = img->snd_end;
	pk->snd_una = img->snd_una;
	pk->sent_nxt = img->snd_nxt;
	pk->rcv_held = img->rcv_len + (img->rcv_wup + img->rcv_wnd - img->rcv_nxt);
	pk->had_outq = img->snd_len != 0;
	pk->parked = true;
	pk->moves++;
	HV_MOVED(promotes, 1);
	return HV_MOVE_OK;
fail:
	if (new_key && pk->moves == 0) { /* never unhashed: nothing is in flight towards the key */
		hv_guard_remove(&pk->tuple, 0);
		pk->guarded = false;
	}
	HV_MOVED(promote_fails, 1);
	return why;
}

void hv_promote_undo(struct hv_park *pk)
{
	if (!pk->parked)
		return;
	thaw(pk);
	HV_MOVED(promote_fails, 1);
}
