/*
 * guard.c - what keeps the kernel from answering for a tuple that it has no socket for at the moment.
 *
 * Between the disconnect and the connect of a hand-off the tuple is in no hash table; a segment that arrives then would draw a RST. The guard is an
 * sk_lookup program on the network namespace (it runs only when the lookup of an established socket has missed) with a hash of tuples: those are given
 * to a listening socket whose filter drops everything. Returning SK_DROP instead would not do: for TCP the kernel takes it as "no socket" and resets.
 * A key stays from the first promotion until the connection is closed, because a softirq may sit between its missed lookup and the program.
 *
 * Each process has its own program, map and listeners; a namespace takes 64 of them, later processes fall back to the socket guard (rehash.c).
 * The programs are a few instructions, written out here: no loader, no object file. Owner: hv_handoff_init() and its counterparts; the ring of keys that
 * wait for their grace period is under `lock`.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <sched.h>
#include <string.h>

#include "base/log.h"
#include "base/sys.h"
#include "failover/internal.h"

struct guard_key {
	uint32_t raddr[4], laddr[4]; /* network order */
	uint32_t rport;              /* network order, as the context's field reads */
	uint32_t lport_family;       /* host order; the family (AF_*) in the upper half */
};

#define KEYS_MAX 262144u
#define PENDING_MAX 1024u

static struct { struct guard_key key; uint64_t due_us; } pending[PENDING_MAX];
static uint32_t pend_first, pend_count; /* the count is read without the lock, too */
static int lock;

static void take(void)
{
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) != 0)
		HV_SYS(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}
static void give(void) { __atomic_store_n(&lock, 0, __ATOMIC_RELEASE); }

static long bpf(int cmd, union bpf_attr *a) { return HV_SYS(SYS_bpf, cmd, a, sizeof *a, 0, 0, 0); }

void hv_fd_drop(int *fd)
{
	if (*fd >= 0)
		hv_sys_close(*fd);
	*fd = -1;
}

/* Jumps name a label instead of a distance and labels are pseudo instructions: resolved here. */
#define LABEL(n) { .code = 0, .off = (n), .imm = 0x1abe1 }
#define INSN_MAX 128u

static bool is_label(const struct bpf_insn *i) { return i->code == 0 && i->imm == 0x1abe1; }

static bool is_jump(const struct bpf_insn *i)
{
	uint8_t op = BPF_OP(i->code);

	return BPF_CLASS(i->code) == BPF_JMP && op != BPF_CALL && op != BPF_EXIT;
}

static int prog_load(uint32_t type, uint32_t attach, const struct bpf_insn *src, uint32_t n)
{
	struct bpf_insn insn[INSN_MAX];
	int at[8] = { 0 };
	uint32_t len = 0;
	union bpf_attr a;

	for (uint32_t i = 0; i < n; i++) {
		if (is_label(&src[i]))
			at[src[i].off & 7] = (int)len;
		else if (len < INSN_MAX)
			insn[len++] = src[i];
	}
	for (uint32_t i = 0; i < len; i++)
		if (is_jump(&insn[i]))
			insn[i].off = (int16_t)(at[insn[i].off & 7] - (int)i - 1);
	memset(&a, 0, sizeof a);
	a.prog_type = type;
	a.expected_attach_type = attach;
	a.insns = (uintptr_t)insn;
	a.insn_cnt = len;
	a.license = (uintptr_t)"GPL";
	return hv_sys_high((int)bpf(BPF_PROG_LOAD, &a));
}

