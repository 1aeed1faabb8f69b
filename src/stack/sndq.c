/*
 * sndq.c - octets [snd_una, snd_end) in chunks of registered memory.
 *
 * Segmentation is kept out of the buffer: any cut at (re)transmission is possible. Owns tx_head..tx_tail, tx_cur. A chunk goes back to
 * the pool when its octets are acknowledged and the send queue has completed the last WQE that points into it; until then it waits in
 * env->wait_tx. Ring lock.
 */
#include "stack/tcb.h"

static inline bool sq_pending(const struct hv_env *env, const struct hv_chunk *c)
{
	return c->on_wire && hv_seq_le(env->sq_done, c->last_sq);
}

void hv_chunk_put(struct hv_env *env, struct hv_chunk *c)
{
	if (hv_unlikely(sq_pending(env, c))) {
		c->next = env->wait_tx;
		env->wait_tx = c;
		return;
	}
	c->off = c->end = 0;
	c->on_wire = false;
	c->next = env->free_tx;
	env->free_tx = c;
	env->n_free_tx++;
}

void hv_tcp_prefetch_more(const struct hv_tcb *t)
{
	if (t->tx_head != NULL)
		__builtin_prefetch(t->tx_head, 1); /* an ACK gives it back */
}

void hv_env_reap(struct hv_env *env)
{
	struct hv_chunk **pp = &env->wait_tx, *c;

	while ((c = *pp) != NULL) {
		if (sq_pending(env, c)) {
			pp = &c->next;
			continue;
		}
		*pp = c->next;
		hv_chunk_put(env, c);
	}
}

static inline struct hv_chunk *chunk_get(struct hv_env *env)
{
	struct hv_chunk *c = env->free_tx;

	if (c == NULL)
		return NULL;
	env->free_tx = c->next;
	env->n_free_tx--;
	c->next = NULL;
	c->off = c->end = 0;
	c->on_wire = false;
	return c;
}

uint32_t hv_snd_append(struct hv_tcb *t, struct hv_env *env, const uint8_t *data, uint32_t len)
{
	uint32_t left = len;

	while (left != 0) {
		struct hv_chunk *c = t->tx_tail;
		uint32_t n;

		if (c == NULL || c->end == c->cap) {
			c = chunk_get(env);
			if (c == NULL)
				break;
			if (t->tx_tail != NULL)
				t->tx_tail->next = c;
			else
				t->tx_head = c;
			t->tx_tail = c;
		}
		n = hv_min32(left, c->cap - c->end);
		memcpy(c->base + c->end, data, n);
		c->end += n;
		data += n;
		left -= n;
	}
	t->snd_end += len - left;
	return len - left;
}

void hv_snd_acked(struct hv_tcb *t, struct hv_env *env, uint32_t n)
{
	while (n != 0) {
		struct hv_chunk *c = t->tx_head;
		uint32_t have = c->end - c->off;

		if (n < have) {
			c->off += n;
			return;
		}
		n -= have;
		t->tx_head = c->next;
		if (t->tx_head == NULL)
			t->tx_tail = NULL;
		if (t->tx_cur == c)
			t->tx_cur = NULL;
		hv_chunk_put(env, c);
	}
}

/* Point tx at up to len octets from seq on; returns how many fitted into its entries. */
uint32_t hv_snd_gather(struct hv_tcb *t, struct hv_env *env, uint32_t seq, uint32_t len, struct hv_tx *tx)
{
	struct hv_chunk *c = t->tx_head;
	uint32_t base, got = 0, i, n;

	if (t->tx_cur != NULL && hv_seq_ge(seq, t->tx_cur_base + t->tx_cur->off)) {
		c = t->tx_cur;
		base = t->tx_cur_base;
	} else {
		base = t->snd_una - c->off;
	}
	while (seq - base >= c->end) { /* seq >= base + off always */
		base += c->end;
		c = c->next;
		base -= c->off;
	}
	i = seq - base;
	tx->nsge = 0;
	for (;;) {
		n = hv_min32(len - got, c->end - i);
		tx->sge[tx->nsge].addr = c->base + i;
		tx->sge[tx->nsge].len = n;
		tx->sge[tx->nsge].lkey = c->lkey;
		tx->nsge++;
		c->last_sq = env->sq_next;
		c->on_wire = true;
		got += n;
		if (got == len || tx->nsge == HV_TX_SEG_MAX)
			break;
		base += c->end;
		c = c->next;
		base -= c->off;
		i = c->off;
	}
	if (hv_seq_ge(seq, t->snd_nxt)) { /* new data: the next new octet is here or in the next chunk */
		t->tx_cur = c;
		t->tx_cur_base = base;
	}
	return got;
}

void hv_snd_copy(const struct hv_tcb *t, uint8_t *dst)
{
	for (const struct hv_chunk *c = t->tx_head; c != NULL; c = c->next) {
		memcpy(dst, c->base + c->off, c->end - c->off);
		dst += c->end - c->off;
	}
}

void hv_snd_release(struct hv_tcb *t, struct hv_env *env)
{
	struct hv_chunk *c;

	while ((c = t->tx_head) != NULL) {
		t->tx_head = c->next;
		hv_chunk_put(env, c);
	}
	t->tx_tail = t->tx_cur = NULL;
}
