/*
 * end_kernel.c - the end whose TCP is the kernel's: a namespace with one TAP device, fixed neighbours, the kernel's usual settings.
 */
#include "end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void run(struct end *e, const char *cmd)
{
	if (system(cmd) != 0)
		end_die(e, cmd);
}

static void sysctl_set(struct end *e, const char *name, const char *value)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "/proc/sys/net/ipv4/%s", name);
	f = fopen(path, "w");
	if (f == NULL || fputs(value, f) < 0 || fclose(f) != 0)
		end_die(e, path);
}

/* Is fd78::N delivered here? The kernel enters the route to a new address from a work queue: on a busy machine after the address itself, and what
 * comes before that is dropped without a word. */
static bool has_local_route(const struct end *e)
{
	char want[40], line[256];
	bool found = false;
	FILE *f = fopen("/proc/thread-self/net/ipv6_route", "r");

	if (f == NULL)
		return false;
	snprintf(want, sizeof want, "fd78%026u%02x 80 ", 0u, e->side + 1);
	while (!found && fgets(line, sizeof line, f) != NULL)
		found = strncmp(line, want, strlen(want)) == 0;
	fclose(f);
	return found;
}

static void make_namespace(struct end *e)
{
	uint8_t m[6], p[6];
	char cmd[1024], v[64];

	if (unshare(CLONE_NEWNET) != 0)
		end_die(e, "unshare");
	e->fd = relay_tap("t0");
	if (e->fd < 0)
		end_die(e, "TAP device");
	end_mac(e->side, m);
	end_mac(!e->side, p);
	snprintf(cmd, sizeof cmd,
	    "ip link set lo up && ip link set t0 address %02x:%02x:%02x:%02x:%02x:%02x txqueuelen 10000 && ip addr add 10.78.0.%u/24 dev t0 && "
	    "ip addr add fd78::%u/64 dev t0 nodad && ip link set t0 up && "
	    "ip neigh replace 10.78.0.%u lladdr %02x:%02x:%02x:%02x:%02x:%02x dev t0 nud permanent && "
	    "ip neigh replace fd78::%u lladdr %02x:%02x:%02x:%02x:%02x:%02x dev t0 nud permanent",
	    m[0], m[1], m[2], m[3], m[4], m[5], e->side + 1, e->side + 1, !e->side + 1, p[0], p[1], p[2], p[3], p[4], p[5], !e->side + 1, p[0], p[1],
	    p[2], p[3], p[4], p[5]);
	run(e, cmd);
	while (!has_local_route(e))
		usleep(1000); /* --limit ends it */
	/* the defaults of Linux, whatever this machine's are */
	sysctl_set(e, "tcp_no_metrics_save", "1");
	snprintf(v, sizeof v, "4096 131072 %u", e->rmem_max);
	sysctl_set(e, "tcp_rmem", v);
	snprintf(v, sizeof v, "4096 16384 %u", e->wmem_max);
	sysctl_set(e, "tcp_wmem", v);
}

static socklen_t address(const struct end *e, unsigned side, struct sockaddr_storage *ss)
{
	uint8_t a[16];

	memset(ss, 0, sizeof *ss);
	end_addr(e->family, side, a);
	if (e->family == 6) {
		struct sockaddr_in6 *s = (struct sockaddr_in6 *)ss;

		s->sin6_family = AF_INET6;
		s->sin6_port = htons(END_PORT);
		memcpy(&s->sin6_addr, a, 16);
		return sizeof *s;
	}
	struct sockaddr_in *s = (struct sockaddr_in *)ss;

	s->sin_family = AF_INET;
	s->sin_port = htons(END_PORT);
	memcpy(&s->sin_addr, a, 4);
	return sizeof *s;
}

static uint64_t netstat(const char *name)
{
	static const char space[] = " \n";
	char head[8192], line[8192], *hs, *ls;
	uint64_t v = 0;
	FILE *f = fopen("/proc/thread-self/net/netstat", "r");

	if (f == NULL)
		return 0;
	while (fgets(head, sizeof head, f) != NULL && fgets(line, sizeof line, f) != NULL) {
		char *h = strtok_r(head, space, &hs), *l = strtok_r(line, space, &ls);

		for (; h != NULL && l != NULL; h = strtok_r(NULL, space, &hs), l = strtok_r(NULL, space, &ls)) {
			if (strcmp(h, name) == 0)
				v = strtoull(l, NULL, 10);
		}
	}
	fclose(f);
	return v;
}

