/*
 * stream.c - numbered messages to an echo server and back, over plain sockets: what an ordinary program notices of a failover.
 *
 * The client knows of each message when it left and whether it came back, once, with its contents, and prints one JSON object: counts,
 * round-trip percentiles, the longest time without an answer, and the same by buckets of time. Times are CLOCK_MONOTONIC, so that whoever
 * pulls the VF away meanwhile can mark it in the same time. Nothing in here knows of acceleration.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SIZE = 65000, MAX_MESSAGES = 20 * 1000 * 1000, MAX_IN_FLIGHT = 65536 };

struct sample {
	uint64_t at;		/* when the answer came */
	uint32_t rtt;		/* ns */
};

static struct {
	const char *addr, *port;
	bool udp, client, spin;
	uint32_t size, window, seconds, rate, timeout, bucket;
	int cpu;
} opt = { .port = "7800", .size = 64, .window = 1, .seconds = 5, .timeout = 20, .bucket = 10, .cpu = -1 };

static volatile sig_atomic_t stop;

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *fmt, ...)
{
	va_list ap;

	fputs("stream: ", stderr);
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

static int socket_open(struct sockaddr_storage *sa, socklen_t *len)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (opt.client ? 0 : AI_PASSIVE),
				  .ai_socktype = opt.udp ? SOCK_DGRAM : SOCK_STREAM }, *ai;
	int one = 1, s, err;

	err = getaddrinfo(opt.addr, opt.port, &hints, &ai);
	if (err)
		die("%s port %s: %s", opt.addr ? opt.addr : "any address", opt.port, gai_strerror(err));
	s = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, 0);
	if (s < 0)
		die("no socket: %s", strerror(errno));
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	memcpy(sa, ai->ai_addr, ai->ai_addrlen);
	*len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return s;
}

/* One call that waits, or with -n calls that don't until there is something. */
static ssize_t receive(int s, void *buf, size_t len, struct sockaddr_storage *from, socklen_t *fromlen, uint64_t deadline)
{
	ssize_t n;

	if (!opt.spin)
		return recvfrom(s, buf, len, 0, (struct sockaddr *)from, fromlen);
	while ((n = recvfrom(s, buf, len, MSG_DONTWAIT, (struct sockaddr *)from, fromlen)) < 0 && errno == EAGAIN && !stop)
		if (deadline && now() > deadline)
			break;
	return n;
}

static bool write_all(int s, const uint8_t *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(s, buf + done, len - done, MSG_NOSIGNAL);

		if (n < 0) {
			if (errno == EINTR && !stop)
				continue;
			return false;
		}
		done += (size_t)n;
	}
	return true;
}

static void serve_udp(int s)
{
	static uint8_t buf[MAX_SIZE];
	struct sockaddr_storage from;
	socklen_t len;
	ssize_t n;

	while (!stop) {
		len = sizeof(from);
		n = receive(s, buf, sizeof(buf), &from, &len, 0);
		/* An answer that cannot be sent is a lost message: the client counts it. */
		if (n >= 0 && sendto(s, buf, (size_t)n, 0, (struct sockaddr *)&from, len) < 0)
			continue;
	}
}

static void serve_tcp(int listener)
{
	static uint8_t buf[MAX_SIZE];
	int one = 1;

	while (!stop) {
		int c = accept(listener, NULL, NULL);
		ssize_t n;

		if (c < 0)
			continue;
		setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (!stop && ((n = receive(c, buf, sizeof(buf), NULL, NULL, 0)) > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN))))
			if (n > 0 && !write_all(c, buf, (size_t)n))
				break;
		close(c);
	}
}

static void serve(void)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int s = socket_open(&sa, &len);

	if (bind(s, (struct sockaddr *)&sa, len) || (!opt.udp && listen(s, 8)))
		die("cannot listen on port %s: %s", opt.port, strerror(errno));
	puts("READY");
	fflush(stdout);
	alarm(opt.seconds);	/* a server whose client died doesn't stay for ever */
	if (opt.udp)
		serve_udp(s);
	else
		serve_tcp(s);
	close(s);
}

static struct {
	uint64_t *sent_at;	/* by message number; 0 once answered */
	struct sample *samples;
	uint32_t sent, received, duplicated, corrupt, late, errors, in_flight;
	uint64_t start, last, stall, stall_at;
} cl;

static void message_fill(uint8_t *buf, uint32_t n)
{
	for (uint32_t i = 0; i < opt.size; i++)
		buf[i] = (uint8_t)(n * 31 + i);
	memcpy(buf, &n, sizeof(n));
}

