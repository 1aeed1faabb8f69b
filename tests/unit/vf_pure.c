/* Parts of src/vf that touch no device: division of memory, steering rules in verbs form, software checksums, reasons. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/conf.h"
#include "vf/internal.h"

static void plan_every_shape(void **state)
{
	static const uint32_t mtus[] = { 68, 576, 1280, 1500, 2030, 2031, 4000, 9000, 65535 };
	static const uint32_t depths[] = { 64, 100, 1024, 2048, 32768 };
	unsigned made = 0;

	(void)state;
	for (unsigned m = 0; m < sizeof mtus / sizeof *mtus; m++) {
		for (unsigned d = 0; d < sizeof depths / sizeof *depths; d++) {
			for (uint32_t mb = 1; mb <= 2048; mb *= 2) {
				struct hv_vf_limits lim = { .mem_bytes = mb << 20, .rx_slots = depths[d], .tx_slots = depths[d] };
				struct hv_vf_plan p;

				if (!hv_vf_plan(&p, mtus[m], &lim, 8192))
					continue;
				made++;
				assert_true(p.rx_size >= mtus[m] + 18 && p.rx_size >= 2048);
				assert_true(p.slot_size >= HV_TX_HDR_MAX + mtus[m] && p.slot_size % 64 == 0);
				assert_true(p.sq >= 16 && (p.sq & (p.sq - 1)) == 0 && p.sq <= depths[d] && p.sq <= 8192);
				assert_true(p.rq >= 16 && p.rq <= depths[d] && p.rq <= 8192 && p.rx_bufs >= 2 * p.rq);
				assert_true(p.chunks >= HV_TX_SEG_MAX);
				/* areas follow each other without overlap, and the ceiling holds */
				assert_true(p.off_rx + (size_t)p.rx_bufs * p.rx_size <= p.off_chunk && p.off_chunk % 4096 == 0);
				assert_true(p.off_chunk + (size_t)p.chunks * HV_VF_CHUNK == p.off_slot);
				assert_true(p.off_slot + (size_t)p.sq * p.slot_size <= p.total && p.total <= lim.mem_bytes);
			}
		}
	}
	assert_true(made > 300);
}

static void plan_usual(void **state)
{
	struct hv_vf_limits lim = { .mem_bytes = 16 << 20, .rx_slots = 2048, .tx_slots = 1024 };
	struct hv_vf_plan p;

	(void)state;
	assert_true(hv_vf_plan(&p, 1500, &lim, 32768));
	assert_int_equal(p.rx_size, 2048);
	assert_int_equal(p.rq, 2048);
	assert_int_equal(p.rx_bufs, 4096);
	assert_int_equal(p.sq, 1024);
	assert_true(p.chunks * HV_VF_CHUNK > 6u << 20);
	lim.mem_bytes = 2 << 20; /* the least that the tunable allows, with the largest common MTU */
	assert_true(hv_vf_plan(&p, 9000, &lim, 32768));
	lim.mem_bytes = 64 << 10;
	assert_false(hv_vf_plan(&p, 1500, &lim, 32768));
	lim.mem_bytes = 16 << 20;
	assert_false(hv_vf_plan(&p, 1500, &lim, 8)); /* a device with next to no queue */
	assert_false(hv_vf_plan(&p, 65536, &lim, 32768));
}

/* ---- rules ---- */
static struct hv_tuple tup(uint8_t family, uint8_t proto)
{
	struct hv_tuple t = { .family = family, .proto = proto, .lport = htons(80), .rport = htons(40000) };

	for (unsigned i = 0; i < (family == 4 ? 4u : 16u); i++) {
		t.laddr[i] = (uint8_t)(0x10 + i);
		t.raddr[i] = (uint8_t)(0x80 + i);
	}
	return t;
}

static const uint8_t mac[6] = { 2, 3, 4, 5, 6, 7 };

struct specs {
	struct ibv_flow_spec_eth eth;
	struct ibv_flow_spec_ipv4 ip4;
	struct ibv_flow_spec_ipv6 ip6;
	struct ibv_flow_spec_tcp_udp l4;
};

