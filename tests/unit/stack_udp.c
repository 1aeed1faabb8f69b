/*
 * stack_udp.c - UDP as pure functions: what is accepted, how much is queued, what is built.
 */
#include "stack_rig.h"

#include "stack/udp.h"

static const struct hv_tuple local4 = { .family = 4, .proto = 17, .lport = 0x0035, .rport = 0x1027, .laddr = { 10, 0, 0, 1 }, .raddr = { 10,
    0, 0, 2 } };
static const struct hv_tuple local6 = { .family = 6, .proto = 17, .lport = 0x0035, .rport = 0x1027, .laddr = { 0xfd, [15] = 1 },
    .raddr = { 0xfd, [15] = 2 } };

static struct hv_tuple peer_of(const struct hv_tuple *t)
{
	struct hv_tuple p = *t;

	p.lport = t->rport;
	p.rport = t->lport;
	memcpy(p.laddr, t->raddr, 16);
	memcpy(p.raddr, t->laddr, 16);
	return p;
}

static void start(struct host *h)
{
	struct host_conf c = { .n_rx = 32, .ring = 32, .rx_cap = 2048, .n_tx = 1, .tx_cap = 64 };

	host_init(h, &c);
}

static enum hv_udp_in put(struct host *h, struct hv_udp *u, const struct hv_tuple *from, uint32_t len, bool zero, bool verdict, uint32_t cut)
{
	uint8_t data[1500], frame[2048];

	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 7 + len);
	uint32_t n = udp_build(frame, from, data, len, zero);
	struct hv_buf *b = host_rx(h, frame, n);
	assert_non_null(b);
	enum hv_udp_in r = hv_udp_input(u, b, b->base + 14, n - 14 - cut, verdict);
	if (r != HV_UDP_KEPT)
		host_put(h, b);
	host_refill(h);
	return r;
}

static void end(struct host *h, struct hv_udp *u)
{
	hv_udp_release(u, &h->env);
	assert_int_equal(u->count, 0);
	assert_int_equal(u->octets, 0);
	assert_true(host_conserved(h));
	host_destroy(h);
}

static void receive(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_dgram d;

	(void)state;
	for (int i = 0; i < 2; i++) {
		const struct hv_tuple *t = i != 0 ? &local6 : &local4;
		struct hv_tuple from = peer_of(t), other;
		start(&h);
		hv_udp_init(&u, t, 1u << 20);
		assert_false(hv_udp_peek(&u, &d));
		for (uint32_t len = 0; len < 1400; len += 100) { /* an empty datagram is a datagram */
			assert_true(put(&h, &u, &from, len, false, false, 0));
			assert_true(hv_udp_peek(&u, &d));
			assert_int_equal(d.len, len);
			for (uint32_t k = 0; k < len; k++)
				assert_int_equal(d.data[k], (uint8_t)(k * 7 + len));
			assert_true(hv_tuple_eq(&d.tuple, t));
			hv_udp_pop(&u, &h.env);
			assert_false(hv_udp_peek(&u, &d));
		}
		other = from;
		other.lport++;
		assert_false(put(&h, &u, &other, 5, false, true, 0)); /* connected: only the peer */
		other = from;
		other.raddr[1] ^= 1;
		assert_false(put(&h, &u, &other, 5, false, true, 0));
		end(&h, &u);
	}
}

static void unconnected_and_order(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_dgram d;
	struct hv_tuple t = local4, from = peer_of(&local4);

	(void)state;
	start(&h);
	t.rport = 0;
	memset(t.raddr, 0, 16);
	hv_udp_init(&u, &t, 1u << 20);
	for (uint32_t i = 0; i < HV_UDP_SLOTS; i++) {
		from.lport = (uint16_t)(100 + i);
		from.laddr[3] = (uint8_t)(50 + i);
		assert_true(put(&h, &u, &from, i + 1, false, true, 0));
	}
	for (uint32_t i = 0; i < HV_UDP_SLOTS; i++) {
		assert_true(hv_udp_peek(&u, &d));
		assert_int_equal(d.len, i + 1);
		assert_int_equal(d.tuple.rport, 100 + i);
		assert_int_equal(d.tuple.raddr[3], 50 + i);
		hv_udp_pop(&u, &h.env);
	}
	from.rport++;
	assert_false(put(&h, &u, &from, 1, false, true, 0));
	end(&h, &u);
}