static void answer(const uint8_t *buf, size_t len, uint64_t t)
{
	static uint8_t expected[MAX_SIZE];
	uint32_t n;

	if (len != opt.size) {
		cl.corrupt++;
		return;
	}
	memcpy(&n, buf, sizeof(n));
	if (n < cl.sent)
		message_fill(expected, n);
	if (n >= cl.sent || memcmp(buf, expected, len)) {
		cl.corrupt++;
		return;
	}
	if (!cl.sent_at[n]) {
		cl.duplicated++;
		return;
	}
	cl.samples[cl.received++] = (struct sample){ t, t - cl.sent_at[n] < UINT32_MAX ? (uint32_t)(t - cl.sent_at[n]) : UINT32_MAX };
	cl.sent_at[n] = 0;
	if (t - cl.last > cl.stall) {
		cl.stall = t - cl.last;
		cl.stall_at = cl.last;
	}
	cl.last = t;
	if (cl.in_flight)
		cl.in_flight--;
	else
		cl.late++;
}

/* Take what has come; false when the stream is over. */
static bool collect(int s)
{
	static uint8_t buf[MAX_SIZE];
	static size_t have;
	size_t want = opt.udp ? sizeof(buf) : opt.size - have;
	ssize_t n = receive(s, buf + have, want, NULL, NULL, opt.udp ? now() + opt.timeout * 1000000ull : 0);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			if (!opt.udp)
				return false;
			cl.errors++;	/* for instance an ICMP error of an earlier datagram */
		} else if (errno == EAGAIN && opt.udp) {
			cl.in_flight = 0;	/* given up; those that come late are counted */
		}
		return true;
	}
	if (!opt.udp) {
		if (!n)
			return false;
		have += (size_t)n;
		if (have < opt.size)
			return true;
		have = 0;
		answer(buf, opt.size, now());
	} else {
		answer(buf, (size_t)n, now());
	}
	return true;
}

