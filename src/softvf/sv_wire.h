/*
 * sv_wire.h - the wire side of softvf: one Linux netdev as a port on which frames are sent and received.
 *
 * Knows nothing of verbs; a face (sv_verbs_*.c) sits on it. A wire exists once per (netns, ifindex) and process and is shared by
 * every context that the face opens on it.
 *
 *   sv_wire_xsk.c    AF_XDP socket, UMEM, rings, kick
 *   sv_wire_steer.c  XDP program, rules
 *   sv_wire_tso.c    AF_PACKET socket with PACKET_VNET_HDR for segmentation bursts
 *   sv_wire_link.c   netdev list and state over rtnetlink, the monitor thread
 *
 * Locks: rx_lock protects the RX and fill rings, tx_lock the TX and completion rings and everything named tx_*, ctl the slow
 * things (start, rules, reference counts). Order: ctl, rx_lock, tx_lock; the data path never holds two. Hot functions are inline
 * here because a call and a spill per frame is measurable against a wire whose round trip is 3.6 us.
 *
 * Limits, all of them the kernel's: copy mode only (veth has no zero copy); one RX queue per process, chosen by SOFTVF_QUEUE;
 * frames that arrive on another queue of the netdev go to the kernel; a VLAN tag that the sending kernel keeps outside of the
 * frame (vlan devices on veth) isn't seen by rules; a veth whose other end has more TX queues than it has RX queues refuses the
 * XDP program (ENOSPC); the sender must not leave checksums to "hardware" (ethtool -K <host end> tx off) or received frames have
 * wrong ones; needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF. A frame counts as sent when the kernel has taken it: what a lost
 * carrier or a full receiver swallows after that is the network's loss, as on hardware.
 */
#ifndef SV_WIRE_H
#define SV_WIRE_H

#include <linux/if_xdp.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include "base/sys.h"
#include "softvf/sv_steer.h"

#define SV_RX_FRAMES 2048u
#define SV_RX_FEW 512u /* enough for a line-rate burst of 60 us at 100 Gbit/s, small enough for the second-level cache */
#define SV_RX_OWED 32u /* frames that may wait for being given back: a small part of SV_RX_FEW */
#define SV_TX_FRAMES 2048u
#define SV_XDP_HEADROOM 256u /* the kernel leaves it in front of a received frame; metadata ends there */
#define SV_FRAME_MAX 9728u   /* longest frame, headers included */
#define SV_FRAGS_MAX 8u      /* chunks of the longest frame */
#define SV_WIRE_QPS 256u     /* owners that rules can name, 0 isn't used */
#define SV_TSO_MAX 65000u    /* headers and payload of one burst: the IP length field ends at 65535 */
#define SV_TSO_IOV 40u

#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0)
#endif
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif

#define sv_unlikely(x) __builtin_expect(!!(x), 0)
#define sv_likely(x) __builtin_expect(!!(x), 1)
#define SV_CACHELINE __attribute__((aligned(64)))

/* A spinlock: holders do a bounded amount of work, and the usual program has one thread per ring. */
struct sv_lock {
	uint32_t v;
};
void sv_lock_slow(struct sv_lock *l);
static inline bool sv_trylock(struct sv_lock *l) { return __atomic_exchange_n(&l->v, 1, __ATOMIC_ACQUIRE) == 0; }
static inline void sv_unlock(struct sv_lock *l) { __atomic_store_n(&l->v, 0, __ATOMIC_RELEASE); }
static inline void sv_lock(struct sv_lock *l)
{
	if (sv_unlikely(!sv_trylock(l)))
		sv_lock_slow(l);
}

/* One of the four rings that are shared with the kernel. p and c are our free-running copies of both indices. */
struct sv_ring {
	uint32_t *prod, *cons;
	void *desc;
	uint32_t mask, p, c;
	void *map;
	size_t maplen;
};

/* Who a descriptor in the TX ring belongs to; owner NULL: nobody (not the last piece of a frame, or its QP is gone). */
struct sv_tag {
	void *owner;
	uint32_t cookie;
};

enum sv_event { SV_EV_FATAL, SV_EV_DOWN, SV_EV_UP };

struct sv_link {
	int ifindex;
	unsigned flags;
	uint32_t mtu;
	uint8_t mac[6];
	char name[IF_NAMESIZE];
	char kind[16];
};

struct sv_steer;
struct sv_wire_rule;