static void zero_checksum(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_tuple from = peer_of(&local4);

	(void)state;
	start(&h);
	hv_udp_init(&u, &local4, 1u << 20);
	assert_true(put(&h, &u, &from, 20, true, false, 0)); /* RFC 768: no checksum */
	assert_true(put(&h, &u, &from, 20, true, true, 0));
	hv_udp_release(&u, &h.env);
	from = peer_of(&local6);
	hv_udp_init(&u, &local6, 1u << 20);
	assert_false(put(&h, &u, &from, 20, true, false, 0)); /* RFC 8200 8.1: an error */
	assert_false(put(&h, &u, &from, 20, true, true, 0));
	end(&h, &u);
}

static void damaged(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_tuple from = peer_of(&local4);
	uint8_t frame[2048], data[100] = { 1 };

	(void)state;
	start(&h);
	hv_udp_init(&u, &local4, 1u << 20);
	uint32_t n = udp_build(frame, &from, data, 100, false);
	for (uint32_t bit = 14 * 8; bit < n * 8; bit += 3) {
		frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
		struct hv_buf *b = host_rx(&h, frame, n);
		assert_non_null(b);
		assert_false(hv_udp_input(&u, b, b->base + 14, n - 14, false));
		host_put(&h, b);
		host_refill(&h);
		frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (uint32_t cut = 1; cut < 100 + 28; cut += 9)
		assert_false(put(&h, &u, &from, 100, false, true, cut));
	/* UDP length shorter than the IP payload: the rest is not data; below 8 or beyond the packet: malformed. */
	static const struct { uint32_t ulen; bool ok; } l[] = { { 7, false }, { 0, false }, { 8, true }, { 50, true }, { 108, true }, { 109,
	    false }, { 65535, false } };
	for (uint32_t i = 0; i < sizeof l / sizeof l[0]; i++) {
		struct hv_dgram d;
		n = udp_build(frame, &from, data, 100, true);
		frame[38] = (uint8_t)(l[i].ulen >> 8);
		frame[39] = (uint8_t)l[i].ulen;
		struct hv_buf *b = host_rx(&h, frame, n);
		assert_non_null(b);
		bool kept = hv_udp_input(&u, b, b->base + 14, n - 14, true) == HV_UDP_KEPT;
		assert_int_equal(kept, l[i].ok);
		if (kept) {
			assert_true(hv_udp_peek(&u, &d));
			assert_int_equal(d.len, l[i].ulen - 8);
			hv_udp_pop(&u, &h.env);
		} else {
			host_put(&h, b);
		}
		host_refill(&h);
	}
	end(&h, &u);
}

/* As on a Linux host: a datagram of one octet costs as much as its socket buffer, 768 octets. */
static void queue_limit(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_tuple from = peer_of(&local4);
	static uint64_t store[16384 / 8 + 8192];
	uint32_t n = 0;

	(void)state;
	start(&h);
	hv_udp_init(&u, &local4, 16384);
	assert_true(sizeof store >= hv_udp_store_size(16384));
	while (n < 100 && put(&h, &u, &from, 1, false, true, 0)) {
		n++;
		if (hv_udp_wants_store(&u)) {
			u.store = (uint8_t *)store;
			u.store_cap = hv_udp_store_size(16384);
		}
	}
	assert_int_equal(n, 16384 / 768);
	assert_int_equal(u.drops, 1);
	assert_int_equal(u.count, n);
	assert_int_equal(u.slots, HV_UDP_SLOTS); /* what waits doesn't keep the ring's buffers */
	assert_false(put(&h, &u, &from, 1, false, true, 0));
	assert_int_equal(u.drops, 2);
	hv_udp_pop(&u, &h.env);
	assert_int_equal(put(&h, &u, &from, 1, false, true, 0), HV_UDP_COPIED);
	hv_udp_release(&u, &h.env);
	hv_udp_init(&u, &local4, 1); /* an empty queue takes one datagram, however small SO_RCVBUF is */
	assert_true(put(&h, &u, &from, 1000, false, true, 0));
	assert_false(put(&h, &u, &from, 1000, false, true, 0));
	hv_udp_release(&u, &h.env);
	hv_udp_init(&u, &local4, 1u << 20); /* no memory for a store: full with the buffers that it may keep */
	for (n = 0; n < HV_UDP_SLOTS; n++)
		assert_int_equal(put(&h, &u, &from, 1, false, true, 0), HV_UDP_KEPT);
	assert_int_equal(put(&h, &u, &from, 1, false, true, 0), HV_UDP_DROP);
	end(&h, &u);
	assert_int_equal(hv_udp_charge(29), 768);
	assert_int_equal(hv_udp_charge(1500), 2304);
	for (uint32_t len = 28; len < 65536; len++)
		assert_true(hv_udp_charge(len) >= ((len + 15u) & ~7u));
}

/* Readers that fall behind and catch up, at random: order, contents and accounting, over many times the size of the store. */
static void store_wraps(void **state)
{
	struct host h;
	struct hv_udp u;
	struct hv_dgram d;
	struct hv_tuple from = peer_of(&local4), t = local4;
	static uint64_t store[6000 / 8];
	uint32_t in = 0, out = 0, wraps = 0, last = 0, rnd = 1, most = 0;

	(void)state;
	start(&h);
	t.rport = 0;
	memset(t.raddr, 0, 16);
	hv_udp_init(&u, &t, 40000);
	u.store = (uint8_t *)store;
	u.store_cap = sizeof store; /* too small for what SO_RCVBUF allows, and not a power of two: it must hold all the same */
	for (uint32_t step = 0; step < 200000; step++) {
		rnd = rnd * 1664525u + 1013904223u;
		if ((rnd >> 16 & 63) < 34 - (step >> 12 & 3)) {
			from.lport = (uint16_t)in; /* the datagram's number */
			if (put(&h, &u, &from, (in * 37) % 1473, false, true, 0))
				in++;
			continue;
		}
		if (!hv_udp_peek(&u, &d)) {
			assert_int_equal(in, out);
			assert_int_equal(u.octets, 0);
			assert_int_equal(u.store_head | u.store_tail | u.slots, 0);
			continue;
		}
		uint32_t len = (out * 37) % 1473;
		assert_int_equal(d.tuple.rport, (uint16_t)out);
		assert_int_equal(d.len, len);
		assert_int_equal(d.l3_len, len + 28);
		for (uint32_t k = 0; k < len; k += 13)
			assert_int_equal(d.data[k], (uint8_t)(k * 7 + len));
		hv_udp_pop(&u, &h.env);
		host_refill(&h);
		out++;
		wraps += u.store_head < last;
		last = u.store_head;
		most = u.count > most ? u.count : most;
		assert_true(u.slots <= HV_UDP_SLOTS && u.store_head <= u.store_cap && u.store_tail <= u.store_cap);
	}
	assert_true(wraps > 100 && most > HV_UDP_SLOTS + 2 && u.drops > 1000 && out > 50000);
	end(&h, &u);
}

static void build(void **state)
{
	uint8_t l2[18] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0 }, frame[2048];
	struct hv_frame f;
	struct hv_tx tx;

	(void)state;
	for (int i = 0; i < 4; i++) {
		const struct hv_tuple *t = (i & 1) != 0 ? &local6 : &local4;
		uint32_t l2_len = (i & 2) != 0 ? 18 : 14, et = (i & 1) != 0 ? 0x86dd : 0x0800, ipl = (i & 1) != 0 ? 40 : 20;
		l2[12] = 0x81;
		l2[13] = 0;
		l2[15] = 9;
		l2[l2_len - 2] = (uint8_t)(et >> 8);
		l2[l2_len - 1] = (uint8_t)et;
		uint32_t most = 1500 - ipl - 8;
		for (uint32_t len = 0; len <= most; len += len == 0 ? 1 : most / 8) {
			memset(&tx, 0xaa, sizeof tx);
			assert_true(hv_udp_build(&tx, t, l2, l2_len, len, 1500, 33, 0x10, 77));
			assert_int_equal(tx.mss, 0);
			assert_int_equal(tx.hdr_len, l2_len + ipl + 8);
			assert_int_equal(tx.l3_off, l2_len);
			assert_int_equal(tx.l4_off, l2_len + ipl);
			memcpy(frame, tx.hdr, tx.hdr_len);
			memset(frame + tx.hdr_len, 3, len);
			host_fill_csum(frame, tx.l3_off, tx.l4_off, tx.hdr_len + len);
			assert_true(hv_frame_parse(frame, tx.hdr_len + len, &f));
			assert_true(hv_frame_csum_ok(&f));
			struct hv_tuple back = peer_of(&f.tuple);
			assert_true(hv_tuple_eq(&back, t));
			assert_int_equal(f.l4_len, len + 8);
			assert_int_equal(f.ttl, 33);
			assert_int_equal(f.tos, 0x10);
		}
		assert_true(hv_udp_build(&tx, t, l2, l2_len, most, 1500, 1, 0, 0));
		assert_false(hv_udp_build(&tx, t, l2, l2_len, most + 1, 1500, 1, 0, 0));
		assert_false(hv_udp_build(&tx, t, l2, l2_len, 65536, 0xffffffffu, 1, 0, 0));
		assert_false(hv_udp_build(&tx, t, l2, l2_len, 0xfffffff8u, 1500, 1, 0, 0)); /* no wrap-around */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(receive), cmocka_unit_test(unconnected_and_order),
	    cmocka_unit_test(zero_checksum),
		cmocka_unit_test(damaged), cmocka_unit_test(queue_limit), cmocka_unit_test(store_wraps), cmocka_unit_test(build) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
