/*
 * host.c - see host.h. Checksums here are written anew, octet pair by octet pair, so that they judge the stack's own.
 */
#include "host.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

bool host_fail(struct host *h, const char *what)
{
	if (h->fail == NULL)
		h->fail = what;
	return false;
}

uint16_t host_ref_csum(const uint8_t *p, uint32_t len, uint32_t seed)
{
	uint64_t s = seed;

	for (uint32_t i = 0; i < len; i += 2)
		s += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0u);
	while (s >> 16 != 0)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

void host_fill_csum(uint8_t *frame, uint32_t l3_off, uint32_t l4_off, uint32_t len)
{
	uint8_t *ip = frame + l3_off, *l4 = frame + l4_off;
	uint32_t l4_len = len - l4_off, sum = l4_len, at;
	uint8_t proto;

	if (ip[0] >> 4 == 4) {
		proto = ip[9];
		put16(ip + 10, 0);
		put16(ip + 10, host_ref_csum(ip, (uint32_t)(ip[0] & 15) * 4, 0));
		for (uint32_t i = 12; i < 20; i += 2)
			sum += be16(ip + i);
	} else {
		proto = ip[6];
		for (uint32_t i = 8; i < 40; i += 2)
			sum += be16(ip + i);
	}
	sum += proto;
	at = proto == 17 ? 6 : 16;
	put16(l4 + at, 0);
	uint16_t c = host_ref_csum(l4, l4_len, sum);
	put16(l4 + at, proto == 17 && c == 0 ? 0xffff : c);
}

void host_init(struct host *h, const struct host_conf *c)
{
	memset(h, 0, sizeof *h);
	h->conf = *c;
	h->tcb = aligned_alloc(64, (hv_tcb_size() + 63) & ~(size_t)63);
	h->rx_mem = malloc((size_t)c->n_rx * c->rx_cap);
	h->tx_mem = malloc((size_t)c->n_tx * c->tx_cap);
	h->bufs = calloc(c->n_rx, sizeof *h->bufs);
	h->chunks = calloc(c->n_tx, sizeof *h->chunks);
	assert(h->tcb != NULL && h->rx_mem != NULL && h->tx_mem != NULL && h->bufs != NULL && h->chunks != NULL);
	memset(h->tcb, 0xa5, hv_tcb_size()); /* the caller's memory is not promised to be zero */
	for (uint32_t i = 0; i < c->n_rx; i++) {
		struct hv_buf *b = &h->bufs[i];
		b->base = b->data = h->rx_mem + (size_t)i * c->rx_cap;
		b->cap = c->rx_cap;
		b->lkey = 7;
		b->idx = i;
		b->next = h->env.free_rx;
		h->env.free_rx = b;
		h->env.n_free_rx++;
	}
	for (uint32_t i = 0; i < c->n_tx; i++) {
		struct hv_chunk *k = &h->chunks[i];
		k->base = h->tx_mem + (size_t)i * c->tx_cap;
		k->cap = c->tx_cap;
		k->lkey = 9;
		k->next = h->env.free_tx;
		h->env.free_tx = k;
		h->env.n_free_tx++;
	}
	h->env.rx_total = c->n_rx;
	h->env.tso_max = c->tso_max;
	h->env.sq_next = h->env.sq_done = 0xffffff80u; /* the index wraps early in every run */
	memcpy(h->l2, c->peer_mac, 6);
	memcpy(h->l2 + 6, c->mac, 6);
	h->l2_len = 14;
	if (c->vlan) {
		put16(h->l2 + 12, 0x8100);
		put16(h->l2 + 14, 42);
		h->l2_len = 18;
	}
	host_refill(h);
}

void host_destroy(struct host *h)
{
	free(h->tcb);
	free(h->rx_mem);
	free(h->tx_mem);
	free(h->bufs);
	free(h->chunks);
	free(h->aux);
	memset(h, 0, sizeof *h);
}

int host_import(struct host *h, const struct hv_tcp_image *img, uint64_t now)
{
	uint32_t et = h->l2_len - 2;
	int rc;

	put16(h->l2 + et, img->tuple.family == 6 ? 0x86dd : 0x0800);
	free(h->aux);
	h->aux = malloc(img->rcv_len != 0 ? img->rcv_len : 1);
	assert(h->aux != NULL);
	memset(h->tcb, 0x5a, hv_tcb_size());
	rc = hv_tcp_import(h->tcb, &h->env, &h->cnt, img, h->l2, h->l2_len, h->aux, now);
	h->live = rc == 0;
	if (rc != 0) {
		free(h->aux);
		h->aux = NULL;
	}
	if (h->live)
		host_check(h);
	return rc;
}

