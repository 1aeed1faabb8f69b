/*
 * demote.c - while parked, and from us back to the kernel (handoff.md 1.3, 1.4): late check, settle, demote.
 *
 * Until the connect of a demotion every failure leaves the socket parked, or unhashed behind its guard; the caller goes on with its own stack and
 * tries again. From the moment the filter is off the kernel owns the connection and nothing may fail any more.
 *
 * Called by the engine for one socket, serialised; no globals but hv_g.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define ESTABLISHED 1
#define CLOSED 7
#define SINK_LEN (256u << 10)
#define SINK_IOV 64u
#define PIECE 65536u
#define TCPOPT_MSS 2
#define TCPOPT_WINDOW 3
#define TCPOPT_SACK_PERM 4
#define TCPOPT_TIMESTAMP 8
#define F_FIN 1u
#define F_RST 4u
#define F_ACK 16u

/* What the kernel accepted: its rcv_nxt without a FIN, and how the state changed. Leaves the receive queue selected. */
static int late_state(struct hv_park *pk, uint32_t *end)
{
	struct tcp_info ti;
	socklen_t l = sizeof ti;
	int r;

	memset(&ti, 0, sizeof ti);
	r = hv_queue_seq(pk->fd, TCP_RECV_QUEUE, end);
	if (r < 0)
		return hv_step(pk, "late check", r);
	r = hv_sys_getsockopt(pk->fd, IPPROTO_TCP, TCP_INFO, &ti, &l);
	if (r < 0)
		return hv_step(pk, "late check", r);
	if (ti.tcpi_state == CLOSED) {
		if (!pk->late_rst) {
			/* A timer of the parked socket may have given up, too: that says nothing about our connection. */
			int e = hv_sys_getint(pk->fd, SOL_SOCKET, SO_ERROR);
			pk->late_rst = e == ECONNRESET || e == EPIPE || e == ECONNREFUSED;
		}
	} else if (ti.tcpi_state != ESTABLISHED) {
		pk->late_fin = true;
		pk->fin_seq = --*end;
	}
	return ti.tcpi_state;
}

