/*
 * rcvq.c - received octets: the in-order queue, out-of-order intervals, the window, and the reader.
 *
 * In-order octets [rcv_copied, rcv_nxt) lie first in the imported run (aux), then in rx_head..rx_tail. Out-of-order octets lie in
 * ooo_head..ooo_tail, sorted, without overlap, behind rcv_nxt. Every buffer held is charged with its whole slot (truesize), so small
 * segments cannot pin the ring unpunished; small payload is copied into the free room of the last buffer instead and its own buffer
 * goes back at once. Ring lock.
 */
#include "stack/tcb.h"

static inline void charge(struct hv_tcb *t, const struct hv_buf *b)
{
	t->rx_charge += b->cap;
}
static inline void uncharge(struct hv_tcb *t, struct hv_env *env, struct hv_buf *b)
{
	t->rx_charge -= b->cap;
	hv_buf_free(env, b);
}
static inline uint32_t buf_end(const struct hv_buf *b)
{
	return b->seq + b->len;
}
static inline uint32_t buf_room(const struct hv_buf *b)
{
	return (uint32_t)(b->base + b->cap - (b->data + b->len));
}

/* May this TCB keep one more buffer? When the pool has none in reserve the receive queue of the ring itself shrinks with each buffer
 * that is kept: then one slow reader is limited to its share. */
static inline bool may_keep(const struct hv_tcb *t, const struct hv_env *env, uint32_t cap)
{
	if (hv_likely(t->rx_charge <= t->rcvbuf)) {
		if (hv_likely(env->n_free_rx != 0) || env->rx_total == 0)
			return true;
		return t->rx_charge < hv_max32(8, env->rx_total / 16) * cap;
	}
	/* Within the advertised window, so the peer is right to send it; but more than twice the buffer is never held. */
	return t->rx_charge < 2 * t->rcvbuf && env->n_free_rx != 0;
}

/* Payload of a segment without a buffer of its own: into new buffers. All or nothing. */
static struct hv_buf *copy_to_bufs(struct hv_env *env, const uint8_t *data, uint32_t len, uint32_t seq, struct hv_buf **last)
{
	struct hv_buf *head = NULL, **pp = &head, *b;

	*last = NULL;
	while (len != 0) {
		uint32_t n;

		b = env->free_rx;
		if (b == NULL) {
			while ((b = head) != NULL) {
				head = b->next;
				hv_buf_free(env, b);
			}
			return NULL;
		}
		env->free_rx = b->next;
		env->n_free_rx--;
		n = hv_min32(len, b->cap);
		memcpy(b->base, data, n);
		b->data = b->base;
		b->len = n;
		b->seq = seq;
		b->next = NULL;
		*pp = b;
		pp = &b->next;
		*last = b;
		seq += n;
		data += n;
		len -= n;
	}
	return head;
}

/* ---- SACK blocks to report (RFC 2018 section 4: the most recent first) ---- */
static void sack_report(struct hv_tcb *t, uint32_t start, uint32_t end)
{
	struct hv_block out[4];
	unsigned n = 1;

	out[0].start = start;
	out[0].end = end;
	for (unsigned i = 0; i < t->nrsack && n < 4; i++) {
		const struct hv_block *k = &t->rsack[i];

		if (hv_seq_ge(k->start, start) && hv_seq_le(k->end, end))
			continue; /* part of the new one: intervals are maximal, so it is all or nothing */
		out[n++] = *k;
	}
	memcpy(t->rsack, out, n * sizeof out[0]);
	t->nrsack = (uint8_t)n;
}

static void sack_trim(struct hv_tcb *t)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nrsack; i++) {
		if (hv_seq_gt(t->rsack[i].end, t->rcv_nxt))
			t->rsack[n++] = t->rsack[i];
	}
	t->nrsack = (uint8_t)n;
}

static void dsack_set(struct hv_tcb *t, uint32_t start, uint32_t end)
{
	if ((t->tf & TF_SACK) != 0 && hv_seq_lt(start, end)) {
		t->dsack.start = start;
		t->dsack.end = end;
		t->ndsack = 1;
	}
}