void host_export(struct host *h, struct hv_tcp_image *img, uint64_t now)
{
	memset(img, 0, sizeof *img);
	hv_tcp_export(h->tcb, img, now);
	img->rcv = malloc(img->rcv_len + 1u);
	img->snd = malloc(img->snd_len + 1u);
	assert(img->rcv != NULL && img->snd != NULL);
	img->rcv[img->rcv_len] = img->snd[img->snd_len] = 0xee; /* an octet too many is noticed */
	hv_tcp_export_rcv(h->tcb, img->rcv);
	hv_tcp_export_snd(h->tcb, img->snd);
	if (img->rcv[img->rcv_len] != 0xee || img->snd[img->snd_len] != 0xee)
		host_fail(h, "export wrote past the announced length");
}

void host_image_free(struct hv_tcp_image *img)
{
	free(img->rcv);
	free(img->snd);
	img->rcv = img->snd = NULL;
}

/* Buffers at home: posted or in the pool. */
static uint32_t rx_home(struct host *h)
{
	uint32_t n = 0;

	for (const struct hv_buf *b = h->env.free_rx; b != NULL && n <= h->conf.n_rx; b = b->next)
		n++;
	if (n > h->conf.n_rx)
		host_fail(h, "a receive buffer was given back twice");
	if (n != h->env.n_free_rx)
		host_fail(h, "n_free_rx does not match the list");
	return n + h->n_ring;
}

void host_release(struct host *h, uint32_t out)
{
	hv_tcp_release(h->tcb, &h->env);
	h->live = false;
	memset(h->tcb, 0xdd, hv_tcb_size());
	free(h->aux);
	h->aux = NULL;
	host_refill(h);
	if (rx_home(h) + out != h->conf.n_rx)
		host_fail(h, "receive buffers lost at release");
}

void host_refill(struct host *h)
{
	while (h->env.free_rx != NULL && h->n_ring < h->conf.ring) {
		struct hv_buf *b = h->env.free_rx;
		h->env.free_rx = b->next;
		h->env.n_free_rx--;
		b->next = h->ring;
		h->ring = b;
		h->n_ring++;
	}
}

struct hv_buf *host_rx(struct host *h, const uint8_t *frame, uint32_t len)
{
	struct hv_buf *b = h->ring;

	if (b == NULL || len > b->cap)
		return NULL;
	h->ring = b->next;
	h->n_ring--;
	b->next = NULL;
	b->data = b->base;
	b->len = len;
	b->seq = 0xdeadbeef;
	memcpy(b->base, frame, len);
	return b;
}

void host_put(struct host *h, struct hv_buf *b)
{
	memset(b->base, 0xcc, b->cap < 256 ? b->cap : 256); /* whoever still looks at it will show */
	b->next = h->env.free_rx;
	h->env.free_rx = b;
	h->env.n_free_rx++;
}

bool host_check(struct host *h)
{
	const char *what = NULL;
	bool pools;

	if (!h->live)
		return h->fail == NULL;
	pools = h->checks++ < 500 || h->check_pools == 0 || h->checks % h->check_pools == 0;
	if (!hv_tcb_check(h->tcb, pools ? &h->env : NULL, &what))
		return host_fail(h, what != NULL ? what : "hv_tcb_check failed without a text");
	if (h->aux != NULL && hv_tcp_aux_done(h->tcb)) {
		free(h->aux);
		h->aux = NULL;
	}
	return h->fail == NULL;
}

static uint32_t list_len(const struct hv_chunk *k, uint32_t max)
{
	uint32_t n = 0;

	for (; k != NULL && n <= max; k = k->next)
		n++;
	return n;
}

bool host_conserved(struct host *h)
{
	hv_env_reap(&h->env);
	host_refill(h);
	if (rx_home(h) != h->conf.n_rx)
		host_fail(h, "receive buffers not conserved");
	if (list_len(h->env.wait_tx, h->conf.n_tx) != 0)
		host_fail(h, "chunks still wait although the send queue is empty");
	if (list_len(h->env.free_tx, h->conf.n_tx) != h->conf.n_tx || h->env.n_free_tx != h->conf.n_tx)
		host_fail(h, "chunks not conserved");
	return h->fail == NULL;
}

bool host_sq_room(const struct host *h)
{
	return h->env.sq_next - h->env.sq_done < HOST_SQ;
}

static uint32_t sge_sum(const struct hv_sge *s, uint32_t n)
{
	uint32_t a = 1;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < s[i].len; j++)
			a = (a ^ s[i].addr[j]) * 0x01000193u;
	return a;
}