struct sv_wire {
	/* read by every poll */
	uint32_t *rx_prod; /* == rx.prod once started, before that &zero */
	uint32_t rx_seen;  /* == rx.c, written under rx_lock, peeked at without */
	uint32_t zero;
	uint32_t tx_stalled; /* descriptors or WQEs wait for room; somebody must call the face's progress */
	uint32_t fatal;      /* netdev is gone, never cleared */
	uint32_t up;         /* last known IFF_UP && IFF_RUNNING */
	uint32_t chunk, chunk_shift;
	uint8_t *umem;
	const uint8_t *rx_next; /* where the next frame will most likely be, and how long the last one was */
	uint32_t rx_last_len;

	SV_CACHELINE struct sv_lock rx_lock;
	struct sv_ring rx, fill;
	/* Few frames circulate while traffic is light, so that they stay in the cache; a burst brings the others in. */
	uint32_t rx_out, rx_want, rx_quiet; /* frames that the kernel has or will be read next; how many it should have; small batches in a row */
	uint32_t rx_solo;     /* frames without a QP number in front are this one's; 0: there are none (any more) */
	uint32_t rx_solo_end; /* the first frame that is sure to have one, if rx_solo_ends */
	bool rx_solo_ends;
	uint32_t rx_skew;     /* from a frame's number to the number of the chunk that it is in */
	uint32_t rx_rest;     /* empty polls until the face prepares for the next frame; 0: it has */
	uint32_t rx_last_qp;
	const uint8_t *rx_last; /* the last frame */
	uint32_t rx_owed;     /* chunks and descriptors that the kernel hasn't been given back yet */
	uint32_t rx_nfree;
	uint32_t rx_free[SV_RX_FRAMES];
	void *owner[SV_WIRE_QPS]; /* by QP number */
	uint64_t rx_no_owner, rx_no_buf;

	SV_CACHELINE struct sv_lock tx_lock;
	struct sv_ring tx, comp;
	uint32_t tx_done; /* retired up to here */
	uint32_t tx_hold; /* the link is down or gone: nothing may be retired */
	uint32_t tx_nfree;
	uint32_t tx_free[SV_TX_FRAMES];
	struct sv_tag tags[SV_TX_FRAMES];

	SV_CACHELINE pthread_mutex_t ctl;
	struct sv_wire *next;
	unsigned refs;
	int pid; /* the process that made it: a forked child makes its own */
	uint64_t netns;
	struct sv_link link; /* as of opening */
	uint32_t queue;
	bool started;
	int xsk_fd, pkt_fd, pkt_slow_fd, link_fd;
	uint32_t tso_slow; /* bursts that still go through pkt_slow_fd (tx_lock) */
	size_t umem_len;
	struct sv_steer *steer;
	struct sv_wire_rule *rules;
	/* monitor */
	pthread_t thread;
	int nl_fd, ctl_nl_fd, wake_fd;
	uint32_t stop, check;
	void (*notify)(struct sv_wire *w, enum sv_event ev); /* from the monitor thread */
	void (*progress)(struct sv_wire *w);                 /* resume stalled sends */
};

static inline bool sv_dead(const struct sv_wire *w) { return __atomic_load_n(&w->fatal, __ATOMIC_RELAXED) != 0; }
static inline bool sv_stalled(const struct sv_wire *w) { return __atomic_load_n(&w->tx_stalled, __ATOMIC_RELAXED) != 0; }
static inline void sv_stall(struct sv_wire *w, uint32_t v) { __atomic_store_n(&w->tx_stalled, v, __ATOMIC_RELAXED); }

/* ---- link ---- */
/* Calls fn for each netdev of the calling thread's netns. */
int sv_link_list(int (*fn)(const struct sv_link *l, void *arg), void *arg);
int sv_wire_query(struct sv_wire *w, struct sv_link *out); /* fresh state; -ENODEV when gone */
/* The wire for a netdev of the calling thread's netns; the hooks are set by the first opener. */
int sv_wire_open(struct sv_wire **out, int ifindex, const char *name, void (*notify)(struct sv_wire *, enum sv_event),
		 void (*progress)(struct sv_wire *));
void sv_wire_close(struct sv_wire *w);
void sv_wire_wake(struct sv_wire *w, bool check); /* let the monitor run the face's progress, or look whether the netdev is there */

/* ---- XSK ---- */
int sv_wire_start(struct sv_wire *w); /* idempotent; -EBUSY: the queue belongs to another process */
void sv_wire_stop(struct sv_wire *w);
void sv_tx_kick(struct sv_wire *w); /* tx_lock held */

/* ---- steering: ctl is taken inside ---- */
struct sv_match {
	union sv_key6 val, mask; /* IPv4 addresses in the first four octets of sip and dip */
	int l3;                  /* 0, 4, 6 */
};
int sv_steer_attach(struct sv_wire *w);
void sv_steer_detach(struct sv_wire *w);
int sv_rule_add(struct sv_wire *w, const struct sv_match *m, uint32_t prio, uint32_t qp, struct sv_wire_rule **out);
void sv_rule_del(struct sv_wire *w, struct sv_wire_rule *r);

