/*
 * stack_wire.c - sequence arithmetic, checksums, the frame parser and the option parser against references written here.
 */
#include "stack_rig.h"
#include "../sim/prng.h"

#include "stack/seq.h"

#include <stdlib.h>

static const struct hv_tuple v4 = { .family = 4, .proto = 6, .lport = 0x1234, .rport = 0x5678, .laddr = { 192, 0, 2, 1 }, .raddr = { 192, 0,
    2, 9 } };
static const struct hv_tuple v6 = { .family = 6, .proto = 6, .lport = 0x1234, .rport = 0x5678, .laddr = { 0x20, 1, 0xd, 0xb8, [15] = 1 },
	.raddr = { 0x20, 1, 0xd, 0xb8, [15] = 2 } };

/* Definition by walking: b is after a when it is reached from a in fewer than 2^31 steps. */
static void seq_order(void **state)
{
	static const uint32_t at[] = { 0, 1, 2, 0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, 12345 };
	static const uint32_t step[] = { 0, 1, 2, 1000, 0x7ffffffe, 0x7fffffff };
	struct prng p;

	(void)state;
	prng_seed(&p, 1);
	for (uint32_t n = 0; n < 200000; n++) {
		uint32_t a = n < 60 ? at[n / 6] : (uint32_t)prng_u64(&p), d = n < 60 ? step[n % 6] : (uint32_t)prng_u64(&p) & 0x7fffffff,
		    b = a + d;
		assert_int_equal(hv_seq_lt(a, b), d != 0);
		assert_true(hv_seq_le(a, b));
		assert_int_equal(hv_seq_gt(b, a), d != 0);
		assert_true(hv_seq_ge(b, a));
		assert_false(hv_seq_lt(b, a));
		assert_int_equal(hv_seq_le(b, a), d == 0);
		assert_int_equal(hv_seq_diff(b, a), (int64_t)d);
		assert_int_equal(hv_seq_max(a, b), b);
		assert_int_equal(hv_seq_min(a, b), a);
		uint32_t x = a + (uint32_t)prng_u64(&p) % 4096;
		assert_int_equal(hv_seq_in(x, a, a + 2048), x - a < 2048);
	}
}

static void csum_reference(void **state)
{
	uint8_t b[2100];
	struct prng p;

	(void)state;
	prng_seed(&p, 2);
	for (uint32_t i = 0; i < sizeof b; i++)
		b[i] = (uint8_t)prng_u64(&p);
	for (uint32_t len = 0; len < 2048; len++) {
		uint32_t off = len % 9;
		/* The sum itself may be kept in any octet order; folded in, a whole header must come out as zero. */
		uint8_t pkt[2100];
		memcpy(pkt + off, b + off, len);
		if (len >= 4) {
			pkt[off + 2] = pkt[off + 3] = 0;
			uint16_t c = host_ref_csum(pkt + off, len, 0);
			pkt[off + 2] = (uint8_t)(c >> 8);
			pkt[off + 3] = (uint8_t)c;
			assert_int_equal(hv_csum(pkt + off, len, 0), 0);
			pkt[off + len - 1] ^= 1;
			assert_int_not_equal(hv_csum(pkt + off, len, 0), 0);
			pkt[off + len - 1] ^= 1;
		}
		/* In two parts, cut at an even place. */
		uint32_t cut = len / 2 & ~1u;
		assert_int_equal(hv_csum(pkt + off + cut, len - cut, hv_csum_partial(pkt + off, cut, 0)), hv_csum(pkt + off, len, 0));
	}
	memset(b, 0xff, sizeof b);
	assert_int_equal(hv_csum(b, 1500, 0), 0);
	memset(b, 0, sizeof b);
	assert_int_equal(hv_csum(b, 1500, 0), 0xffff);
}

static void csum_big(void **state)
{
	uint8_t *b = malloc(65536);

	(void)state;
	assert_non_null(b);
	memset(b, 0xff, 65536); /* a 32-bit sum of these comes near overflow */
	assert_int_equal(hv_csum(b, 65535, 0xffffffffu), hv_csum(b, 65535, 0xffff));
	free(b);
}

