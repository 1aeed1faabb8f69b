/*
 * handoff_owner.c - see handoff_owner.h.
 */
#include "handoff_owner.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sys.h"

#define FIN 1u
#define SYN 2u
#define RST 4u
#define PSH 8u
#define ACK 16u
#define IN_FLIGHT 65536u
#define RTO_US 50000u

struct bench B = { .steal_map = -1, .steal_link = -1 };

static bool lt(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

void bench_enter(int ns) { sys(setns(ns, CLONE_NEWNET)); }

static int ns_open(const char *name)
{
	char p[128];

	snprintf(p, sizeof p, "/run/netns/%s", name);
	return sys(open(p, O_RDONLY | O_CLOEXEC));
}

static void mac_of(const char *dev, uint8_t *mac)
{
	struct ifreq r;
	int s = sys(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	memset(&r, 0, sizeof r);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", dev);
	sys(ioctl(s, SIOCGIFHWADDR, &r));
	memcpy(mac, r.ifr_hwaddr.sa_data, 6);
	close(s);
}

uint64_t bench_rsts(int ns)
{
	char line[1024], head[1024] = "";
	uint64_t v = UINT64_MAX;

	bench_enter(ns);
	FILE *f = fopen("/proc/thread-self/net/snmp", "re");
	check(f != NULL);
	while (fgets(line, sizeof line, f) != NULL) {
		if (strncmp(line, "Tcp:", 4) == 0 && head[0] == 0) {
			memcpy(head, line, sizeof head);
		} else if (strncmp(line, "Tcp:", 4) == 0) {
			char *s1, *s2, *h = strtok_r(head, " \n", &s1), *d = strtok_r(line, " \n", &s2);
			for (; h != NULL && d != NULL; h = strtok_r(NULL, " \n", &s1), d = strtok_r(NULL, " \n", &s2))
				if (strcmp(h, "OutRsts") == 0)
					v = strtoull(d, NULL, 10);
		}
	}
	fclose(f);
	check(v != UINT64_MAX);
	bench_enter(B.ns_a);
	return v;
}

/* tcx program: frames whose port pair is in the map stop here; packet sockets have seen them already. */
static void steal_open(void)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_type = BPF_MAP_TYPE_HASH;
	a.key_size = 4;
	a.value_size = 1;
	a.max_entries = 64;
	B.steal_map = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof a);
	if (B.steal_map < 0)
		return;
	const struct bpf_insn p[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 1 },
		{ .code = BPF_LD | BPF_ABS | BPF_H, .imm = 12 },
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 0, .imm = ETHERTYPE_IPV6, .off = 3 },
		{ .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 0, .imm = ETHERTYPE_IP, .off = 11 },
		{ .code = BPF_LD | BPF_ABS | BPF_W, .imm = 34 },
		{ .code = BPF_JMP | BPF_JA, .off = 1 },
		{ .code = BPF_LD | BPF_ABS | BPF_W, .imm = 54 },
		{ .code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = 10, .src_reg = 0, .off = -4 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 2, .src_reg = 10 },
		{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 2, .imm = -4 },
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = B.steal_map }, { .imm = 0 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_map_lookup_elem },
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 0, .imm = 0, .off = 1 },
		{ .code = BPF_JMP | BPF_JA, .off = 2 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1 }, /* TCX_NEXT */
		{ .code = BPF_JMP | BPF_EXIT },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 2 }, /* TCX_DROP */
		{ .code = BPF_JMP | BPF_EXIT },
	};
	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	a.insns = (uintptr_t)p;
	a.insn_cnt = sizeof p / sizeof p[0];
	a.license = (uintptr_t)"GPL";
	int prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
	if (prog < 0)
		return;
	memset(&a, 0, sizeof a);
	a.link_create.prog_fd = (uint32_t)prog;
	a.link_create.target_fd = (uint32_t)B.ifindex; /* in a union with target_ifindex */
	a.link_create.attach_type = 46;                /* BPF_TCX_INGRESS, Linux 6.6 */
	B.steal_link = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &a, sizeof a);
	close(prog);
}

static bool no_steal;

void owner_kernel_sees(bool on) { no_steal = on; }