/* The whole interval that node b belongs to. The scan from the head is bounded by HV_OOO_MAX. */
static void interval_of(const struct hv_tcb *t, const struct hv_buf *b, uint32_t *start, uint32_t *end)
{
	uint32_t s = t->ooo_head->seq, e = s;

	for (const struct hv_buf *i = t->ooo_head; i != NULL; i = i->next) {
		if (i->seq != e) {
			if (hv_seq_gt(e, b->seq))
				break;
			s = i->seq;
		}
		e = buf_end(i);
	}
	*start = s;
	*end = e;
}

/* More intervals are held than blocks are remembered, and those remembered are gone. */
static void report_head(struct hv_tcb *t)
{
	uint32_t s, e;

	interval_of(t, t->ooo_head, &s, &e);
	sack_report(t, s, e);
}

/* Report the interval around the new octets [s, e) in b. joins: the octet before s is held. Growing at its right edge, the usual case, is
 * answered from the blocks. */
static void report_around(struct hv_tcb *t, bool joins, const struct hv_buf *b, const struct hv_buf *next, uint32_t s, uint32_t e)
{
	if (next == NULL || next->seq != e) {
		if (!joins) {
			sack_report(t, s, e);
			return;
		}
		for (unsigned i = 0; i < t->nrsack; i++) {
			if (t->rsack[i].end == s) {
				sack_report(t, t->rsack[i].start, e);
				return;
			}
		}
	}
	interval_of(t, b, &s, &e);
	sack_report(t, s, e);
}

/* Give up the last out-of-order buffer: it was reported but not acknowledged, so the peer still has it (RFC 2018 section 8). */
static HV_COLD void renege(struct hv_tcb *t, struct hv_env *env)
{
	struct hv_buf *prev = NULL, *b = t->ooo_head;
	unsigned n = 0;

	while (b->next != NULL) {
		prev = b;
		b = b->next;
	}
	if (prev != NULL)
		prev->next = NULL;
	else
		t->ooo_head = NULL;
	t->ooo_tail = prev;
	t->ooo_n--;
	for (unsigned i = 0; i < t->nrsack; i++) {
		struct hv_block k = t->rsack[i];

		k.end = hv_seq_min(k.end, b->seq);
		if (hv_seq_lt(k.start, k.end))
			t->rsack[n++] = k;
	}
	t->nrsack = (uint8_t)n;
	uncharge(t, env, b);
	if (n == 0 && t->ooo_head != NULL)
		report_head(t);
}

/* No memory for octets that the peer was right to send. It has to hear of that, or it takes us for dead. */
static HV_COLD unsigned refuse(struct hv_tcb *t)
{
	t->tf |= TF_NOMEM | TF_ACK_NOW;
	t->rcv_edge = t->rcv_nxt; /* whatever is read later is news then */
	return HV_RCV_REFUSED;
}

/* Take len octets at data as the next in-order ones. */
unsigned hv_rcv_inorder(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, const uint8_t *data, uint32_t len)
{
	struct hv_buf *tail = t->rx_tail, *b = seg->buf, *last;
	bool keep;

	if (tail != NULL && len <= buf_room(tail)) {
		keep = b != NULL && len > HV_COPYBREAK && t->rx_charge < t->rcvbuf / 2 && may_keep(t, env, b->cap);
		if (!keep) {
			memcpy(tail->data + tail->len, data, len);
			tail->len += len;
			t->rcv_nxt += len;
			t->bytes_in += len;
			return HV_RCV_TAKEN;
		}
	}
	if (b != NULL) {
		/* What fills the hole goes before what lies behind it. */
		while (hv_unlikely(!may_keep(t, env, b->cap))) {
			if (t->ooo_head != NULL)
				renege(t, env);
			else if (t->rx_head == NULL)
				break; /* nothing is held: progress comes first */
			else
				return refuse(t);
		}
		b->data = b->base + (data - b->base);
		b->len = len;
		b->seq = t->rcv_nxt;
		b->next = NULL;
		last = b;
		charge(t, b);
	} else {
		while ((b = copy_to_bufs(env, data, len, t->rcv_nxt, &last)) == NULL) {
			if (t->ooo_head == NULL)
				return HV_RCV_REFUSED;
			renege(t, env);
		}
		for (const struct hv_buf *i = b; i != NULL; i = i->next)
			charge(t, i);
	}
	if (tail != NULL)
		tail->next = b;
	else
		t->rx_head = b;
	t->rx_tail = last;
	t->rcv_nxt += len;
	t->bytes_in += len;
	return seg->buf != NULL ? HV_TCP_KEPT : HV_RCV_TAKEN;
}