static uint32_t frame_of(uint8_t *f, const struct hv_tuple *t, uint32_t len, bool vlan)
{
	static const uint8_t data[1500] = { 1, 2, 3 };
	struct seg_spec g = { .from = t, .seq = 1, .ack = 2, .wnd = 3, .flags = SEG_ACK, .data = data, .len = len, .vlan = vlan,
	    .tos = 0xb8, .ttl = 61 };

	return seg_build(f, &g);
}

static void frame_good(void **state)
{
	uint8_t b[2048];
	struct hv_frame f;

	(void)state;
	for (int i = 0; i < 4; i++) {
		const struct hv_tuple *t = (i & 1) != 0 ? &v6 : &v4;
		bool vlan = (i & 2) != 0;
		for (uint32_t len = 0; len < 1400; len += 7) {
			uint32_t n = frame_of(b, t, len, vlan), al = t->family == 4 ? 4 : 16;
			memset(&f, 0xff, sizeof f);
			assert_true(hv_frame_parse(b, n, &f));
			assert_true(hv_frame_csum_ok(&f));
			assert_int_equal(f.tuple.family, t->family);
			assert_int_equal(f.tuple.proto, 6);
			assert_int_equal(f.tuple.lport, t->rport); /* local = destination */
			assert_int_equal(f.tuple.rport, t->lport);
			assert_memory_equal(f.tuple.laddr, t->raddr, 16);
			assert_memory_equal(f.tuple.raddr, t->laddr, 16);
			assert_int_equal(f.tuple.scope, 0);
			assert_int_equal(f.l4_len, 20 + len);
			assert_ptr_equal(f.l3, b + (vlan ? 18 : 14));
			assert_ptr_equal(f.l4, f.l3 + (al == 4 ? 20 : 40));
			assert_int_equal(f.tos, 0xb8);
			assert_int_equal(f.ttl, 61);
			assert_ptr_equal(f.src_mac, b + 6);
			/* Padding to any length is cut and is no part of the checksum. */
			memset(b + n, 0x5a, 60);
			assert_true(hv_frame_parse(b, n + 60, &f));
			assert_int_equal(f.l4_len, 20 + len);
			assert_int_equal(f.l3_len, (al == 4 ? 20 : 40) + 20 + len);
			assert_true(hv_frame_csum_ok(&f));
		}
	}
}

/* Every shorter length is refused, and nothing past the length is read (exact allocation, for sanitizers). */
static void frame_short(void **state)
{
	uint8_t b[2048];
	struct hv_frame f;

	(void)state;
	for (int i = 0; i < 4; i++) {
		uint32_t n = frame_of(b, (i & 1) != 0 ? &v6 : &v4, 10, (i & 2) != 0);
		for (uint32_t len = 0; len < n; len++) {
			uint8_t *x = malloc(len + (len == 0));
			assert_non_null(x);
			memcpy(x, b, len);
			assert_false(hv_frame_parse(x, len, &f));
			free(x);
		}
	}
}

