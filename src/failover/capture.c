/*
 * capture.c - a packet socket on the upper device behind an eBPF filter that knows the promoted tuples.
 *
 * A packet socket gets its copy before tc, netfilter and TCP, from the synthetic NIC as well as from what the VF hands to the kernel: both carry
 * the upper device's index by then. The filter runs for every packet of that device, so it decides on few octets: what is neither plain TCP nor
 * ICMP's "too big" never gets to the hash look-up, and one load takes TCP's addresses and ports as they lie in the packet, which is how the key is
 * laid out. A miss copies nothing.
 *
 * Tuples: kernel map operations, any thread, no lock here. Everything else belongs to the reading thread.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/capture.h"
#include "failover/internal.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 /* Linux 4.20 */
#endif

#define TUPLES_MAX 262144u
#define RCVBUF (1 << 20)

struct capture_key {
	uint8_t wire[36]; /* source, destination, ports: contiguous in both protocols; IPv4 fills the first 12 */
	uint32_t family;  /* 4 or 6 */
};
_Static_assert(sizeof(struct capture_key) == 40, "the filter builds it at fixed places below the frame pointer");

struct hv_capture {
	int fd, map;
	struct hv_capture_counters n;
};

/* ---- the filter ---- */

/* Jumps name a label; labels are pseudo instructions that resolve() takes out. */
enum { L_DROP, L_V4, L_ICMP4, L_ICMP6, L_FIND, L_COUNT };
#define LABEL_IMM 0x1abe1
#define INSN_MAX 160u

#define LABEL(n) { .code = 0, .off = (n), .imm = LABEL_IMM }
#define MOV_REG(d, s) { .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (d), .src_reg = (s) }
#define MOV_IMM(d, v) { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (d), .imm = (v) }
#define ADD_IMM(d, v) { .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (d), .imm = (v) }
#define AND_IMM(d, v) { .code = BPF_ALU64 | BPF_AND | BPF_K, .dst_reg = (d), .imm = (v) }
#define CTX(d, f) { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (d), .src_reg = 6, .off = (int16_t)offsetof(struct __sk_buff, f) }
/* From the frame into r0, in host order; clobbers r1 to r5. Beyond the end of the frame: the filter returns 0. */
#define PKT(size, o) { .code = BPF_LD | BPF_ABS | (size), .imm = (o) }
#define ST0(o) { .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = (o) }
#define STWI(o, v) { .code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = 10, .off = (o), .imm = (v) }
#define JNE(r, v, l) { .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = (r), .imm = (v), .off = (l) }
#define JEQ(r, v, l) { .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = (r), .imm = (v), .off = (l) }
#define JLT(r, v, l) { .code = BPF_JMP | BPF_JLT | BPF_K, .dst_reg = (r), .imm = (v), .off = (l) }
#define LSH_IMM(d, v) { .code = BPF_ALU64 | BPF_LSH | BPF_K, .dst_reg = (d), .imm = (v) }
#define JA(l) { .code = BPF_JMP | BPF_JA, .off = (l) }
#define CALL(f) { .code = BPF_JMP | BPF_CALL, .imm = (f) }
#define EXIT_() { .code = BPF_JMP | BPF_EXIT }
#define MAPFD(d, fd) { .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = (d), .src_reg = BPF_PSEUDO_MAP_FD, .imm = (fd) }, { .imm = 0 }
#define KEYB(d, o) { .code = BPF_LDX | BPF_MEM | BPF_B, .dst_reg = (d), .src_reg = 10, .off = (o) }
#define KEYH(d, o) { .code = BPF_LDX | BPF_MEM | BPF_H, .dst_reg = (d), .src_reg = 10, .off = (o) }
/* len octets of the frame from offset o to the stack */
#define LOAD(o, to, len) \
	MOV_REG(1, 6), MOV_IMM(2, o), MOV_REG(3, 10), ADD_IMM(3, to), MOV_IMM(4, len), CALL(BPF_FUNC_skb_load_bytes), JNE(0, 0, L_DROP)

static uint32_t resolve(struct bpf_insn *to, const struct bpf_insn *from, uint32_t n)
{
	int at[L_COUNT] = { 0 };
	uint32_t len = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (from[i].code == 0 && from[i].imm == LABEL_IMM)
			at[from[i].off] = (int)len;
		else
			to[len++] = from[i];
	}
	for (uint32_t i = 0; i < len; i++) {
		uint8_t op = BPF_OP(to[i].code);
		if (BPF_CLASS(to[i].code) == BPF_JMP && op != BPF_CALL && op != BPF_EXIT)
			to[i].off = (int16_t)(at[to[i].off] - (int)i - 1);
	}
	return len;
}

static long bpf(int cmd, union bpf_attr *a) { return HV_SYS(SYS_bpf, cmd, a, sizeof *a, 0, 0, 0); }