/* Octets behind a hole. */
static unsigned rcv_ooo(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, const uint8_t *data, uint32_t s, uint32_t len)
{
	struct hv_buf *prev = NULL, **pp, *next, *b, *last;
	uint32_t e = s + len, is, ie;
	bool into_prev;

	t->cnt->ooo_in++;
	if (t->ooo_tail != NULL && hv_seq_ge(s, t->ooo_tail->seq)) {
		prev = t->ooo_tail;
	} else {
		for (b = t->ooo_head; b != NULL && hv_seq_le(b->seq, s); b = b->next)
			prev = b;
	}
	if (prev != NULL && hv_seq_gt(buf_end(prev), s)) {
		uint32_t pe = buf_end(prev);

		if (hv_seq_ge(pe, e)) {
			dsack_set(t, s, e);
			interval_of(t, prev, &is, &ie);
			sack_report(t, is, ie);
			return HV_TCP_DROP;
		}
		dsack_set(t, s, pe);
		data += pe - s;
		s = pe;
	}
	pp = prev != NULL ? &prev->next : &t->ooo_head;
	for (next = *pp; next != NULL && hv_seq_lt(next->seq, e); next = next->next) {
		dsack_set(t, next->seq, hv_seq_min(buf_end(next), e));
		if (hv_seq_gt(buf_end(next), e)) {
			e = next->seq;
			break;
		}
	}
	/* what lies behind the new octets; everything before it is wholly inside them */
	len = e - s;
	if (len == 0) { /* the front was a duplicate of prev and the rest of next */
		interval_of(t, prev != NULL ? prev : next, &is, &ie);
		sack_report(t, is, ie);
		return HV_TCP_DROP;
	}
	into_prev = prev != NULL && buf_end(prev) == s && len <= HV_COPYBREAK && len <= buf_room(prev);
	b = seg->buf;
	last = b;
	if (!into_prev) { /* decided before anything is given up for it */
		if (t->ooo_n >= HV_OOO_MAX || t->rx_charge >= t->rcvbuf || (b != NULL && !may_keep(t, env, b->cap)))
			return HV_TCP_DROP; /* it was never acknowledged nor reported: the peer sends it again */
		if (b == NULL && (b = copy_to_bufs(env, data, len, s, &last)) == NULL)
			return HV_TCP_DROP;
	}
	while (*pp != next) {
		struct hv_buf *in = *pp;

		*pp = in->next;
		if (t->ooo_tail == in)
			t->ooo_tail = prev;
		t->ooo_n--;
		uncharge(t, env, in);
	}
	if (into_prev) {
		memcpy(prev->data + prev->len, data, len);
		prev->len += len;
		report_around(t, true, prev, next, s, e);
		return HV_RCV_TAKEN;
	}
	if (seg->buf != NULL) {
		b->data = b->base + (data - b->base);
		b->len = len;
		b->seq = s;
	}
	last->next = next;
	*pp = b;
	if (next == NULL)
		t->ooo_tail = last;
	for (struct hv_buf *i = b;; i = i->next) {
		charge(t, i);
		t->ooo_n++;
		if (i == last)
			break;
	}
	report_around(t, prev != NULL && buf_end(prev) == s, b, next, s, e);
	return seg->buf != NULL ? HV_TCP_KEPT : HV_RCV_TAKEN;
}

