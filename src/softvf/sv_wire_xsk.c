/*
 * sv_wire_xsk.c - the AF_XDP socket of a wire: UMEM, the four rings, the kick.
 *
 * Called by the face; sv_wire_start() and sv_wire_stop() take ctl, sv_tx_kick() runs under tx_lock. The socket lives from the
 * first sv_wire_start() to the last sv_wire_close(), so that a poll may look at the RX ring at any time without a lock.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "softvf/sv_wire.h"

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef AF_XDP
#define AF_XDP 44
#endif

#define SV_RING 2048u
#define BIND_TRIES 20 /* a closed socket frees its queue only after an RCU grace period and a work item: 10-35 ms */
#define BIND_WAIT_NS 5000000

_Static_assert(SV_RX_FRAMES <= SV_RING && SV_TX_FRAMES <= SV_RING, "each frame needs a slot");

void sv_lock_slow(struct sv_lock *l)
{
	unsigned n = 0;

	do {
		while (__atomic_load_n(&l->v, __ATOMIC_RELAXED)) {
			if (++n % 256 == 0)
				HV_SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0); /* the holder may be preempted */
#if defined(__x86_64__)
			__builtin_ia32_pause();
#endif
		}
	} while (!sv_trylock(l));
}

/* Which of the chunks that were given next is it? */
void sv_rx_look(struct sv_wire *w, uint64_t chunk)
{
	uint32_t i;

	for (i = 1; i <= 32; i++) {
		if (sv_rx_chunk(w, w->rx.c - 1 + i) == chunk) {
			w->rx_skew += i;
			return;
		}
	}
}

static void ring_unmap(struct sv_ring *r, bool mapped)
{
	if (r->map != NULL && mapped)
		munmap(r->map, r->maplen);
	memset(r, 0, sizeof *r);
}

static int ring_map(int fd, struct sv_ring *r, const struct xdp_ring_offset *o, size_t esz, off_t pgoff)
{
	size_t len = o->desc + SV_RING * esz;
	char *m = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, pgoff);

	if (m == MAP_FAILED)
		return -errno;
	(void)madvise(m, len, MADV_DONTFORK);
	r->map = m;
	r->maplen = len;
	r->prod = (uint32_t *)(void *)(m + o->producer);
	r->cons = (uint32_t *)(void *)(m + o->consumer);
	r->desc = m + o->desc;
	r->mask = SV_RING - 1;
	r->p = *r->prod;
	r->c = *r->cons;
	return 0;
}

static int umem_alloc(struct sv_wire *w)
{
	size_t len = (size_t)(SV_RX_FRAMES + SV_TX_FRAMES) << w->chunk_shift;
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	(void)madvise(p, len, MADV_HUGEPAGE);
	(void)madvise(p, len, MADV_DONTFORK); /* pinned: a child would get a copy of all of it */
	w->umem = p;
	w->umem_len = len;
	return 0;
}

