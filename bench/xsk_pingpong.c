/*
 * xsk_pingpong.c - round trips between two bare AF_XDP sockets: the floor of what any stack over this wire can reach.
 *
 * No stack, no socket API, no verbs: each end spins on its ring, copies one UDP frame and kicks the kernel. The difference between this
 * and the same ping-pong through libhvaccel is what libhvaccel costs. Native XDP, copy mode, frames of our own port only; all others go to
 * the kernel. Stands alone on purpose: shares no code with softvf, so that it can't share its faults.
 *
 * The server ends by itself after -t seconds without a frame, the client after -t seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <linux/ip.h>
#include <linux/udp.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

enum { FRAMES = 256, FRAME = 2048, RING = 128, HEADERS = ETH_HLEN + 20 + 8, MAX_SAMPLES = 20 * 1000 * 1000 };

struct ring {
	uint32_t *producer, *consumer;
	void *desc;
	uint32_t mine;	/* our own index of the two */
};

static struct {
	const char *dev;
	uint32_t queue, payload, seconds;
	int cpu;
	uint16_t port;
	bool client, json;
	uint32_t saddr, daddr;
	uint8_t smac[ETH_ALEN], dmac[ETH_ALEN];
} opt = { .payload = 64, .seconds = 3, .cpu = -1, .port = 7700 };

static int xsk;
static uint8_t *umem;
static struct ring fill, completion, rx, tx;
static uint32_t tx_free[FRAMES / 2], tx_nfree;
static volatile sig_atomic_t stop;

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("xsk_pingpong: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

#define INSN(c, d, s, o, i) ((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (int16_t)(o), .imm = (i) })

/* IPv4 without options, UDP, our destination port -> the socket of its queue; everything else -> kernel. */
static void attach_filter(int ifindex)
{
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 64 };
	int map = bpf(BPF_MAP_CREATE, &a), prog;

	if (map < 0)
		die("no XSKMAP: %s (needs root and CONFIG_XDP_SOCKETS)", strerror(errno));
	enum { PASS = 17 };
	struct bpf_insn code[] = {
		[0] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),
		[1] = INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 6, offsetof(struct xdp_md, data), 0),
		[2] = INSN(BPF_LDX | BPF_MEM | BPF_W, 3, 6, offsetof(struct xdp_md, data_end), 0),
		[3] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, 4, 2, 0, 0),
		[4] = INSN(BPF_ALU64 | BPF_ADD | BPF_K, 4, 0, 0, HEADERS),
		[5] = INSN(BPF_JMP | BPF_JGT | BPF_X, 4, 3, PASS - 6, 0),
		[6] = INSN(BPF_LDX | BPF_MEM | BPF_W, 5, 2, 12, 0),	/* ethertype, version and TOS 0 */
		[7] = INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, PASS - 8, (int32_t)htonl(0x08004500)),
		[8] = INSN(BPF_LDX | BPF_MEM | BPF_B, 5, 2, 23, 0),
		[9] = INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, PASS - 10, IPPROTO_UDP),
		[10] = INSN(BPF_LDX | BPF_MEM | BPF_H, 5, 2, 36, 0),
		[11] = INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, PASS - 12, htons(opt.port)),
		[12] = INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 6, offsetof(struct xdp_md, rx_queue_index), 0),
		[13] = INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map),
		[14] = INSN(0, 0, 0, 0, 0),
		[15] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS),
		[16] = INSN(BPF_JMP | BPF_JA, 0, 0, 2, 0),
		[PASS] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, XDP_PASS),
		[18] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		[19] = INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map),
		[20] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	a = (union bpf_attr){ .prog_type = BPF_PROG_TYPE_XDP, .insns = (uintptr_t)code, .insn_cnt = sizeof(code) / sizeof(*code),
		.license = (uintptr_t)"GPL" };
	prog = bpf(BPF_PROG_LOAD, &a);
	if (prog < 0)
		die("the kernel refuses the filter: %s", strerror(errno));
	a = (union bpf_attr){ 0 };
	a.map_fd = (uint32_t)map;
	a.key = (uintptr_t)&opt.queue;
	a.value = (uintptr_t)&xsk;
	if (bpf(BPF_MAP_UPDATE_ELEM, &a))
		die("cannot put the socket into the XSKMAP: %s", strerror(errno));
	a = (union bpf_attr){ 0 };
	a.link_create.prog_fd = (uint32_t)prog;
	a.link_create.target_ifindex = (uint32_t)ifindex;
	a.link_create.attach_type = BPF_XDP;
	a.link_create.flags = XDP_FLAGS_DRV_MODE;
	/* The link lives as long as the process: it detaches by itself. */
	if (bpf(BPF_LINK_CREATE, &a) < 0)
		die("cannot attach native XDP to %s: %s (does another program hold it?)", opt.dev, strerror(errno));
}