void hv_rcv_pull(struct hv_tcb *t, struct hv_env *env)
{
	struct hv_buf *b;

	while ((b = t->ooo_head) != NULL && hv_seq_le(b->seq, t->rcv_nxt)) {
		uint32_t dup = t->rcv_nxt - b->seq;

		t->ooo_head = b->next;
		if (t->ooo_head == NULL)
			t->ooo_tail = NULL;
		t->ooo_n--;
		dsack_set(t, b->seq, b->seq + hv_min32(dup, b->len)); /* what has just come covers it */
		if (dup >= b->len) {
			uncharge(t, env, b);
			continue;
		}
		b->data += dup;
		b->len -= dup;
		b->seq = t->rcv_nxt;
		b->next = NULL;
		t->rcv_nxt += b->len;
		t->bytes_in += b->len;
		if (t->rx_tail != NULL && b->len <= HV_COPYBREAK && b->len <= buf_room(t->rx_tail)) {
			memcpy(t->rx_tail->data + t->rx_tail->len, b->data, b->len);
			t->rx_tail->len += b->len;
			uncharge(t, env, b);
			continue;
		}
		if (t->rx_tail != NULL)
			t->rx_tail->next = b;
		else
			t->rx_head = b;
		t->rx_tail = b;
	}
	sack_trim(t);
	if (t->nrsack == 0 && t->ooo_head != NULL)
		report_head(t);
}

/* The text of any acceptable segment, off the fast path. Returns READABLE, KEPT, DROP; sets TF_ACK_NOW where RFC 5681 4.2 asks for an
 * immediate ACK. */
unsigned hv_rcv_data(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, uint64_t now)
{
	const uint8_t *data = seg->data;
	uint32_t s = seg->seq, len = seg->len, cut;
	unsigned act;

	(void)now;
	cut = hv_seq_before(s, len, t->rcv_nxt);
	if (cut != 0) {
		dsack_set(t, s, s + cut);
		hv_quick(t);
		t->tf |= TF_ACK_NOW;
		if (cut == len)
			return HV_TCP_DROP;
		s += cut;
		data += cut;
		len -= cut;
	}
	cut = hv_seq_behind(s, len, t->rcv_edge);
	if (cut != 0) {
		t->tf |= TF_ACK_NOW;
		if (cut == len)
			return HV_TCP_DROP;
		len -= cut;
	}
	if (s != t->rcv_nxt) {
		t->tf |= TF_ACK_NOW;
		return rcv_ooo(t, env, seg, data, s, len);
	}
	act = hv_rcv_inorder(t, env, seg, data, len);
	if ((act & HV_TCP_DROP) != 0)
		return act;
	if (t->ooo_head != NULL) {
		t->tf |= TF_ACK_NOW;
		hv_rcv_pull(t, env);
	}
	return act | HV_TCP_READABLE;
}

/* Late octets, and no receive buffer to put them into: lend a send chunk. Returns how many it took. */
uint32_t hv_rcv_late(struct hv_tcb *t, struct hv_env *env, const uint8_t *data, uint32_t len)
{
	struct hv_chunk *c = env->free_tx;
	uint32_t n;

	if (t->rx_head != NULL || t->aux_len != 0 || t->late_chunk != NULL || c == NULL)
		return 0;
	env->free_tx = c->next;
	env->n_free_tx--;
	c->next = NULL;
	c->on_wire = false;
	n = hv_min32(len, c->cap);
	memcpy(c->base, data, n);
	t->late_chunk = c;
	t->aux = c->base;
	t->aux_len = n;
	t->rx_charge += n;
	t->rcv_nxt += n;
	t->bytes_in += n;
	return n;
}

void hv_rcv_late_done(struct hv_tcb *t, struct hv_env *env)
{
	if (t->late_chunk != NULL)
		hv_chunk_put(env, t->late_chunk);
	t->late_chunk = NULL;
}

uint32_t hv_tcp_rx_held(const struct hv_tcb *t)
{
	return t->rx_charge - t->aux_len;
}

uint32_t hv_tcp_readable(const struct hv_tcb *t)
{
	return t->rcv_nxt - t->rcv_copied;
}

static uint32_t read_peek(const struct hv_tcb *t, uint8_t *dst, uint32_t n)
{
	uint32_t got = 0, k;

	if (dst == NULL)
		return n;
	if (t->aux_len != 0) {
		k = hv_min32(n, t->aux_len);
		memcpy(dst, t->aux, k);
		got = k;
	}
	for (const struct hv_buf *b = t->rx_head; b != NULL && got < n; b = b->next) {
		k = hv_min32(n - got, b->len);
		memcpy(dst + got, b->data, k);
		got += k;
	}
	return got;
}