/* ---- TSO: tx_lock held, TX ring empty ---- */
/* iov[0] is left free for the virtio header; hdr (in iov[1]) is patched. 0, -EAGAIN, -ENETDOWN, -ENXIO or another error. */
int sv_tso_open(struct sv_wire *w);
void sv_tso_close(struct sv_wire *w);
int sv_tso_send(struct sv_wire *w, struct iovec *iov, unsigned n, uint32_t hdr_len, uint32_t total, uint16_t mss);

/* ---- RX: rx_lock held ---- */
static inline bool sv_rx_ready(const struct sv_wire *w)
{
	return __atomic_load_n(w->rx_prod, __ATOMIC_ACQUIRE) != __atomic_load_n(&w->rx_seen, __ATOMIC_RELAXED);
}

struct sv_frame {
	uint32_t len, qp;
	unsigned n;
	struct {
		const uint8_t *p;
		uint32_t len;
	} frag[SV_FRAGS_MAX];
};

static inline const struct xdp_desc *sv_rx_desc(const struct sv_wire *w, uint32_t i)
{
	return (const struct xdp_desc *)w->rx.desc + (i & w->rx.mask);
}

/* Whose frame it is; the number in front may be an old one as long as rx_solo says who it is. */
static inline uint32_t sv_rx_qp(struct sv_wire *w, const uint8_t *p)
{
	const struct sv_meta *m = (const struct sv_meta *)(const void *)(p - sizeof *m);

	if (w->rx_solo != 0) {
		if (sv_likely(!w->rx_solo_ends || (int32_t)(w->rx.c - w->rx_solo_end) < 0))
			return w->rx_solo;
		w->rx_solo = 0;
	}
	return m->magic == SV_META_MAGIC && m->qp < SV_WIRE_QPS ? m->qp : 0;
}

/* The next frame, or false. Its chunks go back to the kernel with sv_rx_put(). */
static inline bool sv_rx_get(struct sv_wire *w, struct sv_frame *f)
{
	const struct xdp_desc *d;
	unsigned n = 0;

	if (w->rx.c == w->rx.p) {
		w->rx.p = __atomic_load_n(w->rx_prod, __ATOMIC_ACQUIRE);
		if (w->rx.c == w->rx.p)
			return false;
	}
	f->len = 0;
	do { /* the kernel publishes the pieces of a frame together */
		d = sv_rx_desc(w, w->rx.c + n);
		if (sv_likely(n < SV_FRAGS_MAX)) {
			f->frag[n].p = w->umem + d->addr;
			f->frag[n].len = d->len;
		}
		f->len += d->len;
		n++;
	} while ((d->options & XDP_PKT_CONTD) && w->rx.c + n != w->rx.p);
	f->n = n;
	f->qp = sv_likely(n <= SV_FRAGS_MAX) ? sv_rx_qp(w, f->frag[0].p) : 0;
	return true;
}

static inline void sv_rx_put(struct sv_wire *w, const struct sv_frame *f)
{
	unsigned i;

	for (i = 0; i < f->n; i++)
		w->rx_free[w->rx_nfree++] = (uint32_t)(sv_rx_desc(w, w->rx.c + i)->addr >> w->chunk_shift);
	w->rx.c += f->n;
	w->rx_out -= f->n;
}

/* A frame of one piece. */
static inline void sv_rx_put1(struct sv_wire *w, const struct xdp_desc *d)
{
	w->rx_free[w->rx_nfree++] = (uint32_t)(d->addr >> w->chunk_shift);
	w->rx.c++;
	w->rx_out--;
}

static inline void sv_rx_fill(struct sv_wire *w)
{
	uint64_t *fill = w->fill.desc;

	while (w->rx_out < w->rx_want && w->rx_nfree > 0) {
		fill[w->fill.p++ & w->fill.mask] = (uint64_t)w->rx_free[--w->rx_nfree] << w->chunk_shift;
		w->rx_out++;
	}
}

/*
 * The kernel takes chunks in the order in which they were given, so the place of the next frame is known before its descriptor is: both
 * are on their way from the sender's cache at the same time. Chunks of frames that were dropped or of several pieces shift the order.
 */