static int filter_load(int map)
{
	/* r6 the context, as BPF_ABS wants it; the key occupies the 40 octets below the frame pointer */
	const struct bpf_insn insn[] = {
		MOV_REG(6, 1),
		/* Not to us: not ours to take. PACKET_OUTGOING is one of those; older kernels can't keep it away from the socket. */
		CTX(1, pkt_type), JNE(1, PACKET_HOST, L_DROP),
		/* Tags are out of the frame by now. */
		CTX(1, vlan_present), JNE(1, 0, L_DROP),
		PKT(BPF_H, 12), JEQ(0, ETH_P_IP, L_V4), JNE(0, ETH_P_IPV6, L_DROP),
		PKT(BPF_B, 14 + 6), JEQ(0, IPPROTO_ICMPV6, L_ICMP6), JNE(0, IPPROTO_TCP, L_DROP),
		STWI(-4, 6),
		LOAD(14 + 8, -40, 36),
		JA(L_FIND),
		/* Packet too big: in the packet that it is about, the two ends have changed places. */
		LABEL(L_ICMP6),
		PKT(BPF_B, 54), JNE(0, 2, L_DROP), PKT(BPF_B, 62 + 6), JNE(0, IPPROTO_TCP, L_DROP),
		STWI(-4, 6),
		LOAD(62 + 24, -40, 16), LOAD(62 + 8, -24, 16), LOAD(62 + 42, -8, 2), LOAD(62 + 40, -6, 2),
		JA(L_FIND),
		LABEL(L_ICMP4),
		PKT(BPF_B, 14), JNE(0, 0x45, L_DROP), PKT(BPF_H, 14 + 6), AND_IMM(0, 0x3fff), JNE(0, 0, L_DROP),
		PKT(BPF_H, 34), JNE(0, 0x0304, L_DROP), PKT(BPF_B, 42), JNE(0, 0x45, L_DROP), PKT(BPF_B, 42 + 9), JNE(0, IPPROTO_TCP, L_DROP),
		STWI(-28, 0), ST0(-24), ST0(-16), ST0(-8), STWI(-4, 4),
		LOAD(42 + 16, -40, 4), LOAD(42 + 12, -36, 4), LOAD(62 + 2, -32, 2), LOAD(62, -30, 2),
		JA(L_FIND),
		LABEL(L_V4),
		PKT(BPF_B, 14 + 9), JEQ(0, IPPROTO_ICMP, L_ICMP4), JNE(0, IPPROTO_TCP, L_DROP),
		/* The header and the ports at once, so that what belongs into the key comes to lie there. */
		LOAD(14, -52, 24),
		KEYH(1, -46), AND_IMM(1, htons(0x1fff)), JNE(1, 0, L_DROP), /* of fragments only the first one has ports */
		KEYB(7, -52),
		STWI(-28, 0), ST0(-24), ST0(-16), ST0(-8), STWI(-4, 4),
		JEQ(7, 0x45, L_FIND),
		/* IP options: the ports are behind them. */
		MOV_REG(1, 7), AND_IMM(1, 0xf0), JNE(1, 0x40, L_DROP), AND_IMM(7, 15), JLT(7, 6, L_DROP), LSH_IMM(7, 2), ADD_IMM(7, 14),
		MOV_REG(1, 6), MOV_REG(2, 7), MOV_REG(3, 10), ADD_IMM(3, -32), MOV_IMM(4, 4), CALL(BPF_FUNC_skb_load_bytes), JNE(0, 0, L_DROP),
		LABEL(L_FIND),
		MAPFD(1, map), MOV_REG(2, 10), ADD_IMM(2, -40), CALL(BPF_FUNC_map_lookup_elem), JEQ(0, 0, L_DROP),
		MOV_IMM(0, -1), EXIT_(),
		LABEL(L_DROP),
		MOV_IMM(0, 0), EXIT_(),
	};
	_Static_assert(sizeof insn / sizeof insn[0] <= INSN_MAX, "room for the filter");
	struct bpf_insn out[INSN_MAX];
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insn_cnt = resolve(out, insn, sizeof insn / sizeof insn[0]);
	a.insns = (uintptr_t)out;
	a.license = (uintptr_t)"GPL";
	memcpy(a.prog_name, "hv_capture", sizeof "hv_capture");
	return hv_sys_high((int)bpf(BPF_PROG_LOAD, &a));
}

/* ---- tuples ---- */

static int map_create(void)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_type = BPF_MAP_TYPE_HASH;
	a.key_size = sizeof(struct capture_key);
	a.value_size = 1;
	a.max_entries = TUPLES_MAX;
	a.map_flags = BPF_F_NO_PREALLOC;
	memcpy(a.map_name, "hv_capture", sizeof "hv_capture");
	return hv_sys_high((int)bpf(BPF_MAP_CREATE, &a));
}

static int map_op(const struct hv_capture *c, int cmd, const struct hv_tuple *t)
{
	static const uint8_t one = 1;
	size_t al = t->family == 6 ? 16 : 4;
	struct capture_key k = { .family = t->family };
	union bpf_attr a;

	if (t->proto != IPPROTO_TCP || (t->family != 4 && t->family != 6))
		return -EINVAL;
	memcpy(k.wire, t->raddr, al);
	memcpy(k.wire + al, t->laddr, al);
	memcpy(k.wire + 2 * al, &t->rport, 2);
	memcpy(k.wire + 2 * al + 2, &t->lport, 2);
	memset(&a, 0, sizeof a);
	a.map_fd = (uint32_t)c->map;
	a.key = (uintptr_t)&k;
	if (cmd == BPF_MAP_UPDATE_ELEM)
		a.value = (uintptr_t)&one;
	return (int)bpf(cmd, &a);
}