/* len octets of the receive queue that begin skip octets behind its front. */
static ssize_t peek_at(struct hv_park *pk, uint32_t skip, uint8_t *buf, size_t len)
{
	static uint8_t *sink; /* garbage, shared by everybody */
	struct iovec iov[SINK_IOV + 1];
	struct msghdr m = { .msg_iov = iov };
	uint32_t left = skip;

	if (skip != 0 && __atomic_load_n(&sink, __ATOMIC_ACQUIRE) == NULL) {
		long a = HV_SYS(SYS_mmap, NULL, SINK_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint8_t *none = NULL;
		if (a < 0 && a > -4096)
			return a;
		if (!__atomic_compare_exchange_n(&sink, &none, (uint8_t *)a, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			HV_SYS(SYS_munmap, a, SINK_LEN, 0, 0, 0, 0);
	}
	while (left != 0) {
		if (m.msg_iovlen == SINK_IOV)
			return -EMSGSIZE;
		uint32_t n = left < SINK_LEN ? left : SINK_LEN;
		iov[m.msg_iovlen++] = (struct iovec){ sink, n };
		left -= n;
	}
	iov[m.msg_iovlen++] = (struct iovec){ buf, len };
	ssize_t n = hv_sys_recvmsg(pk->fd, &m, MSG_PEEK | MSG_DONTWAIT);
	return n < 0 ? n : n - (ssize_t)skip;
}

ssize_t hv_late_check(struct hv_park *pk, uint8_t *buf, size_t cap, bool *fin_or_rst)
{
	uint32_t end = 0;
	ssize_t n = 0;

	*fin_or_rst = pk->late_fin || pk->late_rst;
	if (!pk->parked || pk->unhashed)
		return 0;
	int state = late_state(pk, &end);
	if (state < 0)
		return state;
	*fin_or_rst = state != ESTABLISHED;
	if (hv_seq_lt(pk->rcv_nxt, end)) {
		uint32_t want = end - pk->rcv_nxt;
		n = peek_at(pk, pk->rcv_nxt - pk->copied_seq, buf, want < cap ? want : cap);
		if (n > 0) {
			pk->rcv_nxt += (uint32_t)n;
			HV_MOVED(late_accepts, 1);
			HV_MOVED(late_octets, n);
		} else {
			n = hv_step(pk, "late octets", n < 0 ? n : -ENODATA);
		}
	}
	hv_repair_queue(pk->fd, TCP_NO_QUEUE);
	return n;
}

int hv_settle(struct hv_park *pk, uint32_t snd_una, uint32_t rcv_nxt)
{
	uint32_t end = 0;

	if (!pk->parked)
		return -EINVAL;
	if (pk->settled)
		return 0;
	if (!pk->unhashed) {
		int state = late_state(pk, &end);
		hv_repair_queue(pk->fd, TCP_NO_QUEUE);
		if (state < 0)
			return state;
		if (state != ESTABLISHED)
			return -ENOTCONN; /* late FIN or RST: demote */
		if (hv_seq_lt(pk->rcv_nxt, end))
			return -EAGAIN; /* late octets: hv_late_check() first */
	}
	if (pk->had_outq || pk->unhashed) { /* else the kernel goes on retransmitting its copy for minutes */
		int r = hv_rehash(pk, snd_una, rcv_nxt);
		if (r < 0)
			return r;
		hv_options_restore(pk);
		HV_MOVED(purges, 1);
	}
	if (hv_seq_lt(snd_una, pk->sent_nxt))
		return 1; /* an acknowledgement of what the kernel itself has sent may still come */
	pk->settled = true;
	HV_MOVED(settles, 1);
	return 0;
}

/* No softirq can still be in the old path: settled, or a grace period has passed. */
static bool quiet(const struct hv_park *pk)
{
	return pk->settled || __atomic_load_n(&hv_g.barrier_us, __ATOMIC_ACQUIRE) > pk->frozen_us || hv_now_us() - pk->frozen_us >= HV_SETTLE_US;
}

/* Room for what must be put in, and for the window that was promised to the peer. Sizes are doubled by the kernel, half of it is overhead. */
static int buffers(struct hv_park *pk, uint64_t rcv, uint64_t wnd, uint64_t snd)
{
	int fd = pk->fd, lock = -1;
	int rb = hv_sys_getint(fd, SOL_SOCKET, SO_RCVBUF), sb = hv_sys_getint(fd, SOL_SOCKET, SO_SNDBUF);

	if (rcv > 1u << 29 || snd > 1u << 29)
		return -EMSGSIZE;
	/* What the kernel had promised itself it can hold; beyond that it would grow by itself to the sysctl, so never further for a window's sake (a bigger
	 * buffer makes for a bigger window, which would ask for a bigger buffer the next time). */
	if (rcv + wnd <= pk->rcv_held)
		rcv = 0;
	else if (rcv + wnd <= hv_g.rmem_max / 2)
		rcv += wnd;
	else if (rcv < hv_g.rmem_max / 2)
		rcv = hv_g.rmem_max / 2;
	bool grow_r = rb >= 0 && (uint64_t)rb < 2 * rcv, grow_s = sb >= 0 && (uint64_t)sb < snd + snd / 2 + 65536;
	if (!grow_r && !grow_s)
		return 0;
	lock = hv_sys_getint(fd, SOL_SOCKET, SO_BUF_LOCK);
	int r = 0;
	if (grow_r)
		r = hv_sys_setint(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)rcv);
	if (grow_s && r == 0)
		r = hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUFFORCE, (int)((snd + snd / 2 + 65536) / 2 + 1));
	if (lock >= 0) /* forcing switches autotuning off */
		hv_sys_setint(fd, SOL_SOCKET, SO_BUF_LOCK, lock);
	return r;
}

static int options_set(struct hv_park *pk, const struct hv_tcp_image *img, uint32_t ts)
{
	struct tcp_repair_opt o[4];
	uint32_t n = 0;
	int r;

	if (pk->tcp_opts & HV_TCPO_SACK)
		o[n++] = (struct tcp_repair_opt){ TCPOPT_SACK_PERM, 0 };
	if (pk->tcp_opts & HV_TCPO_WS)
		o[n++] = (struct tcp_repair_opt){ TCPOPT_WINDOW, (uint32_t)pk->snd_wscale | (uint32_t)pk->rcv_wscale << 16 };
	if (pk->tcp_opts & HV_TCPO_TS)
		o[n++] = (struct tcp_repair_opt){ TCPOPT_TIMESTAMP, 0 };
	o[n++] = (struct tcp_repair_opt){ TCPOPT_MSS, img->mss_clamp != 0 ? img->mss_clamp : pk->mss_clamp };
	r = hv_sys_setsockopt(pk->fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, (socklen_t)(n * sizeof o[0]));
	if (r < 0)
		return hv_step(pk, "TCP_REPAIR_OPTIONS", r);
	if (pk->tcp_opts & HV_TCPO_TS) {
		r = hv_sys_setsockopt(pk->fd, IPPROTO_TCP, TCP_TIMESTAMP, &ts, sizeof ts);
		if (r < 0)
			return hv_step(pk, "TCP_TIMESTAMP", r);
	}
	return 0;
}

/* Into the queue that is selected; what goes into the send queue counts as sent. */
static int fill(struct hv_park *pk, int queue, const uint8_t *p, uint32_t len)
{
	int r = hv_repair_queue(pk->fd, queue), grown = 0;
	int force = queue == TCP_RECV_QUEUE ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, get = queue == TCP_RECV_QUEUE ? SO_RCVBUF : SO_SNDBUF;
	uint32_t piece = PIECE;

	if (r < 0)
		return hv_step(pk, "select queue", r);
	while (len != 0) {
		ssize_t n = hv_sys_send(pk->fd, p, len < piece ? len : piece, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			p += n;
			len -= (uint32_t)n;
			continue;
		}
		if (piece > 4096) { /* smaller ones fit in, or need no contiguous memory */
			piece /= 2;
			continue;
		}
		int v = hv_sys_getint(pk->fd, SOL_SOCKET, get), lock = hv_sys_getint(pk->fd, SOL_SOCKET, SO_BUF_LOCK);
		if ((n != -EAGAIN && n != -ENOMEM && n != -ENOBUFS) || ++grown > 8 || v < 0 || v > 1 << 29)
			return hv_step(pk, queue == TCP_RECV_QUEUE ? "fill the receive queue" : "fill the send queue", n < 0 ? n : -EIO);
		r = hv_sys_setint(pk->fd, SOL_SOCKET, force, v); /* doubled by the kernel */
		if (lock >= 0)
			hv_sys_setint(pk->fd, SOL_SOCKET, SO_BUF_LOCK, lock);
		if (r < 0)
			return hv_step(pk, "grow a buffer", r);
	}
	return 0;
}

static int window_set(struct hv_park *pk, const struct hv_tcp_image *img)
{
	uint32_t edge = img->rcv_wup + img->rcv_wnd;
	struct tcp_repair_window w = { .snd_wl1 = img->snd_wl1, .snd_wnd = img->snd_wnd, .max_window = img->max_window, .rcv_wup = img->rcv_nxt };

	w.rcv_wnd = hv_seq_lt(img->rcv_nxt, edge) ? edge - img->rcv_nxt : 0;
	if (hv_seq_lt(img->rcv_nxt, w.snd_wl1))
		w.snd_wl1 = img->rcv_nxt;
	if (w.max_window < w.snd_wnd)
		w.max_window = w.snd_wnd;
	return hv_step(pk, "TCP_REPAIR_WINDOW", hv_sys_setsockopt(pk->fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof w));
}

/* The unsent tail. The kernel owns the connection already; nothing may get lost. */
static void send_tail(struct hv_park *pk, const uint8_t *p, uint32_t len)
{
	int fd = pk->fd, lowat = -1, tries = 0;

	while (len != 0) {
		ssize_t n = hv_sys_send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			p += n;
			len -= (uint32_t)n;
			continue;
		}
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN && n != -ENOMEM && n != -ENOBUFS)
			break; /* reset by the peer in this moment: nobody waits for these octets */
		if (++tries > 200) {
			/* Out of memory for 200 ms. A stream with a hole is not an option: abort it, in the open. */
			struct sockaddr sa = { .sa_family = AF_UNSPEC };
			hv_log(HV_LOG_ERROR, "hand-off: no memory for %u unsent octets, connection aborted", len);
			hv_sys_connect(fd, &sa, sizeof sa);
			break;
		}
		if (lowat < 0) { /* TCP_NOTSENT_LOWAT closes the buffer early */
			lowat = hv_sys_getint(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT);
			if (lowat < 0)
				lowat = 0;
			hv_sys_setint(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, -1);
		}
		if (tries <= 8) {
			int v = hv_sys_getint(fd, SOL_SOCKET, SO_SNDBUF), lock = hv_sys_getint(fd, SOL_SOCKET, SO_BUF_LOCK);
			if (v > 0 && v < 1 << 29)
				hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUFFORCE, v);
			if (lock >= 0)
				hv_sys_setint(fd, SOL_SOCKET, SO_BUF_LOCK, lock);
		} else {
			struct timespec ts = { 0, 1000000 };
			HV_SYS(SYS_nanosleep, &ts, NULL, 0, 0, 0, 0);
		}
	}
	if (lowat >= 0)
		hv_sys_setint(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, lowat);
}