/* As ack_soon() in input.c has decided: an ACK that is due within that time goes when nothing is left to read. */
static inline void read_ack_due(struct hv_tcb *t, unsigned *act, bool drained, uint64_t now)
{
	if ((t->tf & TF_ACK_PEND) != 0 &&
	    (t->rcv_nxt - t->last_ack > t->rcv_mss ||
		(hv_unlikely((t->tf & TF_PINGPONG) == 0) && drained && t->ack_at <= now + HV_QUICKACK_US))) {
		t->tf |= TF_ACK_NOW;
		*act |= HV_TCP_OUT;
	}
}

static __attribute__((noinline)) uint32_t read_any(struct hv_tcb *t, struct hv_env *env, uint8_t *d, uint32_t len, bool peek, unsigned *act,
    uint64_t now)
{
	uint32_t n = hv_min32(len, t->rcv_nxt - t->rcv_copied), left = n, k, cur, can;
	struct hv_buf *b;

	if (peek)
		return read_peek(t, d, n);
	if (n == 0)
		return 0;
	if (hv_unlikely(t->aux_len != 0)) {
		k = hv_min32(left, t->aux_len);
		if (d != NULL) {
			memcpy(d, t->aux, k);
			d += k;
		}
		t->aux += k;
		t->aux_len -= k;
		t->rx_charge -= k;
		left -= k;
		if (t->aux_len == 0)
			hv_rcv_late_done(t, env);
	}
	while (left != 0) {
		b = t->rx_head;
		k = hv_min32(left, b->len);
		if (d != NULL) {
			memcpy(d, b->data, k);
			d += k;
		}
		left -= k;
		if (k == b->len) {
			t->rx_head = b->next;
			if (t->rx_head == NULL)
				t->rx_tail = NULL;
			uncharge(t, env, b);
		} else {
			b->data += k;
			b->len -= k;
			b->seq += k;
		}
	}
	t->rcv_copied += n;
	/* A window update is due when what may be advertised is at least twice what the peer has left, and that is little
	 * (the kernel's rule in tcp_cleanup_rbuf()). */
	cur = t->rcv_edge - t->rcv_nxt;
	if (2 * cur <= t->rwnd_lim) {
		can = hv_rcv_window(t) - t->rcv_nxt;
		if (can >= 2 * cur && can != cur) {
			t->tf |= TF_ACK_NOW;
			*act |= HV_TCP_OUT;
		}
	}
	read_ack_due(t, act, t->rcv_copied == t->rcv_nxt, now);
	return n;
}

uint32_t hv_tcp_read(struct hv_tcb *restrict t, struct hv_env *restrict env, void *dst, uint32_t len, bool peek, unsigned *restrict act,
    uint64_t now)
{
	struct hv_buf *restrict b = t->rx_head;
	uint32_t n = t->rcv_nxt - t->rcv_copied;

	/* Usually one message in one buffer is all there is, all of it is wanted, and the peer has window enough. */
	if (hv_unlikely(peek || b == NULL || b->len != n || n > len || dst == NULL || 2 * (t->rcv_edge - t->rcv_nxt) <= t->rwnd_lim))
		return read_any(t, env, dst, len, peek, act, now);
	t->rx_head = NULL;
	t->rx_charge -= b->cap;
	t->rx_tail = NULL;
	b->next = env->free_rx;
	env->free_rx = b;
	env->n_free_rx++;
	t->rcv_copied = t->rcv_nxt;
	read_ack_due(t, act, true, now);
	memcpy(dst, b->data, n); /* b can't be reused before this returns; last, so that few registers have to survive it */
	return n;
}

void hv_rcv_release(struct hv_tcb *t, struct hv_env *env)
{
	struct hv_buf *b;

	while ((b = t->rx_head) != NULL) {
		t->rx_head = b->next;
		uncharge(t, env, b);
	}
	while ((b = t->ooo_head) != NULL) {
		t->ooo_head = b->next;
		uncharge(t, env, b);
	}
	t->rx_tail = t->ooo_tail = NULL;
	t->ooo_n = 0;
	t->nrsack = 0;
	t->rx_charge -= t->aux_len;
	t->aux_len = 0;
	hv_rcv_late_done(t, env);
}