void host_complete(struct host *h, uint32_t n)
{
	for (; n != 0 && h->env.sq_done != h->env.sq_next; n--) {
		struct host_wqe *w = &h->sq[h->env.sq_done % HOST_SQ];
		if (sge_sum(w->sge, w->nsge) != w->sum)
			host_fail(h, "octets of a posted descriptor changed before its completion");
		h->env.sq_done++;
	}
	hv_env_reap(&h->env);
}

static bool in_chunk(const struct host *h, const struct hv_sge *s)
{
	return s->addr >= h->tx_mem && s->addr + s->len <= h->tx_mem + (size_t)h->conf.n_tx * h->conf.tx_cap && s->lkey == 9;
}

/* Header fields that the device relies on. */
static void check_tx(struct host *h, const struct hv_tx *tx)
{
	const uint8_t *ip = tx->hdr + tx->l3_off, *l4 = tx->hdr + tx->l4_off;
	uint32_t sum = 0, doff = (uint32_t)(l4[12] >> 4) * 4;

	if (tx->hdr_len > HV_TX_HDR_MAX || tx->nsge > HV_TX_SEG_MAX || tx->l3_off != h->l2_len || tx->l4_off <= tx->l3_off)
		host_fail(h, "hv_tx: header offsets");
	if (memcmp(tx->hdr, h->l2, h->l2_len) != 0)
		host_fail(h, "hv_tx: link-layer header");
	if (tx->l4_off + doff != tx->hdr_len)
		host_fail(h, "hv_tx: data offset does not end at hdr_len");
	for (uint32_t i = 0; i < tx->nsge; i++) {
		sum += tx->sge[i].len;
		if (tx->sge[i].len == 0)
			host_fail(h, "hv_tx: empty sge");
		if (!tx->inline_ok && !in_chunk(h, &tx->sge[i]))
			host_fail(h, "hv_tx: sge outside of the chunks");
	}
	if (sum != tx->payload)
		host_fail(h, "hv_tx: payload is not the sum of the sges");
	if (tx->mss != 0 && (tx->payload <= tx->mss || tx->payload > h->env.tso_max))
		host_fail(h, "hv_tx: TSO size");
	if (ip[0] >> 4 == 4) {
		if (be16(ip + 2) != tx->hdr_len - tx->l3_off + tx->payload)
			host_fail(h, "hv_tx: IPv4 total length");
		if ((ip[6] & 0x40) == 0)
			host_fail(h, "hv_tx: DF not set");
	} else if (be16(ip + 4) != tx->hdr_len - tx->l4_off + tx->payload) {
		host_fail(h, "hv_tx: IPv6 payload length");
	}
	if (be16(l4 + 16) != 0)
		host_fail(h, "hv_tx: TCP checksum field not zero");
}

void host_post(struct host *h, const struct hv_tx *tx, host_wire_fn *fn, void *arg)
{
	struct host_wqe *w = &h->sq[h->env.sq_next % HOST_SQ];
	uint8_t *data = malloc(tx->payload + 1u), frame[HV_TX_HDR_MAX + 65536];
	uint32_t off = 0, n = 0, step = tx->mss != 0 ? tx->mss : tx->payload, seq = be32(tx->hdr + tx->l4_off + 4);

	assert(data != NULL && host_sq_room(h));
	check_tx(h, tx);
	if (h->fail != NULL) {
		free(data);
		return;
	}
	w->nsge = 0;
	for (uint32_t i = 0; i < tx->nsge; i++) {
		memcpy(data + n, tx->sge[i].addr, tx->sge[i].len);
		n += tx->sge[i].len;
		if (!tx->inline_ok)
			w->sge[w->nsge++] = tx->sge[i];
	}
	w->sum = sge_sum(w->sge, w->nsge);
	h->env.sq_next++;
	do {
		uint32_t len = tx->payload - off < step ? tx->payload - off : step, l3_len = tx->hdr_len - tx->l3_off + len;
		uint8_t *ip = frame + tx->l3_off, *l4 = frame + tx->l4_off;
		bool last = off + len == tx->payload;
		memcpy(frame, tx->hdr, tx->hdr_len);
		memcpy(frame + tx->hdr_len, data + off, len);
		if (ip[0] >> 4 == 4) {
			put16(ip + 2, l3_len);
			if (tx->mss != 0)
				put16(ip + 4, h->ip_id++);
		} else {
			put16(ip + 4, l3_len - 40);
		}
		put32(l4 + 4, seq + off);
		if (!last)
			l4[13] &= 0xf6; /* FIN and PSH belong to the last segment */
		if (off != 0)
			l4[13] &= 0x7f; /* CWR to the first */
		host_fill_csum(frame, tx->l3_off, tx->l4_off, tx->hdr_len + len);
		fn(arg, frame, tx->hdr_len + len);
		off += len;
	} while (off < tx->payload);
	free(data);
}