static void frame_bad(void **state)
{
	uint8_t b[2048];
	struct hv_frame f;
	uint32_t n;

	(void)state;
	static const struct { uint32_t at; uint8_t val; } bad4[] = {
		{ 12, 0x81 }, { 13, 0x06 }, { 14, 0x55 }, { 14, 0x44 }, { 14, 0x4f }, { 14, 0x40 }, { 16, 0xff }, { 20, 0x20 }, { 21,
		    0x01 }, { 23, 1 },
		{ 23, 47 }, { 23, 132 } };
	for (uint32_t i = 0; i < sizeof bad4 / sizeof bad4[0]; i++) {
		n = frame_of(b, &v4, 10, false);
		b[bad4[i].at] = bad4[i].val;
		if (hv_frame_parse(b, n, &f) && hv_frame_csum_ok(&f))
			fail_msg("octet %u = %#x was accepted", bad4[i].at, bad4[i].val);
	}
	n = frame_of(b, &v4, 10, false);
	b[20] |= 0x20; /* first fragment */
	assert_false(hv_frame_parse(b, n, &f));
	n = frame_of(b, &v4, 10, false);
	b[21] = 1; /* later fragment */
	assert_false(hv_frame_parse(b, n, &f));
	n = frame_of(b, &v4, 10, false);
	b[17] = 19; /* total length below the header's */
	b[16] = 0;
	assert_false(hv_frame_parse(b, n, &f));
	n = frame_of(b, &v6, 10, false);
	b[14] = 0x45;
	assert_false(hv_frame_parse(b, n, &f));
	for (uint32_t nh = 0; nh < 256; nh++) {
		if (nh == 6 || nh == 17)
			continue;
		n = frame_of(b, &v6, 10, false);
		b[20] = (uint8_t)nh; /* fragment, hop-by-hop, ESP, ... */
		assert_false(hv_frame_parse(b, n, &f));
	}
}

static void frame_ip_options(void **state)
{
	uint8_t b[2048], c[2048];
	struct hv_frame f;

	(void)state;
	for (uint32_t words = 1; words <= 10; words++) {
		uint32_t n = frame_of(b, &v4, 30, false), opt = words * 4;
		memcpy(c, b, 34);
		memset(c + 34, 1, opt);
		memcpy(c + 34 + opt, b + 34, n - 34);
		c[14] = (uint8_t)(0x45 + words);
		c[16] = (uint8_t)((n - 14 + opt) >> 8);
		c[17] = (uint8_t)(n - 14 + opt);
		c[24] = c[25] = 0;
		uint16_t s = host_ref_csum(c + 14, 20 + opt, 0);
		c[24] = (uint8_t)(s >> 8);
		c[25] = (uint8_t)s;
		assert_true(hv_frame_parse(c, n + opt, &f));
		assert_int_equal(f.l4_len, 50);
		assert_ptr_equal(f.l4, c + 34 + opt);
		assert_true(hv_frame_csum_ok(&f));
	}
}