/* The buffer as the program sized it; what is queued beyond it stays. */
static void sndbuf_back(int fd, int was)
{
	int lock;

	if (was <= 0 || hv_sys_getint(fd, SOL_SOCKET, SO_SNDBUF) == was)
		return;
	lock = hv_sys_getint(fd, SOL_SOCKET, SO_BUF_LOCK);
	if (lock < 0 || (lock & 1) == 0)
		return; /* autotuned: it would only have to grow again */
	hv_sys_setint(fd, SOL_SOCKET, SO_SNDBUFFORCE, was / 2);
	hv_sys_setint(fd, SOL_SOCKET, SO_BUF_LOCK, lock);
}

/* How much of the send queue has left, whoever sent it. Settled: all that the kernel sent is acknowledged, and sent_nxt may be gigabytes old by now. */
static uint32_t sent_len(const struct hv_park *pk, const struct hv_tcp_image *img)
{
	uint32_t sent = img->snd_nxt - img->snd_una, kernel = pk->sent_nxt - img->snd_una;

	return !pk->settled && hv_seq_lt(img->snd_nxt, pk->sent_nxt) && kernel <= img->snd_len ? kernel : sent;
}

/*
 * The kernel forgets the round-trip time at the disconnect and nothing sets it: its first timeout would be 1 s and its first tail probe as late, just when
 * a path has changed. It takes a sample like any other: one octet before SND.UNA counts as sent, and an ACK for it echoes a timestamp of that age. Only
 * ours may acknowledge it, so it goes through the drop filter: what the peer echoes when nothing has left for a while may be minutes old.
 */
