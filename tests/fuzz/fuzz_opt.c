/*
 * fuzz_opt.c - TCP options by themselves: the input is option space, which the parser and a second one written here must read alike.
 *
 * The octets lie at the end of an exact allocation, so that AddressSanitizer sees each one read too many. The input's first octet says how
 * much payload follows the options.
 */
#include "stack/opt.h"
#include "stack/tcp.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The length that the option at o[0..n) claims and may have; 0: the parse ends here. */
static uint32_t option_len(const uint8_t *o, uint32_t n)
{
	if (o[0] == 0)
		return 0;
	if (o[0] == 1)
		return 1;
	return n >= 2 && o[1] >= 2 && o[1] <= n ? o[1] : 0;
}

static void expect(const uint8_t *o, uint32_t n, struct hv_seg *s)
{
	uint32_t len;

	for (; n != 0 && (len = option_len(o, n)) != 0; o += len, n -= len) {
		if (o[0] == 8 && len == 10 && !s->has_ts) {
			s->has_ts = true;
			s->tsval = get32(o + 2);
			s->tsecr = get32(o + 6);
		}
		if (o[0] == 5 && s->nsack == 0 && (len == 10 || len == 18 || len == 26 || len == 34)) {
			s->nsack = (uint8_t)(len / 8);
			for (uint32_t i = 0; i < s->nsack; i++) {
				s->sack[i][0] = get32(o + 2 + 8 * i);
				s->sack[i][1] = get32(o + 6 + 8 * i);
			}
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hv_seg got, want;
	uint32_t n, payload;
	uint8_t *l4;

	if (size == 0 || size > 41)
		return 0;
	payload = data[0] % 8u;
	n = ((uint32_t)size - 1) & ~3u;
	l4 = calloc(1, 20 + n + payload);
	assert(l4 != NULL);
	l4[12] = (uint8_t)((20 + n) << 2);
	memcpy(l4 + 20, data + 1, n);
	memset(&got, 0xa5, sizeof got);
	memset(&want, 0, sizeof want);
	expect(l4 + 20, n, &want);
	assert(hv_tcp_parse(l4, 20 + n + payload, &got));
	assert(got.len == payload && got.data == l4 + 20 + n);
	assert(got.has_ts == want.has_ts && got.tsval == want.tsval && got.tsecr == want.tsecr);
	assert(got.nsack == want.nsack && memcmp(got.sack, want.sack, got.nsack * sizeof got.sack[0]) == 0);
	/* one octet less than the header says: refused */
	assert(!hv_tcp_parse(l4, 20 + n - 1, &got));
	free(l4);
	return 0;
}
