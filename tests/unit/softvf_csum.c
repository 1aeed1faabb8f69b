/*
 * softvf_csum.c - checksums of softvf against RFC 1071 octet by octet: every length, alignment and kind of frame.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "softvf/sv_csum.h"

#define ROOM 1600u

static uint32_t seed = 1;

static uint32_t any(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

/* The sum of 16-bit words in network order. */
static uint32_t plain(const uint8_t *p, uint32_t n, uint32_t s)
{
	for (uint32_t i = 0; i < n; i++) {
		s += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
		s = (s & 0xffff) + (s >> 16);
	}
	return s;
}

struct kind {
	uint32_t tag, hl, tail; /* octets of tag; of the IP header; of padding behind the packet */
	uint8_t ver, proto;
	bool fragment;
};

/* Returns where the layer 4 header is. */
static uint32_t make(uint8_t *f, const struct kind *k, uint32_t l4_len)
{
	uint32_t l3 = 14 + k->tag, l4 = l3 + k->hl, tot = k->hl + l4_len, n = l4 + l4_len + k->tail;

	for (uint32_t i = 0; i < n; i++)
		f[i] = (uint8_t)(any(4) == 0 ? 0xff : any(256));
	if (k->tag != 0)
		memcpy(f + 12, "\x81\x00\x00\x07", 4);
	memcpy(f + l3 - 2, k->ver == 4 ? "\x08\x00" : "\x86\xdd", 2);
	if (k->ver == 4) {
		f[l3] = (uint8_t)(0x40 | k->hl / 4);
		f[l3 + 2] = (uint8_t)(tot >> 8);
		f[l3 + 3] = (uint8_t)tot;
		f[l3 + 6] = k->fragment ? 0x20 : any(2) != 0 ? 0x40 : 0;
		f[l3 + 7] = 0;
		f[l3 + 9] = k->proto;
	} else {
		f[l3] = 0x60;
		f[l3 + 4] = (uint8_t)(l4_len >> 8);
		f[l3 + 5] = (uint8_t)l4_len;
		f[l3 + 6] = k->proto;
	}
	return l4;
}

static uint32_t l4_sum(const uint8_t *f, const struct kind *k, uint32_t l4, uint32_t n)
{
	uint32_t s = k->ver == 4 ? plain(f + l4 - k->hl + 12, 8, 0) : plain(f + l4 - k->hl + 8, 32, 0);

	return plain(f + l4, n, s + k->proto + n);
}

static void frames(void **state)
{
	static const struct kind kinds[] = {
		{ .hl = 20, .ver = 4, .proto = 6 }, { .hl = 20, .ver = 4, .proto = 17 }, { .hl = 20, .ver = 4, .proto = 6, .tail = 5 },
		{ .hl = 24, .ver = 4, .proto = 6 }, { .tag = 4, .hl = 20, .ver = 4, .proto = 17 }, { .hl = 40, .ver = 6, .proto = 6 },
		{ .hl = 40, .ver = 6, .proto = 17 },
	};
	static uint8_t room[ROOM + 8], was[ROOM + 8];

	(void)state;
	for (uint32_t turn = 0; turn < 3; turn++)
		for (const struct kind *k = kinds; k < kinds + sizeof kinds / sizeof *kinds; k++)
			for (uint32_t n = k->proto == 6 ? 20 : 8; n < (turn == 0 ? 1500 : 200); n++) {
				uint8_t *f = room + any(8);
				uint32_t l4 = make(f, k, n), len = l4 + n + k->tail, at = l4 + (k->proto == 6 ? 16 : 6);

				sv_csum_fill(f, len);
				if (k->ver == 4)
					assert_int_equal(plain(f + l4 - k->hl, k->hl, 0), 0xffff);
				assert_int_equal(l4_sum(f, k, l4, n), 0xffff);
				assert_true(k->proto == 6 || (f[at] | f[at + 1]) != 0);
				assert_int_equal(sv_csum_ok4(f, len), k->ver == 4);
				memcpy(was, f, len); /* again: the fields that it finds don't matter, nothing else changes */
				sv_csum_fill(f, len);
				assert_memory_equal(f, was, len);
				if (k->ver == 4) {
					uint32_t i = any(2) != 0 ? l4 - k->hl + 12 + any(8) : l4 + any(n);

					f[i] ^= (uint8_t)(1u << any(8));
					assert_false(sv_csum_ok4(f, len));
				}
			}
}

static void left_alone(void **state)
{
	static const struct kind part = { .hl = 20, .ver = 4, .proto = 17, .fragment = true }, icmp = { .hl = 20, .ver = 4, .proto = 1 },
				 udp = { .hl = 20, .ver = 4, .proto = 17 };
	uint8_t f[ROOM], was[ROOM];
	uint32_t l4;

	(void)state;
	for (const struct kind *k = &part; k != NULL; k = k == &part ? &icmp : NULL) {
		l4 = make(f, k, 100); /* only the header of IP */
		memcpy(was, f, sizeof was);
		sv_csum_fill(f, l4 + 100);
		assert_int_equal(plain(f + 14, 20, 0), 0xffff);
		assert_memory_equal(f + l4, was + l4, 100);
		assert_false(sv_csum_ok4(f, l4 + 100));
	}
	l4 = make(f, &udp, 50);
	memcpy(was, f, sizeof was);
	for (uint32_t len = 0; len < l4 + 50; len++) { /* cut off */
		sv_csum_fill(f, len);
		assert_memory_equal(f, was, l4 + 50);
		assert_false(sv_csum_ok4(f, len));
	}
	sv_csum_fill(f, l4 + 50);
	assert_true(sv_csum_ok4(f, l4 + 50));
	f[l4 + 6] = f[l4 + 7] = 0; /* no checksum is not a good one */
	assert_false(sv_csum_ok4(f, l4 + 50));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(frames), cmocka_unit_test(left_alone) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