#define RTT_TRIES 8u /* the rules of this machine don't let it through */
static bool carries_rtt(const struct hv_tcp_image *img)
{
	return (img->opts & HV_TCPO_TS) != 0 && img->ts_recent_valid && img->srtt_us != 0 && hv_g.drop_fd >= 0 && hv_g.raw_fd[img->tuple.family == 6] >= 0 &&
	       atomic_load_explicit(&hv_g.rtt_misses, memory_order_relaxed) < RTT_TRIES;
}

static int restore(struct hv_park *pk, const struct hv_tcp_image *img, uint32_t ts, uint32_t before)
{
	static const uint8_t acked_octet[1];
	uint32_t sent, edge = img->rcv_wup + img->rcv_wnd;
	uint64_t wnd = hv_seq_lt(img->rcv_nxt, edge) ? edge - img->rcv_nxt : 0;
	int r = hv_rehash(pk, img->snd_una - before, img->rcv_nxt - img->rcv_len);

	if (r < 0)
		return r;
	sent = sent_len(pk, img); /* known only now */
	r = options_set(pk, img, ts);
	if (r == 0)
		r = hv_step(pk, "buffers", buffers(pk, img->rcv_len, wnd, img->snd_len));
	if (r == 0 && img->rcv_len != 0)
		r = fill(pk, TCP_RECV_QUEUE, img->rcv, img->rcv_len);
	if (r == 0 && before != 0)
		r = fill(pk, TCP_SEND_QUEUE, acked_octet, before);
	if (r == 0 && sent != 0)
		r = fill(pk, TCP_SEND_QUEUE, img->snd, sent);
	if (r == 0)
		r = window_set(pk, img);
	if (r == 0)
		r = hv_step(pk, "TCP_MAXSEG", hv_sys_setint(pk->fd, IPPROTO_TCP, TCP_MAXSEG, pk->user_mss));
	if (r == 0)
		r = hv_step(pk, "TCP_NO_QUEUE", hv_repair_queue(pk->fd, TCP_NO_QUEUE));
	if (r < 0) {
		/* Parked again, with empty queues: a half filled send queue would be retransmitted. */
		const char *step = pk->step;
		hv_rehash(pk, img->snd_una, img->rcv_nxt);
		hv_step(pk, step, r);
	}
	return r;
}