static void steal(const struct hv_tuple *t, bool on)
{
	uint32_t key = (uint32_t)ntohs(t->rport) << 16 | ntohs(t->lport);
	uint8_t one = 1;
	union bpf_attr a;

	if (B.steal_link < 0 || (on && no_steal))
		return;
	memset(&a, 0, sizeof a);
	a.map_fd = (uint32_t)B.steal_map;
	a.key = (uintptr_t)&key;
	if (on)
		a.value = (uintptr_t)&one;
	if (syscall(SYS_bpf, on ? BPF_MAP_UPDATE_ELEM : BPF_MAP_DELETE_ELEM, &a, sizeof a) < 0 && on)
		die("steal: %m");
}

static void capture(int fd, bool on)
{
	struct sock_filter f = BPF_STMT(BPF_RET | BPF_K, on ? 0x40000 : 0);
	struct sock_fprog p = { 1, &f };

	sys(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
}

void bench_open(const char *ns_a, const char *ns_b, const char *dev, bool want_steal)
{
	int big = 8 << 20, one = 1;

	B.ns_a = ns_open(ns_a);
	B.ns_b = ns_open(ns_b);
	bench_enter(B.ns_b);
	mac_of(dev, B.mac_b);
	bench_enter(B.ns_a);
	mac_of(dev, B.mac_a);
	B.ifindex = (int)if_nametoindex(dev);
	check(B.ifindex != 0);
	for (int i = 0; i < 2; i++) {
		/* Only sockets for all protocols see frames before the tcx program does. */
		struct sockaddr_ll sl = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = B.ifindex };
		B.pkt[i] = sys(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
		capture(B.pkt[i], false);
		sys(setsockopt(B.pkt[i], SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big));
		sys(setsockopt(B.pkt[i], SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one));
		sys(bind(B.pkt[i], (struct sockaddr *)&sl, sizeof sl));
	}
	if (want_steal) {
		steal_open();
		if (B.steal_link < 0)
			fprintf(stderr, "note: no tcx here, the kernel sees every frame\n");
	}
}

static uint32_t csum(uint32_t s, const uint8_t *p, uint32_t n)
{
	for (; n > 1; n -= 2, p += 2)
		s += (uint32_t)p[0] << 8 | p[1];
	if (n != 0)
		s += (uint32_t)p[0] << 8;
	while (s >> 16 != 0)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16); put16(p + 2, v); }
static uint32_t get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t get32(const uint8_t *p) { return get16(p) << 16 | get16(p + 2); }

static uint32_t ts_now(const struct owner *o) { return (uint32_t)(hv_now_us() / 1000) + o->img.ts_off; }

