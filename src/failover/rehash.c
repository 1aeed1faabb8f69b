/*
 * rehash.c - disconnect and connect again in repair mode: the only moment at which the tuple belongs to no socket (handoff.md 1.4, C.4).
 *
 * Both guards live here: with sk_lookup the key is in the map since the first promotion; without BPF a second socket takes the tuple over for the moment.
 * That rests on sockets with different bound devices not clashing and on new entries going to the head of their hash chain:
 *
 *	app bound to the device; guard (any device) connects, is in front; app disconnects, is unbound; guard is bound to the device; app connects, is
 *	in front; guard closes, silently as it is in repair mode.
 *
 * Called by handoff.c for one parked socket; the engine serialises.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "base/sys.h"
#include "failover/internal.h"
#include "failover/route.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif
#ifndef TCP_RTO_MIN_US
#define TCP_RTO_MIN_US 45
#endif
#ifndef TCP_DELACK_MAX_US
#define TCP_DELACK_MAX_US 46
#endif
#define SK_FORCE_REUSE 2 /* what SO_REUSEADDR reads in repair mode */
#define MSS_MIN 88u      /* TCP_MIN_MSS */
#define MSS_MAX 32767u   /* MAX_TCP_WINDOW */

int hv_step(struct hv_park *pk, const char *step, long r)
{
	pk->step = step;
	pk->err = (int)-r;
	return (int)r;
}

int hv_repair_queue(int fd, int q) { return hv_sys_setint(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, q); }

int hv_queue_seq(int fd, int q, uint32_t *seq)
{
	socklen_t l = sizeof *seq;
	int r = hv_repair_queue(fd, q);

	return r < 0 ? r : hv_sys_getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq, &l);
}

int hv_queue_seq_set(int fd, int q, uint32_t seq)
{
	int r = hv_repair_queue(fd, q);

	return r < 0 ? r : hv_sys_setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof seq);
}

/* The program may have changed them while parked: what counts is the value just before the disconnect. */
static void options_save(struct hv_park *pk)
{
	int fd = pk->fd, v = -1;
	socklen_t l = sizeof v;

	if (pk->clobbered)
		return;
	pk->clobbered = true;
	v = hv_sys_getint(fd, SOL_SOCKET, SO_REUSEADDR);
	if (v >= 0 && v != SK_FORCE_REUSE)
		pk->reuseaddr = v;
	if (hv_sys_getint(fd, SOL_SOCKET, SO_KEEPALIVE) == 1) {
		pk->keepalive = 1;
		hv_sys_setint(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	}
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &v, &l) == 0 && v >= 0)
		pk->peek_off = v;
	pk->quickack = hv_sys_getint(fd, IPPROTO_TCP, TCP_QUICKACK);
	pk->window_clamp = hv_sys_getint(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP);
	pk->rto_min_us = hv_sys_getint(fd, IPPROTO_TCP, TCP_RTO_MIN_US);
	pk->delack_max_us = hv_sys_getint(fd, IPPROTO_TCP, TCP_DELACK_MAX_US);
}

static void put_back(int fd, int opt, int want)
{
	if (want >= 0 && hv_sys_getint(fd, IPPROTO_TCP, opt) != want)
		hv_sys_setint(fd, IPPROTO_TCP, opt, want);
}

void hv_options_restore(struct hv_park *pk)
{
	if (!pk->clobbered)
		return;
	if (pk->window_clamp > 0)
		put_back(pk->fd, TCP_WINDOW_CLAMP, pk->window_clamp);
	put_back(pk->fd, TCP_QUICKACK, pk->quickack);
	put_back(pk->fd, TCP_RTO_MIN_US, pk->rto_min_us);
	put_back(pk->fd, TCP_DELACK_MAX_US, pk->delack_max_us);
	pk->clobbered = false;
}

static int disconnect(struct hv_park *pk)
{
	struct sockaddr sa = { .sa_family = AF_UNSPEC };
	int r = hv_sys_connect(pk->fd, &sa, sizeof sa);

	if (r < 0)
		return hv_step(pk, "disconnect", r);
	pk->unhashed = true;
	return 0;
}

/* In CLOSE: everything that connect() takes over. */
static int prepare(struct hv_park *pk, uint32_t snd, uint32_t rcv)
{
	union hv_sa sa;
	int r;

	if (!pk->bound) { /* it sticks: a second bind is EINVAL */
		r = hv_sys_bind(pk->fd, &sa, hv_sa_from(&sa, &pk->tuple, pk->domain, true));
		if (r < 0 && r != -EINVAL)
			return hv_step(pk, "bind", r);
		pk->bound = true;
	}
	if (pk->tfo_connect) /* a cached cookie would defer the connect */
		hv_sys_setint(pk->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0);
	/* Else the kernel starts with segments of 524 octets and stays with them. */
	uint32_t mss = pk->mss_clamp < MSS_MIN ? MSS_MIN : pk->mss_clamp > MSS_MAX ? MSS_MAX : pk->mss_clamp;
	r = hv_sys_setint(pk->fd, IPPROTO_TCP, TCP_MAXSEG, (int)mss);
	if (r < 0)
		return hv_step(pk, "TCP_MAXSEG", r);
	r = hv_queue_seq_set(pk->fd, TCP_RECV_QUEUE, rcv);
	if (r < 0)
		return hv_step(pk, "receive sequence", r);
	r = hv_queue_seq_set(pk->fd, TCP_SEND_QUEUE, snd);
	if (r < 0)
		return hv_step(pk, "send sequence", r);
	return 0;
}