static void ring_map(struct ring *r, const struct xdp_ring_offset *o, size_t desc, off_t where)
{
	uint8_t *p = mmap(NULL, o->desc + RING * desc, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, xsk, where);

	if (p == MAP_FAILED)
		die("cannot map a ring: %s", strerror(errno));
	r->producer = (void *)(p + o->producer);
	r->consumer = (void *)(p + o->consumer);
	r->desc = p + o->desc;
}

static void xsk_setup(int ifindex)
{
	struct xdp_umem_reg reg = { .len = FRAMES * FRAME, .chunk_size = FRAME };
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof(off);
	struct sockaddr_xdp sa = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY, .sxdp_ifindex = (uint32_t)ifindex, .sxdp_queue_id = opt.queue };
	int size = RING;

	umem = mmap(NULL, FRAMES * FRAME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (umem == MAP_FAILED || xsk < 0)
		die("no AF_XDP socket: %s (needs root and CONFIG_XDP_SOCKETS)", strerror(errno));
	reg.addr = (uintptr_t)umem;
	if (setsockopt(xsk, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) || setsockopt(xsk, SOL_XDP, XDP_UMEM_FILL_RING, &size, sizeof(size)) ||
	    setsockopt(xsk, SOL_XDP, XDP_UMEM_COMPLETION_RING, &size, sizeof(size)) || setsockopt(xsk, SOL_XDP, XDP_RX_RING, &size, sizeof(size)) ||
	    setsockopt(xsk, SOL_XDP, XDP_TX_RING, &size, sizeof(size)) || getsockopt(xsk, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len))
		die("cannot set up the AF_XDP socket: %s", strerror(errno));
	ring_map(&fill, &off.fr, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING);
	ring_map(&completion, &off.cr, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
	ring_map(&rx, &off.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
	ring_map(&tx, &off.tx, sizeof(struct xdp_desc), (off_t)XDP_PGOFF_TX_RING);
	/* The queue of a socket that was closed a moment ago stays busy for some 10 ms. */
	for (int tries = 0; bind(xsk, (struct sockaddr *)&sa, sizeof(sa)); tries++) {
		if (errno != EBUSY || tries == 100)
			die("cannot bind to %s queue %u: %s", opt.dev, opt.queue, strerror(errno));
		usleep(10000);
	}
	for (uint32_t i = 0; i < FRAMES / 2; i++)
		tx_free[tx_nfree++] = (FRAMES / 2 + i) * FRAME;
	for (uint32_t i = 0; i < RING; i++)
		((uint64_t *)fill.desc)[fill.mine++ % RING] = i * FRAME;
	__atomic_store_n(fill.producer, fill.mine, __ATOMIC_RELEASE);
}

/* The next frame received, or NULL; to be returned by give_back. */
static uint8_t *receive(uint32_t *len)
{
	const struct xdp_desc *d;

	if (__atomic_load_n(rx.producer, __ATOMIC_ACQUIRE) == rx.mine)
		return NULL;
	d = &((struct xdp_desc *)rx.desc)[rx.mine % RING];
	*len = d->len;
	return umem + d->addr;
}

static void give_back(const uint8_t *frame)
{
	((uint64_t *)fill.desc)[fill.mine++ % RING] = (uint64_t)(frame - umem) & ~(uint64_t)(FRAME - 1);
	__atomic_store_n(fill.producer, fill.mine, __ATOMIC_RELEASE);
	__atomic_store_n(rx.consumer, ++rx.mine, __ATOMIC_RELEASE);
}

static void transmit(const uint8_t *frame, uint32_t len)
{
	uint32_t addr, done = __atomic_load_n(completion.producer, __ATOMIC_ACQUIRE);

	while (completion.mine != done)
		tx_free[tx_nfree++] = (uint32_t)((uint64_t *)completion.desc)[completion.mine++ % RING] & ~(uint32_t)(FRAME - 1);
	__atomic_store_n(completion.consumer, completion.mine, __ATOMIC_RELEASE);
	if (!tx_nfree)
		die("%s completes no sends", opt.dev);
	addr = tx_free[--tx_nfree];
	memcpy(umem + addr, frame, len);
	((struct xdp_desc *)tx.desc)[tx.mine++ % RING] = (struct xdp_desc){ .addr = addr, .len = len };
	__atomic_store_n(tx.producer, tx.mine, __ATOMIC_RELEASE);
	if (sendto(xsk, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN && errno != EBUSY && errno != ENOBUFS)
		die("cannot send on %s: %s", opt.dev, strerror(errno));
}

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t t = a[i];

		a[i] = b[i];
		b[i] = t;
	}
}

static void serve(void)
{
	uint64_t last = now(), echoed = 0;
	uint32_t len, idle = 0;
	uint8_t *f;

	puts("READY");
	fflush(stdout);
	while (!stop) {
		f = receive(&len);
		if (!f) {
			if (!(++idle & 0xffff) && now() - last > opt.seconds * 1000000000ull)
				break;
			continue;
		}
		if (!(++echoed & 0xfff))
			last = now();
		swap(f, f + ETH_ALEN, ETH_ALEN);
		swap(f + ETH_HLEN + 12, f + ETH_HLEN + 16, 4);	/* addresses; the IP checksum stays right */
		transmit(f, len);
		give_back(f);
	}
}

static uint16_t ip_checksum(const uint8_t *p)
{
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* Same port at both ends, so that one filter fits both. No UDP checksum: nobody but the other bare loop reads it. */
static uint32_t frame_build(uint8_t *f)
{
	struct ethhdr eth = { .h_proto = htons(ETH_P_IP) };
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = opt.saddr, .daddr = opt.daddr };
	struct udphdr udp = { .source = htons(opt.port), .dest = htons(opt.port), .len = htons((uint16_t)(8 + opt.payload)) };

	memcpy(eth.h_dest, opt.dmac, ETH_ALEN);
	memcpy(eth.h_source, opt.smac, ETH_ALEN);
	ip.tot_len = htons((uint16_t)(28 + opt.payload));
	ip.check = ip_checksum((uint8_t *)&ip);
	memcpy(f, &eth, sizeof(eth));
	memcpy(f + ETH_HLEN, &ip, sizeof(ip));
	memcpy(f + ETH_HLEN + sizeof(ip), &udp, sizeof(udp));
	memset(f + HEADERS, 0, opt.payload);
	return HEADERS + opt.payload;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void report(uint32_t *v, size_t n, uint64_t lost)
{
	if (!n)
		die("no answer from the server");
	qsort(v, n, sizeof(*v), compare);
	double p50 = v[n / 2] / 1e3, p99 = v[n * 99 / 100] / 1e3, p999 = v[n * 999 / 1000] / 1e3;

	if (opt.json)
		printf("{\"messages\": %zu, \"lost\": %llu, \"rtt_us\": {\"min\": %.3f, \"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f}, "
		       "\"half_us\": {\"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f}}\n",
		       n, (unsigned long long)lost, v[0] / 1e3, p50, p99, p999, p50 / 2, p99 / 2, p999 / 2);
	else
		printf("%zu messages, %llu lost; RTT us: min %.2f p50 %.2f p99 %.2f p99.9 %.2f; half: p50 %.2f p99 %.2f p99.9 %.2f\n",
		       n, (unsigned long long)lost, v[0] / 1e3, p50, p99, p999, p50 / 2, p99 / 2, p999 / 2);
}

static void measure(void)
{
	static uint8_t frame[FRAME];
	uint32_t *v = malloc(MAX_SAMPLES * sizeof(*v)), len = frame_build(frame), got, lost = 0;
	uint64_t start = now(), seq = 0, sent, t, echo;
	size_t n = 0;
	uint8_t *f;

	if (!v)
		die("out of memory");
	while (!stop && n < MAX_SAMPLES) {
		seq++;
		memcpy(frame + HEADERS, &seq, sizeof(seq));
		sent = now();
		if (sent - start > opt.seconds * 1000000000ull)
			break;
		transmit(frame, len);
		for (uint32_t spins = 1; ; spins++) {
			f = receive(&got);
			if (f) {
				memcpy(&echo, f + HEADERS, sizeof(echo));
				give_back(f);
				if (got == len && echo == seq) {
					t = now();
					/* the first tenth of a second warms caches up */
					if (t - start > 100000000u)
						v[n++] = (uint32_t)(t - sent);
					break;
				}
			} else if (!(spins & 0xfff) && now() - sent > 200000000u) {
				if (++lost > 20)
					die("more than 20 frames lost");
				break;
			}
		}
	}
	report(v, n, lost);
	free(v);
}

static void own_mac(int ifindex)
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!if_indextoname((uint32_t)ifindex, ifr.ifr_name) || s < 0 || ioctl(s, SIOCGIFHWADDR, &ifr))
		die("no MAC of %s: %s", opt.dev, strerror(errno));
	memcpy(opt.smac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
	close(s);
}

static uint32_t number(const char *s, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (end == s || *end || n < min || n > max)
		die("'%s' is not a number from %u to %u", s, min, max);
	return (uint32_t)n;
}

static void usage(FILE *to, int status) __attribute__((noreturn));
static void usage(FILE *to, int status)
{
	fputs("usage: xsk_pingpong server -i DEV [-q QUEUE] [-p PORT] [-c CPU] [-t SECONDS]\n"
	      "       xsk_pingpong client -i DEV -s ADDRESS -d ADDRESS -D MAC [-q QUEUE] [-p PORT] [-c CPU] [-t SECONDS] [-l PAYLOAD] [-j]\n"
	      "Ping-pong between two AF_XDP sockets. -s, -d, -D: own and remote IPv4 address, remote MAC; -t: the client's duration, or how long\n"
	      "the server waits for a frame (3); -l: octets of UDP payload, 16 to 1458 (64); -p: UDP port (7700); -j: print JSON.\n", to);
	exit(status);
}

int main(int argc, char **argv)
{
	int c, ifindex;

	if (argc > 1 && !strcmp(argv[1], "--help"))
		usage(stdout, 0);
	if (argc < 2 || (strcmp(argv[1], "server") && strcmp(argv[1], "client")))
		usage(stderr, 2);
	opt.client = !strcmp(argv[1], "client");
	optind = 2;
	while ((c = getopt(argc, argv, "i:q:s:d:D:p:c:t:l:j")) > 0)
		switch (c) {
		case 'i': opt.dev = optarg; break;
		case 'q': opt.queue = number(optarg, 0, 63); break;
		case 's': if (inet_pton(AF_INET, optarg, &opt.saddr) != 1) die("'%s' is no IPv4 address", optarg); break;
		case 'd': if (inet_pton(AF_INET, optarg, &opt.daddr) != 1) die("'%s' is no IPv4 address", optarg); break;
		case 'D':
			if (sscanf(optarg, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &opt.dmac[0], &opt.dmac[1], &opt.dmac[2], &opt.dmac[3],
				   &opt.dmac[4], &opt.dmac[5]) != 6)
				die("'%s' is no MAC", optarg);
			break;
		case 'p': opt.port = (uint16_t)number(optarg, 1, 65535); break;
		case 'c': opt.cpu = (int)number(optarg, 0, 1023); break;
		case 't': opt.seconds = number(optarg, 1, 3600); break;
		case 'l': opt.payload = number(optarg, 16, 1458); break;
		case 'j': opt.json = true; break;
		default: usage(stderr, 2);
		}
	if (optind < argc || !opt.dev || (opt.client && (!opt.saddr || !opt.daddr)))
		usage(stderr, 2);
	if (opt.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((size_t)opt.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			die("cannot run on CPU %d: %s", opt.cpu, strerror(errno));
	}
	setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY });
	ifindex = (int)if_nametoindex(opt.dev);
	if (!ifindex)
		die("no device %s", opt.dev);
	own_mac(ifindex);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	xsk_setup(ifindex);
	attach_filter(ifindex);
	if (opt.client)
		measure();
	else
		serve();
	return 0;
}