int hv_capture_add(struct hv_capture *c, const struct hv_tuple *t) { return map_op(c, BPF_MAP_UPDATE_ELEM, t); }
int hv_capture_del(struct hv_capture *c, const struct hv_tuple *t) { return map_op(c, BPF_MAP_DELETE_ELEM, t); }

/* ---- the socket ---- */

static int socket_open(struct hv_capture *c, int upper, const char **what)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = upper };

	*what = "packet socket (AF_PACKET, CAP_NET_RAW)";
	/* Protocol 0: nothing arrives before bind(), and then the filter is in place. */
	int r = c->fd = hv_sys_high(hv_sys_socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (r < 0)
		return r;
	*what = "eBPF map (CAP_BPF)";
	r = c->map = map_create();
	if (r < 0)
		return r;
	*what = "eBPF socket filter (CAP_BPF)";
	int prog = r = filter_load(c->map);
	if (r < 0)
		return r;
	r = hv_sys_setint(c->fd, SOL_SOCKET, SO_ATTACH_BPF, prog);
	hv_sys_close(prog);
	if (r < 0)
		return r;
	*what = "packet socket options";
	r = hv_sys_setint(c->fd, SOL_PACKET, PACKET_AUXDATA, 1);
	if (r < 0)
		return r;
	/* Spares the sender the filter. The filter keeps them out as well. */
	hv_sys_setint(c->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	if (hv_sys_setint(c->fd, SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF) < 0)
		hv_sys_setint(c->fd, SOL_SOCKET, SO_RCVBUF, RCVBUF);
	*what = "upper device";
	return hv_sys_bind(c->fd, &ll, sizeof ll);
}

int hv_capture_open(struct hv_capture **out, int upper_ifindex, const char **what)
{
	const char *dummy;
	struct hv_capture *c;

	if (what == NULL)
		what = &dummy;
	*what = "upper device";
	if (upper_ifindex <= 0) /* 0 would capture on all devices, loopback too */
		return -EINVAL;
	*what = "memory";
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return -ENOMEM;
	c->fd = c->map = -1;
	int r = socket_open(c, upper_ifindex, what);
	if (r < 0) {
		hv_log(HV_LOG_DEBUG, "capture: no %s (error %d)", *what, -r);
		hv_capture_close(c);
		return r;
	}
	*what = "";
	*out = c;
	return 0;
}

void hv_capture_child(struct hv_capture *c)
{
	hv_fd_drop(&c->fd);
	hv_fd_drop(&c->map);
}

void hv_capture_close(struct hv_capture *c)
{
	if (c == NULL)
		return;
	hv_capture_child(c);
	free(c);
}

int hv_capture_fd(const struct hv_capture *c) { return c->fd; }

/* What the kernel knows about the checksum. GRO leaves super-frames "not ready": it has checked each segment and dropped their sums.
 * Before Linux 6.2 "valid" includes sums that the NIC made and nobody has compared yet. Checking all of those here would be wrong more often: a
 * virtual switch vouches for packets between its machines whose field was never filled in. */
static bool checksum_ok(struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level == SOL_PACKET && h->cmsg_type == PACKET_AUXDATA) {
			struct tpacket_auxdata aux;
			memcpy(&aux, CMSG_DATA(h), sizeof aux);
			return (aux.tp_status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID)) != 0;
		}
	}
	return false;
}

ssize_t hv_capture_read(struct hv_capture *c, void *frame, size_t cap, bool *csum_ok)
{
	union { struct cmsghdr h; uint8_t room[CMSG_SPACE(sizeof(struct tpacket_auxdata))]; } ctl;
	struct iovec iov = { frame, cap };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = -EINTR;

	*csum_ok = false;
	for (int tries = 0; tries < 8 && (n == -EINTR || n == -ENETDOWN); tries++) {
		/* ENETDOWN is said once, when the device goes down. It may come back, and the socket with it. */
		m.msg_control = &ctl;
		m.msg_controllen = sizeof ctl;
		n = hv_sys_recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_TRUNC);
	}
	if (n < 0)
		return n == -EINTR || n == -ENETDOWN ? -EAGAIN : n;
	if ((size_t)n > cap) {
		c->n.too_long++;
		return -EMSGSIZE;
	}
	c->n.frames++;
	c->n.octets += (uint64_t)n;
	*csum_ok = checksum_ok(&m);
	return n;
}

void hv_capture_counters(struct hv_capture *c, struct hv_capture_counters *n)
{
	struct tpacket_stats s;
	socklen_t len = sizeof s;

	if (hv_sys_getsockopt(c->fd, SOL_PACKET, PACKET_STATISTICS, &s, &len) == 0)
		c->n.overrun += s.tp_drops;
	*n = c->n;
}