int hv_demote(struct hv_park *pk, const struct hv_tcp_image *img, bool lost)
{
	uint32_t sent, end = 0, ts;
	int fd = pk->fd, r;

	if (!pk->parked || img->snd_nxt - img->snd_una > img->snd_len || img->snd_end - img->snd_una != img->snd_len)
		return -EINVAL;
	if (!quiet(pk))
		hv_barrier();
	if (!pk->unhashed) {
		r = late_state(pk, &end);
		hv_repair_queue(fd, TCP_NO_QUEUE);
		if (r < 0)
			goto fail;
		/* Not img->rcv_nxt: the frozen socket's number stands still, and 2^31 octets later the stack's would seem to be the older one. */
		if (hv_seq_lt(pk->rcv_nxt, end)) {
			r = -EAGAIN;
			goto fail;
		}
	}
	int sndbuf = hv_sys_getint(fd, SOL_SOCKET, SO_SNDBUF);
	/* Forward, and even: an odd one would switch the socket to microseconds. */
	ts = ((uint32_t)(hv_now_us() / 1000) + img->ts_off + 3) & ~1u;
	pk->rtt_octet = carries_rtt(img);
	r = restore(pk, img, ts, pk->rtt_octet);
	if (r == 0 && pk->rtt_octet) {
		pk->rtt_octet = hv_inject_rtt(pk, img);
		if (pk->rtt_octet) {
			atomic_store_explicit(&hv_g.rtt_misses, 0, memory_order_relaxed);
		} else {
			if (atomic_fetch_add_explicit(&hv_g.rtt_misses, 1, memory_order_relaxed) + 1 == RTT_TRIES)
				hv_log(HV_LOG_DEBUG, "hand-off: round-trip times aren't carried into the kernel: does a rule drop what comes in on lo from other hosts' addresses?");
			r = restore(pk, img, ts, 0);
		}
	}
	if (r < 0)
		goto fail;

	sent = sent_len(pk, img);
	hv_drop_detach(fd);
	hv_sys_setint(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF); /* with a window probe: its answer tells which ACKs we missed */
	pk->parked = pk->settled = false;
	pk->ooo_base = 0;
	if (pk->reuseaddr > 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_REUSEADDR, pk->reuseaddr);
	if (pk->keepalive > 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (pk->peek_off >= 0)
		hv_sys_setint(fd, SOL_SOCKET, SO_PEEK_OFF, pk->peek_off);
	hv_options_restore(pk);
	if (img->snd_len != sent)
		send_tail(pk, img->snd + sent, img->snd_len - sent);
	sndbuf_back(fd, sndbuf);
	if (lost && img->snd_nxt != img->snd_una)
		hv_resend(pk, img, ts);
	/* The peer will not repeat what the kernel took from it while we held the connection. */
	if (pk->late_fin && pk->fin_seq == img->rcv_nxt)
		hv_inject_tcp(img, img->rcv_nxt, img->snd_una, F_FIN | F_ACK, NULL, 0);
	if (pk->late_rst)
		hv_inject_tcp(img, img->rcv_nxt, img->snd_una, F_RST | F_ACK, NULL, 0);
	HV_MOVED(demotes, 1);
	hv_guard_tick(hv_now_us(), false);
	return 0;
fail:
	HV_MOVED(demote_fails, 1);
	return r;
}