/* Walks a rule as a driver does: by type and size. */
static void take_apart(const union hv_vf_rule *r, struct specs *s)
{
	const uint8_t *p = r->buf + sizeof r->attr;
	unsigned n = 0;

	memset(s, 0, sizeof *s);
	while (p < r->buf + r->attr.size) {
		struct { uint32_t type; uint16_t size; } h;

		memcpy(&h, p, sizeof h);
		switch (h.type) {
		case IBV_FLOW_SPEC_ETH:
			assert_int_equal(h.size, sizeof s->eth);
			memcpy(&s->eth, p, h.size);
			break;
		case IBV_FLOW_SPEC_IPV4:
			assert_int_equal(h.size, sizeof s->ip4);
			memcpy(&s->ip4, p, h.size);
			break;
		case IBV_FLOW_SPEC_IPV6:
			assert_int_equal(h.size, sizeof s->ip6);
			memcpy(&s->ip6, p, h.size);
			break;
		case IBV_FLOW_SPEC_TCP:
		case IBV_FLOW_SPEC_UDP:
			assert_int_equal(h.size, sizeof s->l4);
			memcpy(&s->l4, p, h.size);
			break;
		default:
			fail_msg("spec type %x", h.type);
		}
		p += h.size;
		n++;
	}
	assert_ptr_equal(p, r->buf + r->attr.size);
	assert_int_equal(n, r->attr.num_of_specs);
	assert_int_equal(n, 3);
	assert_int_equal(r->attr.port, 1);
	assert_int_equal(r->attr.type, IBV_FLOW_ATTR_NORMAL);
	assert_int_equal(r->attr.flags, 0);
	assert_memory_equal(s->eth.val.dst_mac, mac, 6);
	assert_memory_equal(s->eth.mask.dst_mac, "\xff\xff\xff\xff\xff\xff", 6);
}

static void rule_tcp4(void **state)
{
	struct hv_tuple t = tup(4, 6);
	union hv_vf_rule r;
	struct specs s;

	(void)state;
	size_t size = hv_vf_rule(&r, &t, mac);
	assert_int_equal(size, r.attr.size);
	assert_true(size <= sizeof r);
	take_apart(&r, &s);
	assert_int_equal(r.attr.priority, 0);
	assert_int_equal(s.l4.type, IBV_FLOW_SPEC_TCP);
	assert_memory_equal(&s.ip4.val.dst_ip, t.laddr, 4); /* packets come in: our end is their destination */
	assert_memory_equal(&s.ip4.val.src_ip, t.raddr, 4);
	assert_int_equal(s.ip4.mask.dst_ip, 0xffffffff);
	assert_int_equal(s.ip4.mask.src_ip, 0xffffffff);
	assert_int_equal(s.l4.val.dst_port, t.lport);
	assert_int_equal(s.l4.val.src_port, t.rport);
	assert_int_equal(s.l4.mask.dst_port, 0xffff);
	assert_int_equal(s.l4.mask.src_port, 0xffff);
}

static void rule_udp6(void **state)
{
	struct hv_tuple t = tup(6, 17);
	union hv_vf_rule r;
	struct specs s;
	uint8_t ones[16], none[16] = { 0 };

	(void)state;
	memset(ones, 0xff, sizeof ones);
	hv_vf_rule(&r, &t, mac);
	take_apart(&r, &s);
	assert_int_equal(r.attr.priority, 0);
	assert_int_equal(s.l4.type, IBV_FLOW_SPEC_UDP);
	assert_memory_equal(s.ip6.val.dst_ip, t.laddr, 16);
	assert_memory_equal(s.ip6.mask.dst_ip, ones, 16);
	assert_memory_equal(s.ip6.val.src_ip, t.raddr, 16);
	assert_memory_equal(s.ip6.mask.src_ip, ones, 16);
	t.rport = 0; /* bound, not connected: any remote end */
	hv_vf_rule(&r, &t, mac);
	take_apart(&r, &s);
	assert_int_equal(r.attr.priority, 1);
	assert_memory_equal(s.ip6.mask.dst_ip, ones, 16);
	assert_memory_equal(s.ip6.mask.src_ip, none, 16);
	assert_int_equal(s.l4.mask.src_port, 0);
	assert_int_equal(s.l4.mask.dst_port, 0xffff);
	memset(t.laddr, 0, sizeof t.laddr); /* bound to any address */
	hv_vf_rule(&r, &t, mac);
	take_apart(&r, &s);
	assert_int_equal(s.ip6.type, IBV_FLOW_SPEC_IPV6); /* the family still counts */
	assert_memory_equal(s.ip6.mask.dst_ip, none, 16);
	assert_int_equal(s.l4.val.dst_port, t.lport);
}

/* ---- checksums: the receiver's sum over everything, pseudo header included, is all ones (RFC 1071) ---- */
static uint16_t slow_sum(const uint8_t *p, size_t n, uint32_t start)
{
	for (size_t i = 0; i < n; i++)
		start += (uint32_t)p[i] << (i % 2 == 0 ? 8 : 0);
	while (start >> 16)
		start = (start & 0xffff) + (start >> 16);
	return (uint16_t)start;
}

