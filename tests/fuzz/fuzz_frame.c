/*
 * fuzz_frame.c - octets from the network into the frame parser, the checksums, the option parser and UDP.
 *
 * Exact-size copies make every octet read too many visible to AddressSanitizer. Checked beyond that: what a parser returns lies inside
 * the frame.
 */
#include "stack/frame.h"
#include "stack/tcp.h"
#include "stack/udp.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void udp(const struct hv_frame *f)
{
	struct hv_env env = { 0 };
	struct hv_udp u;
	struct hv_dgram d;
	struct hv_buf b = { 0 };
	uint32_t l3_len = f->l3_len;
	uint8_t *slot = malloc(l3_len);

	assert(slot != NULL);
	memcpy(slot, f->l3, l3_len);
	b.base = b.data = slot;
	b.len = b.cap = l3_len;
	hv_udp_init(&u, &f->tuple, 65536);
	if (hv_udp_input(&u, &b, slot, l3_len, true) == HV_UDP_KEPT) {
		assert(hv_udp_peek(&u, &d));
		assert(d.data >= slot && d.data + d.len <= slot + l3_len);
		assert(hv_tuple_eq(&d.tuple, &f->tuple));
		hv_udp_pop(&u, &env);
		assert(env.free_rx == &b && env.n_free_rx == 1 && u.count == 0 && u.octets == 0);
	}
	free(slot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *frame;
	struct hv_frame f;
	struct hv_seg s;

	if (size > 4096)
		return 0;
	frame = malloc(size != 0 ? size : 1);
	assert(frame != NULL);
	if (size != 0)
		memcpy(frame, data, size);
	if (hv_frame_parse(frame, (uint32_t)size, &f)) {
		assert(f.l3 >= frame && f.l4 > f.l3 && f.l3 + f.l3_len <= frame + size);
		assert(f.l4 + f.l4_len <= frame + size);
		assert(f.tuple.proto == 6 || f.tuple.proto == 17);
		(void)hv_frame_csum_ok(&f);
		(void)hv_tuple_hash(&f.tuple);
		if (f.tuple.proto == 17)
			udp(&f);
		if (f.tuple.proto == 6 && hv_tcp_parse(f.l4, f.l4_len, &s)) {
			assert(s.data >= f.l4 + 20 && s.data + s.len == f.l4 + f.l4_len);
			assert(s.nsack <= 4);
		}
	}
	(void)hv_tcp_parse(frame, (uint32_t)size, &s); /* and as if it were a bare layer 4 header */
	free(frame);
	return 0;
}