#define MOV_IMM(d, v) { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (d), .imm = (v) }
#define MOV_REG(d, s) { .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (d), .src_reg = (s) }
#define ADD_IMM(d, v) { .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (d), .imm = (v) }
#define LDW(d, s, o) { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (d), .src_reg = (s), .off = (o) }
#define STW(d, o, s) { .code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = (d), .src_reg = (s), .off = (o) }
#define ST0(d, o) { .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = (d), .off = (o), .imm = 0 }
#define STWI(d, o, v) { .code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = (d), .off = (o), .imm = (v) }
#define JNE(r, v, o) { .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = (r), .imm = (v), .off = (o) }
#define JEQ(r, v, o) { .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = (r), .imm = (v), .off = (o) }
#define JA(o) { .code = BPF_JMP | BPF_JA, .off = (o) }
#define OR_IMM(d, v) { .code = BPF_ALU64 | BPF_OR | BPF_K, .dst_reg = (d), .imm = (v) }
#define MAPFD(d, fd) { .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = (d), .src_reg = BPF_PSEUDO_MAP_FD, .imm = (fd) }, { .imm = 0 }
#define CALL(f) { .code = BPF_JMP | BPF_CALL, .imm = (f) }
#define EXIT_() { .code = BPF_JMP | BPF_EXIT }
#define CTX(f) ((int16_t)offsetof(struct bpf_sk_lookup, f))
#define KEY(f) ((int16_t)((int)offsetof(struct guard_key, f) - (int)sizeof(struct guard_key)))

enum { L_DROP = 1 };

int hv_drop_load(void)
{
	/* all but what hv_inject_rtt() sends */
	static const struct bpf_insn insn[] = {
		LDW(1, 1, offsetof(struct __sk_buff, mark)), MOV_IMM(0, 0), JNE(1, HV_RTT_MARK, L_DROP), MOV_IMM(0, 1 << 30), LABEL(L_DROP), EXIT_(),
	};

	return prog_load(BPF_PROG_TYPE_SOCKET_FILTER, 0, insn, sizeof insn / sizeof insn[0]);
}

int hv_drop_attach(int fd)
{
	if (hv_g.drop_fd >= 0)
		return hv_sys_setint(fd, SOL_SOCKET, SO_ATTACH_BPF, hv_g.drop_fd);
	/* Without CAP_BPF: works too, but is translated at each attach (8 us, at times 1 ms). */
	static struct sock_filter insn = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog p = { 1, &insn };
	return hv_sys_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p);
}

int hv_drop_detach(int fd) { return hv_sys_setint(fd, SOL_SOCKET, SO_DETACH_FILTER, 0); }

enum { L_PASS = 1, L_V4, L_FIND, L_SOCK };

static int lookup_load(int map, int socks)
{
	const struct bpf_insn insn[] = {
		/* r6 context, r7 family, r9 the listener; the key ends at the frame pointer, the index of the listener is below it */
		MOV_REG(6, 1),
		LDW(1, 6, CTX(protocol)), JNE(1, IPPROTO_TCP, L_PASS),
		LDW(7, 6, CTX(family)),
		ST0(10, -40), ST0(10, -32), ST0(10, -24), ST0(10, -16),
		LDW(1, 6, CTX(remote_port)), STW(10, KEY(rport), 1),
		LDW(1, 6, CTX(local_port)),
		JEQ(7, AF_INET, L_V4), JNE(7, AF_INET6, L_PASS),
		OR_IMM(1, AF_INET6 << 16), STW(10, KEY(lport_family), 1),
		LDW(1, 6, CTX(remote_ip6[0])), STW(10, KEY(raddr[0]), 1), LDW(1, 6, CTX(remote_ip6[1])), STW(10, KEY(raddr[1]), 1),
		LDW(1, 6, CTX(remote_ip6[2])), STW(10, KEY(raddr[2]), 1), LDW(1, 6, CTX(remote_ip6[3])), STW(10, KEY(raddr[3]), 1),
		LDW(1, 6, CTX(local_ip6[0])), STW(10, KEY(laddr[0]), 1), LDW(1, 6, CTX(local_ip6[1])), STW(10, KEY(laddr[1]), 1),
		LDW(1, 6, CTX(local_ip6[2])), STW(10, KEY(laddr[2]), 1), LDW(1, 6, CTX(local_ip6[3])), STW(10, KEY(laddr[3]), 1),
		JA(L_FIND),
		LABEL(L_V4),
		OR_IMM(1, AF_INET << 16), STW(10, KEY(lport_family), 1),
		LDW(1, 6, CTX(remote_ip4)), STW(10, KEY(raddr[0]), 1), LDW(1, 6, CTX(local_ip4)), STW(10, KEY(laddr[0]), 1),
		LABEL(L_FIND),
		MAPFD(1, map), MOV_REG(2, 10), ADD_IMM(2, -(int)sizeof(struct guard_key)), CALL(BPF_FUNC_map_lookup_elem), JEQ(0, 0, L_PASS),
		STWI(10, -44, 0), JNE(7, AF_INET6, L_SOCK), STWI(10, -44, 1),
		LABEL(L_SOCK),
		MAPFD(1, socks), MOV_REG(2, 10), ADD_IMM(2, -44), CALL(BPF_FUNC_map_lookup_elem), JEQ(0, 0, L_PASS),
		MOV_REG(9, 0),
		MOV_REG(1, 6), MOV_REG(2, 9), MOV_IMM(3, 0), CALL(BPF_FUNC_sk_assign),
		MOV_REG(1, 9), CALL(BPF_FUNC_sk_release),
		LABEL(L_PASS),
		MOV_IMM(0, SK_PASS), EXIT_(),
	};

	return prog_load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP, insn, sizeof insn / sizeof insn[0]);
}