static void transfer(struct end *e, int s)
{
	struct app *a = &e->app;
	uint32_t have = 0, at = 0; /* of buf: what is left to send */
	struct pollfd p = { .fd = s };
	uint8_t *keep = malloc(END_CHUNK); /* buf is used by both directions */

	if (keep == NULL)
		abort();
	for (;;) {
		ssize_t n;

		if (have == at) {
			have = app_next(a);
			at = 0;
			memcpy(keep, a->buf, have);
		}
		while (at != have && (n = send(s, keep + at, have - at, MSG_NOSIGNAL)) > 0) {
			at += (uint32_t)n;
			app_sent(a, (uint32_t)n);
			if (at == have) {
				have = app_next(a);
				at = 0;
				memcpy(keep, a->buf, have);
			}
		}
		while ((n = recv(s, a->buf, sizeof a->buf, 0)) > 0)
			app_read(a, (uint32_t)n);
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			end_die(e, "the connection broke");
		if (app_finished(a) && app_all_sent(a))
			break; /* the kernel goes on sending by itself */
		if (have == at && app_next(a) != 0)
			continue;
		p.events = (short)(POLLIN | (have != at ? POLLOUT : 0));
		poll(&p, 1, 20);
	}
	atomic_fetch_add(&e->meet->finished, 1);
	free(keep);
}

/* TCP_INFO twice per millisecond, written when it differs: the smallest round trip of the tool's networks is some milliseconds. */
struct tracer { struct end *e; int s; atomic_bool stop; };

static void *trace(void *arg)
{
	struct tracer *t = arg;
	struct tcp_info ti, old = { 0 };
	socklen_t tl;

	end_realtime(6);
	while (!atomic_load(&t->stop)) {
		tl = sizeof ti;
		if (getsockopt(t->s, IPPROTO_TCP, TCP_INFO, &ti, &tl) == 0 && (ti.tcpi_snd_cwnd != old.tcpi_snd_cwnd ||
		    ti.tcpi_snd_ssthresh != old.tcpi_snd_ssthresh || ti.tcpi_ca_state != old.tcpi_ca_state)) {
			fprintf(t->e->trace, "%.3f cwnd %u ssthresh %u ca %u rexmit %u flight %u srtt %u%s\n",
			    (double)(relay_now_ns() - t->e->app.first_ns) / 1e6, ti.tcpi_snd_cwnd, ti.tcpi_snd_ssthresh, ti.tcpi_ca_state,
			    ti.tcpi_total_retrans, ti.tcpi_unacked, ti.tcpi_rtt, old.tcpi_snd_ssthresh == 0 ? "" :
			    ti.tcpi_snd_ssthresh < old.tcpi_snd_ssthresh ? " reduced" : ti.tcpi_snd_ssthresh > old.tcpi_snd_ssthresh ? " raised" : "");
			old = ti;
		}
		usleep(500);
	}
	return NULL;
}

void *end_kernel(void *arg)
{
	struct end *e = arg;
	struct sockaddr_storage ss;
	struct tcp_info ti;
	socklen_t sl, tl = sizeof ti;
	int l = -1, s, one = 1;
	struct tracer tr;
	pthread_t tracing;

	make_namespace(e);
	s = socket(e->family == 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		end_die(e, "socket");
	if (setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, e->cc, (socklen_t)strlen(e->cc)) != 0)
		end_die(e, e->cc);
	if (!e->connects) {
		l = s;
		sl = address(e, e->side, &ss);
		if (bind(l, (struct sockaddr *)&ss, sl) != 0 || listen(l, 1) != 0)
			end_die(e, "listen");
	}
	pthread_barrier_wait(&e->meet->ready);
	e->where = "handshake";
	if (e->connects) {
		sl = address(e, !e->side, &ss);
		if (connect(s, (struct sockaddr *)&ss, sl) != 0)
			end_die(e, "connect");
	} else {
		s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		if (s < 0)
			end_die(e, "accept");
	}
	if (setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 || fcntl(s, F_SETFL, O_NONBLOCK) != 0)
		end_die(e, "TCP_NODELAY");
	if (netstat("TCPTimeouts") != 0)
		end_late();
	if (getsockopt(s, IPPROTO_TCP, TCP_INFO, &ti, &tl) != 0)
		end_die(e, "TCP_INFO");
	e->handshake_us = ti.tcpi_rtt;
	end_realtime(5);
	pthread_barrier_wait(&e->meet->connected);
	pthread_barrier_wait(&e->meet->armed);
	e->app.first_ns = e->app.last_read_ns = relay_now_ns();
	tr = (struct tracer){ .e = e, .s = s };
	if (e->trace != NULL && pthread_create(&tracing, NULL, trace, &tr) != 0)
		end_die(e, "thread");
	e->sock = s;
	e->where = "transfer";
	transfer(e, s);
	e->where = "done";
	pthread_barrier_wait(&e->meet->done);
	if (e->trace != NULL) {
		atomic_store(&tr.stop, true);
		pthread_join(tracing, NULL);
	}
	if (getsockopt(s, IPPROTO_TCP, TCP_INFO, &ti, &tl) != 0)
		end_die(e, "TCP_INFO");
	e->rexmit = ti.tcpi_total_retrans;
	e->cwnd = ti.tcpi_snd_cwnd;
	e->ssthresh = ti.tcpi_snd_ssthresh;
	e->srtt_us = ti.tcpi_rtt;
	e->rto = netstat("TCPTimeouts");
	e->tlp = netstat("TCPLossProbes");
	e->spurious = netstat("TCPDSACKRecv");
	return NULL;
}