void sv_rx_look(struct sv_wire *w, uint64_t chunk);
static inline uint64_t sv_rx_chunk(const struct sv_wire *w, uint32_t frame)
{
	return ((const uint64_t *)w->fill.desc)[(frame + w->rx_skew) & w->fill.mask];
}
/* The frame at p, the last one that was put, had len octets. */
static inline void sv_rx_predict(struct sv_wire *w, const uint8_t *p, uint32_t len)
{
	uint64_t chunk = (uint64_t)(p - w->umem) >> w->chunk_shift << w->chunk_shift;

	if (sv_unlikely(sv_rx_chunk(w, w->rx.c - 1) != chunk))
		sv_rx_look(w, chunk);
	w->rx_next = w->umem + sv_rx_chunk(w, w->rx.c) + SV_XDP_HEADROOM;
	w->rx_last_len = len;
}
static inline void sv_rx_expect(const struct sv_wire *w)
{
	const uint8_t *p = w->rx_next;

	__builtin_prefetch(p);
	if (w->rx_last_len > 64)
		__builtin_prefetch(p + 64);
	if (w->rx_last_len > 128)
		__builtin_prefetch(p + 128);
}

/*
 * Give chunks and descriptors back to the kernel. The lines written here are in the cache of the CPU that the sender runs on, and every
 * locked instruction behind the stores waits for them: 0.1 to 0.35 us, so it is done when there's nothing else to do.
 */
static inline void sv_rx_publish(struct sv_wire *w)
{
	if (w->rx_owed == 0)
		return;
	__atomic_store_n(&w->rx_owed, 0, __ATOMIC_RELAXED);
	sv_rx_fill(w);
	__atomic_store_n(w->fill.prod, w->fill.p, __ATOMIC_RELEASE);
	__atomic_store_n(w->rx.cons, w->rx.c, __ATOMIC_RELEASE);
}

/* After a batch of n gets and puts. */
static inline void sv_rx_commit(struct sv_wire *w, unsigned n)
{
	if (n >= 16 && w->rx_want < SV_RX_FRAMES) {
		w->rx_want *= 2;
		w->rx_quiet = 0;
	} else if (n > 2) {
		w->rx_quiet = 0;
	} else if (++w->rx_quiet >= 16384 && w->rx_want > SV_RX_FEW) {
		w->rx_want /= 2;
		w->rx_quiet = 0;
	}
	__atomic_store_n(&w->rx_seen, w->rx.c, __ATOMIC_RELAXED);
	__atomic_store_n(&w->rx_owed, w->rx_owed + n, __ATOMIC_RELAXED);
	if (w->rx_owed >= SV_RX_OWED)
		sv_rx_publish(w);
}

/* ---- TX: tx_lock held ---- */
/* Frames that the kernel is through with come back; the last in is the first out, its memory is warm. */
static inline void sv_tx_reap(struct sv_wire *w)
{
	uint32_t p = __atomic_load_n(w->comp.prod, __ATOMIC_ACQUIRE);

	if (p == w->comp.c)
		return;
	while (w->comp.c != p)
		w->tx_free[w->tx_nfree++] = (uint32_t)(((uint64_t *)w->comp.desc)[w->comp.c++ & w->comp.mask] >> w->chunk_shift);
	__atomic_store_n(w->comp.cons, w->comp.c, __ATOMIC_RELEASE);
}

static inline bool sv_tx_room(struct sv_wire *w, uint32_t n)
{
	sv_tx_reap(w);
	if (w->tx_nfree < n)
		return false;
	if (w->tx.p + n - w->tx_done > w->tx.mask + 1) /* tags of what isn't retired yet must stay */
		return false;
	return true;
}

static inline uint8_t *sv_tx_frame(struct sv_wire *w, uint64_t *addr)
{
	*addr = (uint64_t)w->tx_free[--w->tx_nfree] << w->chunk_shift;
	return w->umem + *addr;
}

static inline void sv_tx_queue(struct sv_wire *w, uint64_t addr, uint32_t len, bool more, void *owner, uint32_t cookie)
{
	uint32_t i = w->tx.p++ & w->tx.mask;

	((struct xdp_desc *)w->tx.desc)[i] = (struct xdp_desc){ .addr = addr, .len = len, .options = more ? XDP_PKT_CONTD : 0 };
	w->tags[i].owner = more ? NULL : owner;
	w->tags[i].cookie = cookie;
}

/* Report every frame that the kernel has taken since the last call. */
static inline void sv_tx_retire(struct sv_wire *w, void (*done)(void *owner, uint32_t cookie))
{
	uint32_t c;

	if (sv_unlikely(w->tx_hold))
		return;
	c = __atomic_load_n(w->tx.cons, __ATOMIC_ACQUIRE);
	while (w->tx_done != c) {
		struct sv_tag *t = &w->tags[w->tx_done++ & w->tx.mask];

		if (t->owner != NULL)
			done(t->owner, t->cookie);
	}
}

static inline bool sv_tx_empty(const struct sv_wire *w) { return __atomic_load_n(w->tx.cons, __ATOMIC_ACQUIRE) == w->tx.p; }

#endif