static int reconnect(struct hv_park *pk)
{
	union hv_sa sa;
	int r = hv_sys_connect(pk->fd, &sa, hv_sa_from(&sa, &pk->tuple, pk->domain, false));

	if (r < 0)
		return hv_step(pk, "connect", r);
	pk->unhashed_us = hv_now_us();
	pk->unhashed = false;
	return 0;
}

static int bind_if(int fd, int ifindex) { return hv_sys_setint(fd, SOL_SOCKET, SO_BINDTOIFINDEX, ifindex); }

/* The guard socket, connected in front of the app's, which still is hashed. */
static int guard_up(struct hv_park *pk)
{
	struct hv_route rt;
	union hv_sa sa;
	int r, mark = hv_sys_getint(pk->fd, SOL_SOCKET, SO_MARK);

	pk->bound_if = hv_sys_getint(pk->fd, SOL_SOCKET, SO_BINDTOIFINDEX);
	if (pk->bound_if < 0)
		return hv_step(pk, "SO_BINDTOIFINDEX", pk->bound_if);
	pk->guard_if = pk->bound_if;
	if (pk->guard_if == 0) {
		r = hv_route_get(&pk->tuple, mark > 0 ? (uint32_t)mark : 0, 0, &rt);
		if (r < 0)
			return hv_step(pk, "route for the guard", r);
		pk->guard_if = rt.ifindex;
	}
	int g = hv_sys_high(hv_sys_socket(pk->domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
	if (g < 0)
		return hv_step(pk, "guard socket", g);
	if (mark > 0)
		hv_sys_setint(g, SOL_SOCKET, SO_MARK, mark);
	r = hv_drop_attach(g);
	if (r == 0)
		r = hv_sys_setint(g, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (r == 0)
		r = bind_if(pk->fd, pk->guard_if);
	if (r == 0)
		r = hv_sys_bind(g, &sa, hv_sa_from(&sa, &pk->tuple, pk->domain, true));
	if (r == 0)
		r = hv_sys_connect(g, &sa, hv_sa_from(&sa, &pk->tuple, pk->domain, false));
	if (r < 0) {
		bind_if(pk->fd, pk->bound_if);
		hv_sys_close(g);
		return hv_step(pk, "guard connect", r);
	}
	pk->guard_sock = g + 1;
	return 0;
}

static int rehash_under_socket(struct hv_park *pk, uint32_t snd, uint32_t rcv)
{
	int r = pk->guard_sock == 0 ? guard_up(pk) : 0;

	if (r < 0)
		return r;
	r = disconnect(pk);
	if (r == 0)
		r = hv_step(pk, "unbind the device", bind_if(pk->fd, 0));
	if (r == 0)
		r = prepare(pk, snd, rcv);
	if (r == 0)
		r = hv_step(pk, "bind the guard", bind_if(pk->guard_sock - 1, pk->guard_if));
	if (r == 0)
		r = reconnect(pk);
	if (r < 0)
		return r; /* the guard stays until a retry succeeds */
	hv_sys_close(pk->guard_sock - 1);
	pk->guard_sock = 0;
	if (pk->bound_if != 0)
		bind_if(pk->fd, pk->bound_if);
	return 0;
}

/*
 * Pacing and probe timers go on sending the parked socket's queue. If the socket came back with less marked as sent than has left, an acknowledgement of
 * the rest would be one of "data never sent", dropped for ever. With the send queue selected nothing more leaves, and the counter is final.
 */
static int sent_save(struct hv_park *pk)
{
	int unsent = 0, r = hv_repair_queue(pk->fd, TCP_SEND_QUEUE);

	if (r == 0)
		r = hv_sys_ioctl(pk->fd, SIOCOUTQNSD, &unsent);
	if (r < 0)
		return hv_step(pk, "read snd_nxt", r);
	uint32_t nxt = pk->write_seq - (uint32_t)unsent;
	if (hv_seq_lt(pk->sent_nxt, nxt))
		pk->sent_nxt = nxt;
	return 0;
}

int hv_rehash(struct hv_park *pk, uint32_t snd, uint32_t rcv)
{
	int r;

	options_save(pk);
	if (pk->had_outq && !pk->unhashed) {
		r = sent_save(pk);
		if (r < 0) {
			hv_repair_queue(pk->fd, TCP_NO_QUEUE);
			return r;
		}
	}
	if (hv_g.kind == HV_GUARD_SOCKET) {
		r = rehash_under_socket(pk, snd, rcv);
	} else {
		r = disconnect(pk);
		if (r == 0)
			r = prepare(pk, snd, rcv);
		if (r == 0)
			r = reconnect(pk);
	}
	hv_repair_queue(pk->fd, TCP_NO_QUEUE);
	if (r < 0)
		return r;
	pk->rcv_nxt = pk->copied_seq = rcv;
	pk->write_seq = pk->snd_una = snd;
	pk->had_outq = false;
	return 0;
}
