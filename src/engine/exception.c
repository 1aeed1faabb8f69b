/*
 * exception.c - packets of promoted connections that came by the synthetic path (src/failover/capture.h): input of our stack like any
 * other.
 *
 * Read by the service thread only; G.lock is taken for each batch. A captured frame may be several segments in one: it is cut to buffer
 * size. For a connection that isn't ours any more the frame goes to the kernel, whose parked socket has dropped it; if it hasn't, TCP sorts
 * the duplicate out. ICMP about them is path.c's.
 */
#include "engine/internal.h"

#define BATCH 64u

static uint8_t *frame_mem; /* the service thread's */

static struct hv_buf *take_buf(void)
{
	struct hv_buf *b = G.env.free_rx;

	if (b == NULL)
		return NULL;
	G.env.free_rx = b->next;
	G.env.n_free_rx--;
	b->next = NULL;
	return b;
}

/* Tier VF, TCP. The frame's memory stays put. */
static void to_stack(struct hv_sock *s, struct hv_frame *f, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;
	struct hv_seg whole;
	unsigned acts = 0;
	uint32_t off = 0;

	memset(&whole, 0, sizeof whole);
	if (!hv_tcp_parse(f->l4, f->l4_len, &whole))
		return;
	whole.ce = (f->tos & 3) == 3;
	p->active_us = now_us;
	do {
		struct hv_buf *b = take_buf();
		if (b == NULL)
			break; /* the peer repeats it */
		struct hv_seg seg = whole;
		uint32_t n = whole.len - off < b->cap ? whole.len - off : b->cap;
		bool last = off + n == whole.len;
		memcpy(b->base, whole.data + off, n);
		b->data = b->base;
		b->len = n;
		seg.buf = b;
		seg.data = b->base;
		seg.len = n;
		seg.seq = whole.seq + off;
		if (!last)
			seg.flags &= (uint8_t)~(1u | 8u); /* FIN and PSH belong to the end */
		unsigned a = hv_tcp_input(p->tcb, &G.env, &seg, now_us);
		if ((a & HV_TCP_KEPT) == 0)
			hv_buf_give(b);
		if ((a & HV_TCP_DEMOTE) != 0) {
			enum hv_why why = (seg.flags & 4) != 0 ? HV_WHY_PEER_RST : (seg.flags & 1) != 0 ? HV_WHY_PEER_FIN : HV_WHY_PROTOCOL;
			if (hv_demote_locked(s, why, false) == 0)
				hv_inject(&f->tuple, f->l3, f->l3_len);
			return;
		}
		acts |= a;
		off += n;
	} while (off < whole.len);
	if (acts != 0)
		hv_sock_apply(s, acts, now_us);
}

/* Segments that a router has cut: putting them together is the kernel's, which has the other pieces. It gets the connection for good; what it would have taken for the parked
 * socket's the peer repeats. */
static bool fragment(const uint8_t *frame, uint32_t len)
{
	uint32_t l4 = 14u + (uint32_t)(len > 14 ? frame[14] & 15u : 0) * 4u;
	struct hv_tuple t;

	if (len < 34 || len < l4 + 4 || frame[12] != 8 || frame[13] != 0 || frame[14] >> 4 != 4 || (frame[20] & 0x20) == 0 || frame[23] != 6)
		return false;
	memset(&t, 0, sizeof t);
	t.family = 4;
	t.proto = 6;
	memcpy(t.raddr, frame + 26, 4);
	memcpy(t.laddr, frame + 30, 4);
	memcpy(&t.rport, frame + l4, 2);
	memcpy(&t.lport, frame + l4 + 2, 2);
	struct hv_sock *s = hv_demux_find(&t);
	if (s != NULL && hv_sock_vf(s) && !s->p->demote_pending) {
		atomic_store(&s->pinned, true);
		hv_demote_locked(s, HV_WHY_PROTOCOL, false);
	}
	return true;
}

static void one(uint8_t *frame, uint32_t len, bool csum_ok, uint64_t now_us)
{
	struct hv_frame f;

	if (!hv_frame_parse(frame, len, &f)) {
		if (!fragment(frame, len))
			hv_path_icmp(frame, len, now_us);
		return;
	}
	HV_COUNT(captured);
	if (f.tuple.proto != 6 || (!csum_ok && !hv_frame_csum_ok(&f)))
		return;
	struct hv_sock *s = hv_demux_find(&f.tuple);
	if (s != NULL && hv_sock_vf(s)) {
		if (!s->p->demote_pending)
			to_stack(s, &f, now_us);
		return;
	}
	if (s != NULL) { /* on its way to us: with the frames that wait for that */
		struct hv_buf *b = take_buf();
		if (b == NULL)
			return;
		if (len > b->cap || s->p->pend_count >= 512) {
			hv_buf_give(b);
			return;
		}
		memcpy(b->base, frame, len);
		b->data = b->base;
		b->len = len;
		*s->p->pend_tail = b;
		s->p->pend_tail = &b->next;
		s->p->pend_count++;
		return;
	}
	if (hv_inject(&f.tuple, f.l3, f.l3_len) == 0)
		HV_COUNT(injected_unknown);
}

void hv_exception_poll(void)
{
	bool csum_ok = false;

	if (G.cap == NULL)
		return;
	if (frame_mem == NULL && (frame_mem = hv_map(HV_CAPTURE_FRAME_MAX)) == NULL)
		return;
	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = hv_capture_read(G.cap, frame_mem, HV_CAPTURE_FRAME_MAX, &csum_ok);
		if (n == -EMSGSIZE)
			continue;
		if (n < 0)
			return;
		hv_lock(&G.lock);
		if (G.vf != NULL)
			one(frame_mem, (uint32_t)n, csum_ok, hv_now_us());
		hv_unlock(&G.lock);
	}
}