static int map_create(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, uint32_t flags)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_type = type;
	a.key_size = key;
	a.value_size = value;
	a.max_entries = entries;
	a.map_flags = flags;
	return hv_sys_high((int)bpf(BPF_MAP_CREATE, &a));
}

static long map_op(int cmd, int map, const void *key, const void *value)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_fd = (uint32_t)map;
	a.key = (uintptr_t)key;
	a.value = (uintptr_t)value;
	return bpf(cmd, &a);
}

/* A listening socket on loopback that nothing can connect to. */
static int listener(int family)
{
	union hv_sa sa;
	int fd = hv_sys_high(hv_sys_socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));

	if (fd < 0)
		return fd;
	memset(&sa, 0, sizeof sa);
	sa.sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		sa.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	} else {
		hv_sys_setint(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		sa.in6.sin6_addr = (struct in6_addr)IN6ADDR_LOOPBACK_INIT;
	}
	int r = hv_drop_attach(fd);
	if (r == 0)
		r = hv_sys_bind(fd, &sa, family == AF_INET ? sizeof sa.in : sizeof sa.in6);
	if (r == 0)
		r = hv_sys_listen(fd, 1);
	if (r < 0) {
		hv_sys_close(fd);
		return r;
	}
	return fd;
}

static int sk_lookup_open(void)
{
	int socks = map_create(BPF_MAP_TYPE_SOCKMAP, 4, 8, 2, 0), prog = -1, ns = -1, r = socks;
	union bpf_attr a;

	if (r < 0)
		goto out;
	r = hv_g.map_fd = map_create(BPF_MAP_TYPE_HASH, sizeof(struct guard_key), 1, KEYS_MAX, BPF_F_NO_PREALLOC);
	if (r < 0)
		goto out;
	for (uint32_t i = 0; i < 2; i++) {
		r = hv_g.listen_fd[i] = listener(i == 0 ? AF_INET : AF_INET6);
		if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL)
			continue; /* no such protocol here, hence no such connection */
		uint64_t fd = (uint64_t)r;
		if (r < 0 || (r = (int)map_op(BPF_MAP_UPDATE_ELEM, socks, &i, &fd)) < 0)
			goto out;
	}
	r = prog = lookup_load(hv_g.map_fd, socks);
	if (r < 0)
		goto out;
	r = ns = hv_sys_high((int)HV_SYS(SYS_openat, AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC, 0, 0, 0));
	if (r < 0)
		goto out;
	memset(&a, 0, sizeof a);
	a.link_create.prog_fd = (uint32_t)prog;
	a.link_create.target_fd = (uint32_t)ns;
	a.link_create.attach_type = BPF_SK_LOOKUP;
	r = hv_g.link_fd = hv_sys_high((int)bpf(BPF_LINK_CREATE, &a));