static int by_rtt(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double us(uint32_t ns)
{
	return ns / 1e3;
}

static void print_series(const char *name, const double *v, size_t n, const char *end)
{
	printf(" \"%s\": [", name);
	for (size_t i = 0; i < n; i++)
		if (v[i] < 0)
			printf("%snull", i ? ", " : "");
		else
			printf("%s%.6g", i ? ", " : "", v[i]);
	printf("]%s", end);
}

static void report(uint64_t end, bool broken)
{
	uint64_t width = opt.bucket * 1000000ull;
	size_t nb = (size_t)((end - cl.start) / width) + 1, i = 0;
	uint32_t *rtt = malloc((cl.received + 1) * sizeof(*rtt)), n = cl.received;
	double *count = calloc(nb, sizeof(double)), *p50 = calloc(nb, sizeof(double)), *p99 = calloc(nb, sizeof(double)), *max = calloc(nb, sizeof(double));

	if (!rtt || !count || !p50 || !p99 || !max)
		die("out of memory");
	/* Samples are in order of arrival, so buckets are runs of them. */
	for (size_t b = 0; b < nb; b++) {
		uint32_t k = 0;

		while (i < n && (cl.samples[i].at - cl.start) / width == b)
			rtt[k++] = cl.samples[i++].rtt;
		qsort(rtt, k, sizeof(*rtt), by_rtt);
		count[b] = k;
		p50[b] = k ? us(rtt[k / 2]) : -1;
		p99[b] = k ? us(rtt[(uint64_t)k * 99 / 100]) : -1;
		max[b] = k ? us(rtt[k - 1]) : -1;
	}
	for (i = 0; i < n; i++)
		rtt[i] = cl.samples[i].rtt;
	qsort(rtt, n, sizeof(*rtt), by_rtt);
	printf("{\"protocol\": \"%s\", \"size\": %u, \"window\": %u, \"spin\": %s, \"start_ns\": %llu, \"seconds\": %.6f, \"broken\": %s,\n", opt.udp ? "udp" : "tcp",
	       opt.size, opt.window, opt.spin ? "true" : "false", (unsigned long long)cl.start, (double)(end - cl.start) / 1e9, broken ? "true" : "false");
	printf(" \"sent\": %u, \"received\": %u, \"lost\": %u, \"late\": %u, \"duplicated\": %u, \"corrupt\": %u, \"errors\": %u,\n", cl.sent, n, cl.sent - n, cl.late,
	       cl.duplicated, cl.corrupt, cl.errors);
	if (n)
		printf(" \"rtt_us\": {\"min\": %.3f, \"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f, \"max\": %.3f},\n", us(rtt[0]), us(rtt[n / 2]),
		       us(rtt[(uint64_t)n * 99 / 100]), us(rtt[(uint64_t)n * 999 / 1000]), us(rtt[n - 1]));
	printf(" \"longest_stall_us\": %.3f, \"longest_stall_at_ms\": %.3f,\n \"bucket_ms\": %u,\n", (double)cl.stall / 1e3,
	       cl.stall_at ? (double)(cl.stall_at - cl.start) / 1e6 : 0, opt.bucket);
	print_series("messages", count, nb, ",\n");
	print_series("p50_us", p50, nb, ",\n");
	print_series("p99_us", p99, nb, ",\n");
	print_series("max_us", max, nb, "}\n");
}

static void measure(void)
{
	static uint8_t buf[MAX_SIZE];
	struct sockaddr_storage sa;
	socklen_t len;
	int s = socket_open(&sa, &len), one = 1;
	struct timeval tv = { .tv_sec = opt.udp ? opt.timeout / 1000 : 30, .tv_usec = opt.udp ? opt.timeout % 1000 * 1000 : 0 };
	uint64_t end, give_up;
	bool broken = false;

	cl.sent_at = calloc(MAX_MESSAGES, sizeof(*cl.sent_at));
	cl.samples = calloc(MAX_MESSAGES, sizeof(*cl.samples));
	if (!cl.sent_at || !cl.samples)
		die("out of memory");
	if (connect(s, (struct sockaddr *)&sa, len))
		die("cannot connect to %s port %s: %s", opt.addr, opt.port, strerror(errno));
	if (!opt.udp)
		setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	cl.start = cl.last = now();
	end = cl.start + opt.seconds * 1000000000ull;
	while (!stop && !broken && now() < end && cl.sent < MAX_MESSAGES) {
		while (cl.in_flight < opt.window && cl.sent < MAX_MESSAGES) {
			uint64_t t = now(), due = opt.rate ? cl.start + cl.sent * 1000000000ull / opt.rate : 0;

			if (due > t) {
				struct timespec ts = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };

				if (cl.in_flight)
					break;
				clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
				t = now();
			}
			message_fill(buf, cl.sent);
			cl.sent_at[cl.sent++] = t;
			cl.in_flight++;
			if (opt.udp) {
				if (send(s, buf, opt.size, 0) < 0)
					cl.errors++;
			} else if (!write_all(s, buf, opt.size)) {
				broken = true;
				break;
			}
		}
		if (!broken)
			broken = !collect(s);
	}
	end = now();
	/* What is still on its way is not lost. */
	give_up = end + (opt.udp ? 500000000u : 30000000000ull);
	while (!broken && cl.received < cl.sent && now() < give_up)
		broken = !collect(s);
	close(s);
	report(now(), broken);
	if (broken)
		exit(1);
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
	fputs("usage: stream server tcp|udp [-a ADDRESS] [-p PORT] [-n] [-c CPU] [-t SECONDS]\n"
	      "       stream client tcp|udp -a ADDRESS [-p PORT] [-l SIZE] [-w WINDOW] [-r RATE] [-n] [-c CPU] [-t SECONDS] [-T MS] [-b MS]\n"
	      "-l: octets of a message (64); -w: messages in flight (1); -r: messages a second (0: as fast as answers come); -n: never wait in\n"
	      "the kernel; -t: the client's duration, or the server's longest life (5); -T: UDP: an answer is given up after that (20 ms);\n"
	      "-b: width of the time series' buckets (10 ms). The client prints JSON, the server READY when it listens.\n", to);
	exit(status);
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };	/* no SA_RESTART: a waiting call shall end */
	int c;

	if (argc > 1 && !strcmp(argv[1], "--help"))
		usage(stdout, 0);
	if (argc < 3 || (strcmp(argv[1], "server") && strcmp(argv[1], "client")) || (strcmp(argv[2], "tcp") && strcmp(argv[2], "udp")))
		usage(stderr, 2);
	opt.client = !strcmp(argv[1], "client");
	opt.udp = !strcmp(argv[2], "udp");
	optind = 3;
	while ((c = getopt(argc, argv, "a:p:l:w:r:nc:t:T:b:")) > 0)
		switch (c) {
		case 'a': opt.addr = optarg; break;
		case 'p': opt.port = optarg; break;
		case 'l': opt.size = number(optarg, 4, MAX_SIZE); break;
		case 'w': opt.window = number(optarg, 1, 4096); break;
		case 'r': opt.rate = number(optarg, 0, 10000000); break;
		case 'n': opt.spin = true; break;
		case 'c': opt.cpu = (int)number(optarg, 0, 1023); break;
		case 't': opt.seconds = number(optarg, 1, 3600); break;
		case 'T': opt.timeout = number(optarg, 1, 10000); break;
		case 'b': opt.bucket = number(optarg, 1, 10000); break;
		default: usage(stderr, 2);
		}
	if (optind < argc || (opt.client && !opt.addr))
		usage(stderr, 2);
	/* Both ends wait in send() only if both directions' buffers are full: keep well below. */
	if (opt.window * opt.size > MAX_IN_FLIGHT)
		die("more than %d octets in flight (-w times -l)", MAX_IN_FLIGHT);
	if (opt.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((size_t)opt.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			die("cannot run on CPU %d: %s", opt.cpu, strerror(errno));
	}
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGALRM, &act, NULL);
	if (opt.client)
		measure();
	else
		serve();
	return 0;
}