static int xsk_rings(struct sv_wire *w)
{
	struct { /* struct xdp_umem_reg as of Linux 5.4: shorter versions are accepted */
		uint64_t addr, len;
		uint32_t chunk, headroom, flags;
	} reg = { .addr = (uintptr_t)w->umem, .len = w->umem_len, .chunk = w->chunk };
	static const int opt[4] = { XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING };
	struct xdp_mmap_offsets off;
	socklen_t l = sizeof off;
	int r, i;

	r = hv_sys_setsockopt(w->xsk_fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg);
	for (i = 0; i < 4 && r == 0; i++)
		r = hv_sys_setint(w->xsk_fd, SOL_XDP, opt[i], (int)SV_RING);
	if (r == 0)
		r = hv_sys_getsockopt(w->xsk_fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &l);
	if (r == 0)
		r = ring_map(w->xsk_fd, &w->fill, &off.fr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_FILL_RING);
	if (r == 0)
		r = ring_map(w->xsk_fd, &w->comp, &off.cr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
	if (r == 0)
		r = ring_map(w->xsk_fd, &w->rx, &off.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
	if (r == 0)
		r = ring_map(w->xsk_fd, &w->tx, &off.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
	return r;
}

static int xsk_bind(struct sv_wire *w)
{
	struct sockaddr_xdp sa = { .sxdp_family = AF_XDP, .sxdp_ifindex = (uint32_t)w->link.ifindex, .sxdp_queue_id = w->queue };
	struct timespec ts = { 0, BIND_WAIT_NS };
	int r = 0, i;

	for (i = 0; i < BIND_TRIES; i++) {
		sa.sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP | XDP_USE_SG;
		r = hv_sys_bind(w->xsk_fd, &sa, sizeof sa);
		if (r == -EINVAL) { /* before Linux 6.6 */
			sa.sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP;
			r = hv_sys_bind(w->xsk_fd, &sa, sizeof sa);
		}
		if (r != -EBUSY)
			break;
		HV_SYS(SYS_nanosleep, &ts, NULL, 0, 0, 0, 0);
	}
	return r;
}

static void xsk_free(struct sv_wire *w)
{
	bool mapped = w->pid == hv_sys_getpid(); /* a forked child didn't inherit these mappings: something else may be there */

	__atomic_store_n(&w->rx_seen, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&w->rx_owed, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&w->rx_rest, 0, __ATOMIC_RELAXED);
	w->rx_prod = &w->zero;
	/* the mappings pin the socket: as long as they exist the queue stays taken */
	ring_unmap(&w->rx, mapped);
	ring_unmap(&w->tx, mapped);
	ring_unmap(&w->fill, mapped);
	ring_unmap(&w->comp, mapped);
	if (w->xsk_fd >= 0)
		hv_sys_close(w->xsk_fd);
	w->xsk_fd = -1;
	if (w->umem != NULL && mapped)
		munmap(w->umem, w->umem_len);
	w->umem = NULL;
}

static int xsk_open(struct sv_wire *w, uint32_t mtu)
{
	uint32_t i;
	int r;

	/* the smaller chunk keeps more of the working set in the cache; frames above it take several */
	w->chunk_shift = SV_XDP_HEADROOM + mtu + 22 <= 2048 ? 11 : 12;
	w->chunk = 1u << w->chunk_shift;
	r = umem_alloc(w);
	if (r < 0)
		return r;
	w->xsk_fd = hv_sys_high(hv_sys_socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
	r = w->xsk_fd < 0 ? w->xsk_fd : xsk_rings(w);
	if (r < 0)
		goto fail;
	/* skbs in flight count against the send buffer; a full one would only show as EAGAIN */
	if (hv_sys_setint(w->xsk_fd, SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20) < 0)
		(void)hv_sys_setint(w->xsk_fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	for (i = 0; i < SV_RX_FRAMES; i++)
		w->rx_free[i] = SV_RX_FRAMES - 1 - i;
	w->rx_nfree = SV_RX_FRAMES;
	w->rx_out = w->rx_quiet = w->rx_skew = 0;
	w->rx_want = SV_RX_FEW;
	sv_rx_fill(w);
	__atomic_store_n(w->fill.prod, w->fill.p, __ATOMIC_RELEASE);
	for (w->tx_nfree = 0; w->tx_nfree < SV_TX_FRAMES; w->tx_nfree++)
		w->tx_free[w->tx_nfree] = SV_RX_FRAMES + SV_TX_FRAMES - 1 - w->tx_nfree;
	w->tx_done = w->tx.p;
	r = xsk_bind(w);
	if (r == 0)
		return 0;
fail:
	xsk_free(w);
	return r;
}

int sv_wire_start(struct sv_wire *w)
{
	struct sv_link l;
	int r;

	pthread_mutex_lock(&w->ctl);
	if (w->started) {
		pthread_mutex_unlock(&w->ctl);
		return 0;
	}
	r = sv_wire_query(w, &l);
	if (r == 0)
		r = xsk_open(w, l.mtu);
	if (r == 0) {
		r = sv_steer_attach(w);
		if (r == 0)
			r = sv_tso_open(w);
		if (r == 0) {
			w->started = true;
			w->tx_hold = 0;
			__atomic_store_n(&w->rx_seen, w->rx.c, __ATOMIC_RELAXED);
			__atomic_store_n(&w->rx_prod, w->rx.prod, __ATOMIC_RELEASE);
		} else {
			sv_tso_close(w);
			sv_steer_detach(w);
			xsk_free(w);
		}
	}
	pthread_mutex_unlock(&w->ctl);
	return r;
}

void sv_wire_stop(struct sv_wire *w)
{
	pthread_mutex_lock(&w->ctl);
	if (w->started) {
		sv_steer_detach(w);
		sv_tso_close(w);
		xsk_free(w);
		w->started = false;
	}
	pthread_mutex_unlock(&w->ctl);
}

/*
 * Make the kernel send what is in the TX ring; one call takes up to 32 descriptors. What remains afterwards is either a matter of
 * time (tx_stalled is set, somebody tries again) or of the link (tx_hold is set, the monitor decides what it means). A frame
 * that the kernel took but dropped because the link was going away must not be reported as sent, hence the look at the link.
 */
void sv_tx_kick(struct sv_wire *w)
{
	unsigned idle = 0;

	__atomic_store_n(w->tx.prod, w->tx.p, __ATOMIC_RELEASE);
	if (sv_unlikely(sv_dead(w)))
		return;
	for (;;) {
		uint32_t before = __atomic_load_n(w->tx.cons, __ATOMIC_RELAXED), after;
		long r = hv_sys_sendto(w->xsk_fd, NULL, 0, MSG_DONTWAIT, NULL, 0);

		if (sv_unlikely(r < 0 && r != -EAGAIN)) {
			struct sv_link l;

			if (r == -ENETDOWN || r == -ENXIO || r == -ENODEV) {
				w->tx_hold = 1;
				sv_wire_wake(w, true);
				return;
			}
			if (r == -EBUSY && (sv_wire_query(w, &l) < 0 || (l.flags & (IFF_UP | IFF_RUNNING)) != (IFF_UP | IFF_RUNNING))) {
				w->tx_hold = 1;
				sv_wire_wake(w, true);
				return;
			}
		}
		after = __atomic_load_n(w->tx.cons, __ATOMIC_ACQUIRE);
		if (sv_likely(after == w->tx.p)) {
			w->tx_hold = 0;
			return;
		}
		if (after == before && ++idle == 4) {
			sv_stall(w, 1);
			return;
		}
		sv_tx_reap(w); /* a full completion ring stops the kernel, too */
	}
}