out:
	/* The link holds the program, the program holds the maps. */
	hv_fd_drop(&socks);
	hv_fd_drop(&prog);
	hv_fd_drop(&ns);
	if (r < 0) {
		hv_fd_drop(&hv_g.map_fd);
		hv_fd_drop(&hv_g.listen_fd[0]);
		hv_fd_drop(&hv_g.listen_fd[1]);
		return r;
	}
	return 0;
}

int hv_guard_open(int mode, const char **what)
{
	if (mode != 2) {
		int r = sk_lookup_open();
		if (r == 0) {
			hv_g.kind = HV_GUARD_SK_LOOKUP;
			return 0;
		}
		hv_log(HV_LOG_DEBUG, "hand-off: no sk_lookup guard (error %d)", -r);
		if (mode == 1) {
			*what = "sk_lookup guard (Linux 5.9, CAP_BPF and CAP_NET_ADMIN)";
			return r;
		}
	}
	hv_g.kind = HV_GUARD_SOCKET;
	return 0;
}

static void key_from(struct guard_key *k, const struct hv_tuple *t)
{
	memset(k, 0, sizeof *k);
	memcpy(k->raddr, t->raddr, t->family == 6 ? 16 : 4);
	memcpy(k->laddr, t->laddr, t->family == 6 ? 16 : 4);
	k->rport = t->rport;
	k->lport_family = (uint32_t)ntohs(t->lport) | (uint32_t)(t->family == 6 ? AF_INET6 : AF_INET) << 16;
}

/* Lock held. */
static void pending_pop(void)
{
	map_op(BPF_MAP_DELETE_ELEM, hv_g.map_fd, &pending[pend_first].key, NULL);
	pend_first = (pend_first + 1) % PENDING_MAX;
	__atomic_store_n(&pend_count, pend_count - 1, __ATOMIC_RELAXED);
}

int hv_guard_add(const struct hv_tuple *t)
{
	struct guard_key k;
	uint8_t one = 1;

	if (hv_g.kind != HV_GUARD_SK_LOOKUP)
		return 0;
	key_from(&k, t);
	take();
	/* The same tuple again while the key of its last life still waits: that wait is over. */
	for (uint32_t i = 0; i < pend_count; i++)
		if (memcmp(&pending[(pend_first + i) % PENDING_MAX].key, &k, sizeof k) == 0)
			memset(&pending[(pend_first + i) % PENDING_MAX].key, 0, sizeof k); /* a tuple that can't be */
	int r = (int)map_op(BPF_MAP_UPDATE_ELEM, hv_g.map_fd, &k, &one);
	give();
	return r;
}

void hv_guard_remove(const struct hv_tuple *t, uint64_t unhashed_us)
{
	struct guard_key k;
	uint64_t now = hv_now_us();

	if (hv_g.kind != HV_GUARD_SK_LOOKUP)
		return;
	key_from(&k, t);
	if (unhashed_us == 0 || now - unhashed_us >= HV_GRACE_US) {
		map_op(BPF_MAP_DELETE_ELEM, hv_g.map_fd, &k, NULL);
		return;
	}
	take();
	if (pend_count == PENDING_MAX)
		pending_pop();
	uint32_t i = (pend_first + pend_count) % PENDING_MAX;
	__atomic_store_n(&pend_count, pend_count + 1, __ATOMIC_RELAXED);
	pending[i].key = k;
	pending[i].due_us = now + HV_GRACE_US;
	give();
}

bool hv_guard_tick(uint64_t now_us, bool all)
{
	if (__atomic_load_n(&pend_count, __ATOMIC_RELAXED) == 0)
		return false;
	take();
	while (pend_count != 0 && (all || now_us >= pending[pend_first].due_us))
		pending_pop();
	bool more = pend_count != 0;
	give();
	return more;
}

void hv_guard_forked(void)
{
	pend_first = pend_count = 0;
	lock = 0;
}