/* Every single flipped bit behind the link-layer header is noticed (IPv6: behind the fields that nothing protects). */
static void frame_bit_flips(void **state)
{
	uint8_t b[2048];
	struct hv_frame f;

	(void)state;
	for (int i = 0; i < 2; i++) {
		uint32_t n = frame_of(b, i != 0 ? &v6 : &v4, 33, false);
		for (uint32_t bit = (i != 0 ? 18u : 14u) * 8; bit < n * 8; bit++) {
			if (i != 0 && bit / 8 == 21)
				continue; /* hop limit */
			b[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_false(hv_frame_parse(b, n, &f) && hv_frame_csum_ok(&f));
			b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

/* The option parser against one of our own, on random option space with a bias to the interesting octets. */
static void ref_options(const uint8_t *o, uint32_t n, struct hv_seg *s)
{
	for (uint32_t i = 0; i < n;) {
		if (o[i] == 0)
			return;
		if (o[i] == 1) {
			i++;
			continue;
		}
		if (i + 1 >= n || o[i + 1] < 2 || i + o[i + 1] > n)
			return;
		if (o[i] == 8 && o[i + 1] == 10 && !s->has_ts) {
			s->has_ts = true;
			s->tsval = (uint32_t)o[i + 2] << 24 | (uint32_t)o[i + 3] << 16 | (uint32_t)o[i + 4] << 8 | o[i + 5];
		}
		if (o[i] == 5 && s->nsack == 0 && o[i + 1] >= 10 && (o[i + 1] - 2) % 8 == 0)
			s->nsack = (uint8_t)((o[i + 1] - 2) / 8);
		i += o[i + 1];
	}
}

static void options_random(void **state)
{
	static const uint8_t often[] = { 0, 1, 1, 2, 3, 4, 5, 8, 10, 18, 26, 34, 255 };
	struct prng p;

	(void)state;
	prng_seed(&p, 3);
	for (uint32_t n = 0; n < 300000; n++) {
		uint32_t words = n % 11, tail = n % 5;
		uint8_t *l4 = calloc(1, 20 + words * 4 + tail); /* exact: sanitizers see every octet too many */
		struct hv_seg got, want = { 0 };
		assert_non_null(l4);
		l4[12] = (uint8_t)((5 + words) << 4);
		for (uint32_t i = 0; i < words * 4; i++)
			l4[20 + i] = prng_in(&p, 0, 2) != 0 ? often[prng_in(&p, 0, sizeof often - 1)] : (uint8_t)prng_u64(&p);
		if (words >= 3 && n % 7 == 0)
			memcpy(l4 + 20, "\1\1\10\12", 4);
		memset(&got, 0xee, sizeof got);
		assert_true(hv_tcp_parse(l4, 20 + words * 4 + tail, &got));
		ref_options(l4 + 20, words * 4, &want);
		assert_int_equal(got.has_ts, want.has_ts);
		assert_int_equal(got.nsack, want.nsack);
		if (want.has_ts)
			assert_int_equal(got.tsval, want.tsval);
		assert_int_equal(got.len, tail);
		free(l4);
	}
}

static void options_zero_length(void **state)
{
	struct hv_seg s;

	(void)state;
	for (uint32_t kind = 2; kind < 256; kind++)
		for (uint32_t len = 0; len < 2; len++)
			for (uint32_t at = 0; at < 39; at++) {
				uint8_t l4[60] = { [12] = 0xf0 };
				memset(l4 + 20, 1, 40);
				l4[20 + at] = (uint8_t)kind;
				l4[21 + at] = (uint8_t)len;
				assert_true(hv_tcp_parse(l4, 60, &s)); /* and returns at all */
				assert_false(s.has_ts);
			}
}

static void header_lengths(void **state)
{
	struct hv_seg s;

	(void)state;
	for (uint32_t doff = 0; doff < 16; doff++)
		for (uint32_t len = 0; len < 64; len++) {
			uint8_t *l4 = calloc(1, len + (len == 0));
			assert_non_null(l4);
			if (len > 12)
				l4[12] = (uint8_t)(doff << 4);
			assert_int_equal(hv_tcp_parse(l4, len, &s), len >= 20 && doff >= 5 && doff * 4 <= len);
			free(l4);
		}
}

static void tuples(void **state)
{
	struct hv_tuple a = v4, b = v4;

	(void)state;
	assert_true(hv_tuple_eq(&a, &b));
	assert_int_equal(hv_tuple_hash(&a), hv_tuple_hash(&b));
	b.rport++;
	assert_false(hv_tuple_eq(&a, &b));
	b = v4;
	b.raddr[3]++;
	assert_false(hv_tuple_eq(&a, &b));
	b = v4;
	b.proto = 17;
	assert_false(hv_tuple_eq(&a, &b));
	/* Neighbouring ports and addresses spread: no bucket of 256 gets more than 40 of 4,096. */
	uint32_t fill[256] = { 0 };
	for (uint32_t i = 0; i < 4096; i++) {
		a = v4;
		a.rport = (uint16_t)(i & 0xff);
		a.raddr[3] = (uint8_t)(i >> 8);
		fill[hv_tuple_hash(&a) & 255]++;
	}
	for (uint32_t i = 0; i < 256; i++)
		assert_in_range(fill[i], 0, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(seq_order), cmocka_unit_test(csum_reference), cmocka_unit_test(csum_big),
		cmocka_unit_test(frame_good), cmocka_unit_test(frame_short), cmocka_unit_test(frame_bad),
		    cmocka_unit_test(frame_ip_options),
		cmocka_unit_test(frame_bit_flips), cmocka_unit_test(options_random), cmocka_unit_test(options_zero_length),
		cmocka_unit_test(header_lengths), cmocka_unit_test(tuples) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