static void one_frame(unsigned family, unsigned proto, uint32_t payload, unsigned pieces, unsigned seed)
{
	uint32_t l4 = proto == 6 ? 32 : 8, ipl = family == 4 ? 20 : 40;
	uint8_t data[4096], whole[8192];
	uint32_t at = 0, n, pseudo;
	struct hv_tx tx;

	srandom(seed);
	for (unsigned i = 0; i < payload; i++)
		data[i] = (uint8_t)random();
	memset(&tx, 0, sizeof tx);
	for (unsigned i = 0; i < sizeof tx.hdr; i++)
		tx.hdr[i] = (uint8_t)random(); /* also where the checksums go */
	tx.l3_off = 14;
	tx.l4_off = (uint8_t)(14 + ipl);
	tx.hdr_len = (uint16_t)(tx.l4_off + l4);
	tx.payload = payload;
	tx.hdr[14] = family == 4 ? 0x45 : 0x60;
	tx.hdr[family == 4 ? 23 : 20] = (uint8_t)proto;
	for (unsigned i = 0; i < pieces; i++) {
		n = i + 1 == pieces ? payload - at : (uint32_t)random() % (payload - at + 1);
		tx.sge[tx.nsge++] = (struct hv_sge){ .addr = data + at, .len = n };
		at += n;
	}
	memcpy(whole, tx.hdr, tx.hdr_len);
	hv_vf_txsum(&tx, whole);
	memcpy(whole + tx.hdr_len, data, payload);
	if (family == 4)
		assert_int_equal(slow_sum(whole + 14, 20, 0), 0xffff);
	pseudo = slow_sum(whole + (family == 4 ? 26 : 22), family == 4 ? 8 : 32, proto + l4 + payload);
	assert_int_equal(slow_sum(whole + tx.l4_off, l4 + payload, pseudo), 0xffff);
	if (proto == 17)
		assert_true(whole[tx.l4_off + 6] != 0 || whole[tx.l4_off + 7] != 0);
}

static void checksums(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4000; i++)
		one_frame(i % 2 ? 4 : 6, i % 4 < 2 ? 6 : 17, i % 1500, 1 + i % HV_TX_SEG_MAX, i);
}

static void checksum_zero_is_ones(void **state)
{
	struct hv_tx tx = { .l3_off = 14, .l4_off = 34, .hdr_len = 42 };
	uint8_t h[HV_TX_HDR_MAX] = { 0 };

	(void)state;
	h[14] = 0x45;
	h[23] = 17;
	h[34] = 0xff; /* ports and pseudo header: 17 + 8 + 0xffe6 = 0xffff */
	h[35] = 0xe6;
	hv_vf_txsum(&tx, h);
	assert_int_equal(h[40] << 8 | h[41], 0xffff);
}

/* ---- reasons ---- */
static void reasons(void **state)
{
	struct rlimit r;

	(void)state;
	for (int i = HV_VF_OK; i <= HV_VF_OTHER; i++) {
		const char *t = hv_vf_why_text((enum hv_vf_why)i);

		assert_non_null(t);
		assert_true(strlen(t) > 5 && strchr(t, '\n') == NULL);
		for (int k = HV_VF_OK; k < i; k++)
			assert_string_not_equal(t, hv_vf_why_text((enum hv_vf_why)k));
	}
	assert_int_equal(hv_verbs_why(EPERM, HV_VF_NO_RAW_QP), HV_VF_EPERM);
	assert_int_equal(hv_verbs_why(EACCES, HV_VF_NO_DEVICE), HV_VF_EPERM);
	assert_int_equal(hv_verbs_why(EBUSY, HV_VF_NO_FLOW), HV_VF_BUSY);
	assert_int_equal(hv_verbs_why(EOPNOTSUPP, HV_VF_NO_FLOW), HV_VF_NO_FLOW);
	assert_int_equal(hv_verbs_why(EINVAL, HV_VF_NO_RAW_QP), HV_VF_NO_RAW_QP);
	assert_int_equal(hv_verbs_why(EIO, HV_VF_NO_RAW_QP), HV_VF_NO_DEVICE);
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &r), 0);
	assert_int_equal(hv_verbs_why(ENOMEM, HV_VF_OTHER), r.rlim_cur == RLIM_INFINITY ? HV_VF_NOMEM : HV_VF_MEMLOCK);
}

/* Neither a missing library nor one that isn't libibverbs leaves anything behind, errno included. */
static void no_library(void **state)
{
	struct hv_vf_pair p = { .running = true };
	struct hv_vf_limits lim = { .mem_bytes = 4 << 20, .rx_slots = 64, .tx_slots = 64 };
	struct hv_vf *vf = (struct hv_vf *)(void *)state;
	int err = 0;

	hv_conf.verbs = "/nonexistent/libibverbs.so.1";
	errno = 99;
	assert_int_equal(hv_vf_open(&vf, &p, &lim, &err), HV_VF_NO_LIBRARY);
	assert_null(vf);
	assert_int_equal(err, ENOENT);
	hv_conf.verbs = "libm.so.6";
	assert_int_equal(hv_vf_open(&vf, &p, &lim, &err), HV_VF_NO_LIBRARY);
	assert_int_equal(errno, 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan_every_shape), cmocka_unit_test(plan_usual), cmocka_unit_test(rule_tcp4), cmocka_unit_test(rule_udp6),
		cmocka_unit_test(checksums), cmocka_unit_test(checksum_zero_is_ones), cmocka_unit_test(reasons), cmocka_unit_test(no_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