static void transmit(struct owner *o, uint32_t seq, uint32_t len, uint32_t flags)
{
	const struct hv_tuple *t = &o->img.tuple;
	uint8_t f[2048];
	bool six = t->family == 6, ts = (o->img.opts & HV_TCPO_TS) != 0;
	uint32_t ip = six ? 40 : 20, th = ts ? 32 : 20, l4 = th + len, al = six ? 16 : 4;
	uint8_t *p = f + 14, *q = p + ip;

	memset(f, 0, 14 + ip + th);
	memcpy(f, B.mac_b, 6);
	memcpy(f + 6, B.mac_a, 6);
	put16(f + 12, six ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
	if (six) {
		p[0] = 0x60;
		put16(p + 4, l4);
		p[6] = 6;
		p[7] = 64;
		memcpy(p + 8, t->laddr, 16);
		memcpy(p + 24, t->raddr, 16);
	} else {
		p[0] = 0x45;
		put16(p + 2, ip + l4);
		p[6] = 0x40;
		p[8] = 64;
		p[9] = 6;
		memcpy(p + 12, t->laddr, 4);
		memcpy(p + 16, t->raddr, 4);
		put16(p + 10, ~csum(0, p, 20) & 0xffff);
	}
	memcpy(q, &t->lport, 2);
	memcpy(q + 2, &t->rport, 2);
	put32(q + 4, seq);
	put32(q + 8, o->rcv);
	q[12] = (uint8_t)(th / 4 << 4);
	q[13] = (uint8_t)flags;
	uint32_t w = (o->edge - o->rcv) >> o->img.rcv_wscale;
	put16(q + 14, w > 65535 ? 65535 : w);
	if (ts) {
		put32(q + 20, 0x0101080au);
		put32(q + 24, ts_now(o));
		put32(q + 28, o->ts_recent);
	}
	memcpy(q + th, o->snd + (seq - o->una), len);
	put16(q + 16, ~csum(csum(csum(6 + l4, t->laddr, al), t->raddr, al), q, l4) & 0xffff);
	if (send(B.pkt[six], f, 14 + ip + l4, MSG_DONTWAIT) < 0 && errno != ENOBUFS && errno != EAGAIN && errno != ENETDOWN)
		die("send on the packet socket: %m");
	o->ack_due = false;
}

static void output(struct owner *o)
{
	uint32_t lim = o->wnd < IN_FLIGHT ? o->wnd : IN_FLIGHT;

	while (lt(o->nxt, o->end) && lt(o->nxt, o->una + lim)) {
		uint32_t n = o->end - o->nxt, room = o->una + lim - o->nxt;
		if (n > o->img.snd_mss)
			n = o->img.snd_mss;
		if (n > room)
			n = room;
		transmit(o, o->nxt, n, ACK | PSH);
		o->nxt += n;
		if (o->rto_us == 0)
			o->rto_us = hv_now_us() + RTO_US;
	}
}

static void deliver(struct owner *o, uint32_t seq, const uint8_t *d, uint32_t len)
{
	uint32_t skip = lt(seq, o->rcv) ? o->rcv - seq : 0;

	if (skip >= len || lt(o->rcv, seq) || o->rcv_len + len - skip > QUEUE)
		return;
	memcpy(o->rcvq + o->rcv_len, d + skip, len - skip);
	o->rcv_len += len - skip;
	o->rcv += len - skip;
	if (lt(o->edge, o->rcv))
		o->edge = o->rcv;
}

static void acked(struct owner *o, uint32_t ack, uint32_t seq, uint32_t wnd, bool pure)
{
	wnd <<= o->img.snd_wscale;
	if (lt(o->una, ack) && !lt(o->end, ack)) {
		memmove(o->snd, o->snd + (ack - o->una), o->end - ack);
		o->una = ack;
		if (lt(o->nxt, ack))
			o->nxt = ack;
		o->dup = 0;
		o->rto_us = o->una == o->nxt ? 0 : hv_now_us() + RTO_US;
	} else if (ack == o->una && pure && o->una != o->nxt && wnd == o->wnd && ++o->dup == 3) {
		uint32_t n = o->nxt - o->una;
		transmit(o, o->una, n < o->img.snd_mss ? n : o->img.snd_mss, ACK);
		o->rexmits++;
	}
	if (lt(o->wl1, seq) || !lt(ack, o->una)) {
		o->wnd = wnd;
		o->wl1 = seq;
		if (wnd > o->maxwnd)
			o->maxwnd = wnd;
	}
}

/* A frame of this connection; false: not ours, or broken. */
static bool ours(const struct owner *o, const uint8_t *f, uint32_t n, const uint8_t **l4, uint32_t *l4_len)
{
	const struct hv_tuple *t = &o->img.tuple;
	const uint8_t *p = f + 14;

	if (get16(f + 12) != (t->family == 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP))
		return false;
	if (t->family == 6) {
		if (n < 14 + 60 || p[6] != 6 || memcmp(p + 8, t->raddr, 16) != 0 || memcmp(p + 24, t->laddr, 16) != 0)
			return false;
		*l4 = p + 40;
		*l4_len = get16(p + 4);
	} else {
		uint32_t ip = (p[0] & 15u) * 4;
		if (n < 14 + 40 || p[9] != 6 || memcmp(p + 12, t->raddr, 4) != 0 || memcmp(p + 16, t->laddr, 4) != 0)
			return false;
		*l4 = p + ip;
		*l4_len = get16(p + 2) - ip;
	}
	return memcmp(*l4, &t->rport, 2) == 0 && memcmp(*l4 + 2, &t->lport, 2) == 0 && (uint32_t)(*l4 - f) + *l4_len <= n;
}

static void input(struct owner *o, const uint8_t *f, uint32_t n)
{
	const uint8_t *q;
	uint32_t l4, tsval = 0;
	bool has_ts = false;

	if (!ours(o, f, n, &q, &l4))
		return;
	o->frames++;
	uint32_t th = (q[12] >> 4) * 4u, seq = get32(q + 4), ack = get32(q + 8), len = l4 - th, fl = q[13];
	if (o->due_demote)
		return;
	for (const uint8_t *x = q + 20; x < q + th && *x != 0; x += *x == 1 ? 1 : x[1] < 2 ? 99 : x[1]) {
		if (*x == 8) {
			tsval = get32(x + 2);
			has_ts = true;
		}
	}
	if (((fl & RST) && seq == o->rcv) || ((fl & FIN) && !lt(o->rcv, seq) && o->rcv - seq <= len && !lt(seq + len, o->rcv))) {
		if (fl & FIN)
			deliver(o, seq, q + th, len);
		if ((fl & RST) || o->rcv == seq + len) {
			memcpy(o->held, f, n < sizeof o->held ? n : sizeof o->held);
			o->held_len = n;
			o->due_demote = true;
			return;
		}
	}
	if (fl & (RST | SYN))
		return;
	if (has_ts && o->ts_ok && lt(tsval, o->ts_recent) && !lt(seq, o->rcv)) {
		o->ack_due = true;
		return;
	}
	if (has_ts && !lt(o->rcv, seq) && (!o->ts_ok || !lt(tsval, o->ts_recent))) {
		o->ts_recent = tsval;
		o->ts_ok = true;
	}
	if (fl & ACK)
		acked(o, ack, seq, get16(q + 14), len == 0);
	if (len != 0) {
		deliver(o, seq, q + th, len);
		o->ack_due = true;
		if (lt(o->rcv, seq)) /* a hole: say so at once */
			transmit(o, o->nxt, 0, ACK);
	} else if (lt(seq, o->rcv)) { /* a probe */
		o->ack_due = true;
	}
}

void owner_init(struct owner *o, int fd)
{
	memset(o, 0, sizeof *o);
	o->fd = fd;
	o->snd = malloc(QUEUE);
	o->rcvq = malloc(QUEUE);
	check(o->snd != NULL && o->rcvq != NULL);
}

void owner_free(struct owner *o)
{
	hv_park_forget(&o->pk);
	free(o->snd);
	free(o->rcvq);
}

enum hv_move_why owner_promote(struct owner *o)
{
	static uint8_t buf[2 * QUEUE];
	struct hv_tcp_image *im = &o->img;
	enum hv_move_why why = hv_promote_check(o->fd, &o->pk, im, QUEUE / 2);
	int pkt;

	if (why != HV_MOVE_OK)
		return why;
	pkt = B.pkt[im->tuple.family == 6];
	capture(pkt, true);
	steal(&im->tuple, true);
	why = hv_promote(o->fd, &o->pk, im, buf, sizeof buf);
	if (why != HV_MOVE_OK) {
		steal(&im->tuple, false);
		capture(pkt, false);
		ssize_t n;
		while ((n = recv(pkt, buf, sizeof buf, MSG_DONTWAIT)) > 14)
			if (B.steal_link >= 0) /* the rule has eaten them */
				hv_inject(&im->tuple, buf + 14, (size_t)n - 14);
		return why;
	}
	check(im->snd_len == im->snd_end - im->snd_una && im->rcv_len <= QUEUE && im->snd_len <= QUEUE);
	o->una = im->snd_una;
	o->nxt = im->snd_nxt;
	o->end = im->snd_end;
	o->wnd = im->snd_wnd;
	o->wl1 = im->snd_wl1;
	o->maxwnd = im->max_window;
	o->rcv = im->rcv_nxt;
	o->edge = im->rcv_wup + im->rcv_wnd;
	check(!lt(o->edge, o->rcv));
	o->ts_recent = 0;
	o->ts_ok = o->ack_due = o->due_demote = false;
	o->dup = 0;
	memcpy(o->snd, im->snd, im->snd_len);
	memcpy(o->rcvq, im->rcv, im->rcv_len);
	o->rcv_len = im->rcv_len;
	o->rto_us = o->una != o->nxt ? hv_now_us() + 10000 : 0;
	o->settle_us = hv_now_us() + 30000;
	o->held_len = 0;
	o->up = true;
	return HV_MOVE_OK;
}

static void late(struct owner *o)
{
	static uint8_t buf[QUEUE];
	bool gone = false;
	uint32_t seq = o->pk.rcv_nxt;
	ssize_t n = hv_late_check(&o->pk, buf, sizeof buf, &gone);

	if (n < 0)
		die("late check: %zd at %s", n, o->pk.step);
	if (n > 0) {
		o->late++;
		deliver(o, seq, buf, (uint32_t)n);
	}
	if (gone)
		o->due_demote = true;
}

void owner_poll(struct owner *o)
{
	uint8_t f[65536];
	int pkt = B.pkt[o->img.tuple.family == 6];
	uint64_t now = hv_now_us();
	ssize_t n;

	for (int i = 0; i < 64 && (n = recv(pkt, f, sizeof f, MSG_DONTWAIT)) > 0; i++)
		input(o, f, (uint32_t)n);
	if (o->frozen)
		return;
	if (!o->pk.settled && now >= o->settle_us && !o->due_demote) {
		late(o);
		if (!o->due_demote) {
			int r = hv_settle(&o->pk, o->una, o->rcv);
			if (r != 0) /* no route, say, or acknowledgements are still due: later */
				o->settle_us = now + 5000;
		}
	}
	if (o->due_demote)
		return;
	output(o);
	if (o->rto_us != 0 && now >= o->rto_us) {
		uint32_t k = o->nxt - o->una;
		transmit(o, o->una, k < o->img.snd_mss ? k : o->img.snd_mss, ACK);
		o->rexmits++;
		o->rto_us = now + RTO_US;
	}
	uint32_t e = o->rcv + (131072 - (o->rcv_len < 65536 ? o->rcv_len : 65536));
	if (lt(o->edge, e)) {
		if (e - o->edge > 32768)
			o->ack_due = true;
		if (o->ack_due)
			o->edge = e;
	}
	if (o->ack_due)
		transmit(o, o->nxt, 0, ACK);
}

void owner_deaf(struct owner *o)
{
	uint8_t f[65536];

	while (recv(B.pkt[o->img.tuple.family == 6], f, sizeof f, MSG_DONTWAIT) > 0)
		;
}

uint32_t owner_write(struct owner *o, const void *p, uint32_t n)
{
	uint32_t used = o->end - o->una, room = used < 131072 ? 131072 - used : 0;

	if (n > room)
		n = room;
	memcpy(o->snd + used, p, n);
	o->end += n;
	return n;
}

uint32_t owner_read(struct owner *o, void *p, uint32_t n)
{
	if (n > o->rcv_len)
		n = o->rcv_len;
	memcpy(p, o->rcvq, n);
	memmove(o->rcvq, o->rcvq + n, o->rcv_len - n);
	o->rcv_len -= n;
	return n;
}

static void leftovers(struct owner *o)
{
	static uint8_t f[65536];
	const uint8_t *q;
	uint32_t l4;
	ssize_t n;
	int pkt = B.pkt[o->img.tuple.family == 6];

	while ((n = recv(pkt, f, sizeof f, MSG_DONTWAIT)) > 0)
		if (ours(o, f, (uint32_t)n, &q, &l4)) {
			uint32_t l3 = (uint32_t)(q - (f + 14)) + l4;
			int r = hv_inject(&o->img.tuple, f + 14, l3);
			if (r < 0)
				die("inject: %d", r);
		}
}

int owner_demote(struct owner *o, bool lost)
{
	struct hv_tcp_image im = o->img;
	int r;

	if (!o->pk.settled) {
		hv_barrier();
		late(o);
	}
	for (int i = 0; i < 3; i++) {
		im.snd_una = o->una;
		im.snd_nxt = o->nxt;
		im.snd_end = o->end;
		im.snd = o->snd;
		im.snd_len = o->end - o->una;
		im.rcv_nxt = o->rcv;
		im.rcv = o->rcvq;
		im.rcv_len = o->rcv_len;
		im.snd_wnd = o->wnd;
		im.snd_wl1 = o->wl1;
		im.max_window = o->maxwnd;
		im.rcv_wup = o->rcv;
		im.rcv_wnd = o->edge - o->rcv;
		im.ts_recent = o->ts_recent;
		im.ts_recent_valid = o->ts_ok;
		r = hv_demote(&o->pk, &im, lost);
		if (r != -EAGAIN)
			break;
		late(o);
	}
	if (r < 0)
		return r;
	o->up = false;
	if (o->held_len != 0)
		check(hv_inject(&o->img.tuple, o->held + 14, o->held_len - 14) == 0);
	leftovers(o);
	steal(&o->img.tuple, false);
	capture(B.pkt[o->img.tuple.family == 6], false);
	leftovers(o);
	return 0;
}
