/*
 * impaired.c - one connection through a bad network: kernel to kernel, or src/stack at either end; says what came of it as one line of JSON.
 *
 *   impaired [--a=kernel|stack] [--b=kernel|stack] [--sender=a|b] [--connect=a|b] [--family=4|6] [--bytes=N | --rounds=N --request=N --response=N]
 *            [--cc=cubic|reno] [--late-a=MS] [--late-b=MS] [--pcap-a=FILE] [--pcap-b=FILE] [--trace-a=FILE] [--trace-b=FILE] [--limit=SECONDS] [what relay.h takes]
 *
 * Stalls are judged by stall.h; --late-a makes our timers late, which has to show there. Time runs from the client's first write() to its last read() (bulk: the receiver's). Needs root for network namespaces and TAP devices.
 * Status 1: the transfer failed. 3: it took longer than the limit. 4: it didn't begin as it should, and may be repeated.
 */
#include "end.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- what both ends share ---- */
void end_die(struct end *e, const char *what)
{
	fprintf(stderr, "impaired: end %c (%s): %s: %m\n", 'a' + (int)e->side, e->kernel ? "kernel" : "stack", what);
	_exit(1);
}

/* The connection begins with an RTO of seconds then and measures nothing but how busy this machine was when the devices were made. */
void end_late(void)
{
	fprintf(stderr, "impaired: the handshake was late\n");
	_exit(4);
}

void end_addr(uint8_t family, unsigned side, uint8_t a[16])
{
	memset(a, 0, 16);
	if (family == 6) {
		a[0] = 0xfd;
		a[1] = 0x78;
		a[15] = (uint8_t)(side + 1);
	} else {
		a[0] = 10;
		a[1] = 78;
		a[3] = (uint8_t)(side + 1);
	}
}

void end_mac(unsigned side, uint8_t m[6])
{
	memset(m, 0, 6);
	m[0] = 2;
	m[5] = (uint8_t)(side + 1);
}

/* Above whatever else the machine does: a late relay would be a different network. */
void end_realtime(int prio)
{
	struct sched_param p = { .sched_priority = prio };

	prctl(PR_SET_TIMERSLACK, 1);
	(void)sched_setscheduler(0, SCHED_FIFO, &p);
}

/* ---- application ---- */
static uint8_t octet(bool client, uint64_t at)
{
	uint32_t x = (uint32_t)at * 0x9e3779b1u + (uint32_t)(at >> 32) + (client ? 77u : 3u);

	return (uint8_t)(x >> 24 ^ x >> 9);
}

static uint64_t may_send(const struct app *a)
{
	uint64_t n;

	if (a->client) {
		n = a->response != 0 ? a->received / a->response + 1 : a->rounds;
		return (n < a->rounds ? n : a->rounds) * a->request;
	}
	return a->response != 0 ? a->received / a->request * a->response : 0;
}

uint32_t app_next(struct app *a)
{
	uint64_t n = may_send(a) - a->sent;

	if (n > END_CHUNK)
		n = END_CHUNK;
	for (uint32_t i = 0; i < n; i++)
		a->buf[i] = octet(a->client, a->sent + i);
	return (uint32_t)n;
}

static uint8_t side_of(const struct app *a)
{
	return a == &a->ends[1].app;
}

void app_sent(struct app *a, uint32_t n)
{
	a->sent += n;
	stall_note(&a->log, &(struct stall_event){ .ns = relay_now_ns(), .what = STALL_WROTE, .side = side_of(a), .seq = (uint32_t)a->sent });
}

/* By RFC 6298 with Linux's minimum: tcpi_rto may still be doubled from a timeout before. */
static void rto_of(const struct end *e, uint32_t *rto, uint32_t *srtt)
{
	struct tcp_info ti;
	socklen_t tl = sizeof ti;

	*rto = e->kernel ? 0 : e->at.rto_us;
	*srtt = e->kernel ? 0 : e->at.srtt_us;
	if (e->kernel && e->sock > 0 && getsockopt(e->sock, IPPROTO_TCP, TCP_INFO, &ti, &tl) == 0) {
		*rto = ti.tcpi_rtt + (ti.tcpi_rttvar > 50000 ? 4 * ti.tcpi_rttvar : 200000);
		*srtt = ti.tcpi_rtt;
	}
}

static void stall(struct app *a, uint64_t ns)
{
	uint32_t rto[2], srtt[2];

	rto_of(&a->ends[0], &rto[0], &srtt[0]);
	rto_of(&a->ends[1], &rto[1], &srtt[1]);
	a->stall_ns = ns;
	a->stall_rto_us = rto[0] > rto[1] ? rto[0] : rto[1];
	a->stall_rtt_us = srtt[0] > srtt[1] ? srtt[0] : srtt[1];
}

void app_read(struct app *a, uint32_t n)
{
	uint64_t now = relay_now_ns();

	stall_note(&a->log, &(struct stall_event){ .ns = now, .what = STALL_READ, .side = side_of(a) });
	for (uint32_t i = 0; i < n; i++)
		a->mismatches += a->buf[i] != octet(!a->client, a->received + i);
	if (now - a->last_read_ns > a->stall_ns)
		stall(a, now - a->last_read_ns);
	a->last_read_ns = a->last_ns = now;
	a->received += n;
}

bool app_finished(const struct app *a)
{
	return a->received == a->rounds * (a->client ? a->response : a->request);
}

bool app_all_sent(const struct app *a)
{
	return a->sent == a->rounds * (a->client ? a->request : a->response);
}

/* ---- one run ---- */
static void *relay_thread(void *r)
{
	end_realtime(10);
	relay_run(r);
	return NULL;
}

static void say_end(const struct end *e)
{
	printf("\"%c\": {\"tcp\": \"%s\", \"rexmit\": %llu, \"rto\": %llu, \"tlp\": %llu, \"dsack\": %llu, \"cwnd\": %u, \"ssthresh\": %u, \"srtt_us\": %u}, ",
	    'a' + (int)e->side, e->kernel ? "kernel" : "stack", (unsigned long long)e->rexmit, (unsigned long long)e->rto, (unsigned long long)e->tlp,
	    (unsigned long long)e->spurious, e->cwnd, e->ssthresh, e->srtt_us);
}

static struct end end[2];

/* Time is over: where was either end? */
static void *watchdog(void *limit)
{
	sleep(*(unsigned *)limit);
	for (unsigned i = 0; i < 2; i++) {
		const struct end *e = &end[i];
		const struct end_at *a = &e->at;
		struct tcp_info ti;
		socklen_t tl = sizeof ti;

		fprintf(stderr, "impaired: time is over: end %c (%s): %s, application sent %llu and received %llu", 'a' + (int)i,
		    e->kernel ? "kernel" : "stack", e->where != NULL ? e->where : "setup", (unsigned long long)e->app.sent,
		    (unsigned long long)e->app.received);
		if (e->kernel && e->sock > 0 && getsockopt(e->sock, IPPROTO_TCP, TCP_INFO, &ti, &tl) == 0)
			fprintf(stderr, "; state %u ca %u backoff %u probes %u unacked %u sacked %u lost %u cwnd %u notsent %u snd_wnd %u rto %u",
			    ti.tcpi_state, ti.tcpi_ca_state, ti.tcpi_backoff, ti.tcpi_probes, ti.tcpi_unacked, ti.tcpi_sacked, ti.tcpi_lost,
			    ti.tcpi_snd_cwnd, ti.tcpi_notsent_bytes, ti.tcpi_snd_wnd, ti.tcpi_rto);
		else if (!e->kernel)
			fprintf(stderr, "; una %u nxt %u end %u edge %u, rcv_nxt %u rcv_edge %u, cwnd %u ca %u timer %u backoff %u lost %u sacked %u, "
			    "out of order %u, %u of %u octets of receive buffer", a->snd_una, a->snd_nxt, a->snd_end, a->snd_edge, a->rcv_nxt,
			    a->rcv_edge, a->cwnd, a->ca, a->rtx_kind, a->backoff, a->lost, a->sacked, a->ooo, a->charge, a->rcvbuf);
		fputc('\n', stderr);
	}
	_exit(3);
}

static void usage(void)
{
	fprintf(stderr, "usage: impaired [OPTION...]\n"
	    "  --a=kernel|stack --b=kernel|stack   whose TCP is at each end (kernel)\n"
	    "  --sender=a|b --connect=a|b --family=4|6\n"
	    "  --bytes=N         one transfer, or\n"
	    "  --rounds=N --request=N --response=N\n"
	    "  --cc=cubic|reno --rmem=MAX --wmem=MAX --pcap-a=FILE --pcap-b=FILE --limit=SECONDS\n"
	    "  --late-a=MS --late-b=MS             timers of src/stack come so much later\n"
	    "  --trace-a=FILE --trace-b=FILE       cwnd, ssthresh and state over time\n%s", relay_usage);
	exit(2);
}

int main(int argc, char **argv)
{
	static struct meet meet;
	struct relay_conf rc = { .delay_us = 5000, .queue = 250000, .hold_us = 3000 };
	struct relay_count n[2];
	struct pcap *pcap[2] = { NULL, NULL };
	unsigned sender = 0, connects = 0, limit = 60;
	uint64_t request = 1000000, response = 0, rounds = 1, ns;
	struct app *from, *to, *last;
	struct stall_log seen = { 0 };
	struct stall_report sr;
	struct relay *r;
	pthread_t rt, wt;

	for (unsigned i = 0; i < 2; i++) {
		end[i].kernel = true;
		end[i].family = 4;
		end[i].cc = "cubic";
		end[i].rmem_max = 6291456;
		end[i].wmem_max = 4194304;
		end[i].side = i;
		end[i].meet = &meet;
	}
	for (int i = 1; i < argc; i++) {
		const char *v = strchr(argv[i], '=');
		size_t k;

		if (relay_option(&rc, argv[i]))
			continue;
		if (v == NULL)
			usage();
		k = (size_t)(++v - argv[i]);
#define IS(name) (k == sizeof name && memcmp(argv[i], name "=", k) == 0)
		if (IS("--a") || IS("--b"))
			end[argv[i][2] - 'a'].kernel = strcmp(v, "kernel") == 0;
		else if (IS("--sender"))
			sender = *v == 'b';
		else if (IS("--connect"))
			connects = *v == 'b';
		else if (IS("--family"))
			end[0].family = end[1].family = (uint8_t)atoi(v);
		else if (IS("--bytes"))
			request = strtoull(v, NULL, 10);
		else if (IS("--rounds"))
			rounds = strtoull(v, NULL, 10);
		else if (IS("--request"))
			request = strtoull(v, NULL, 10);
		else if (IS("--response"))
			response = strtoull(v, NULL, 10);
		else if (IS("--cc"))
			end[0].cc = end[1].cc = v;
		else if (IS("--late-a") || IS("--late-b"))
			end[argv[i][7] - 'a'].late_us = (uint32_t)(strtod(v, NULL) * 1000);
		else if (IS("--rmem"))
			end[0].rmem_max = end[1].rmem_max = (uint32_t)atoi(v);
		else if (IS("--wmem"))
			end[0].wmem_max = end[1].wmem_max = (uint32_t)atoi(v);
		else if (IS("--pcap-a") || IS("--pcap-b"))
			pcap[argv[i][7] - 'a'] = pcap_open(v);
		else if (IS("--trace-a") || IS("--trace-b")) {
			FILE *f = fopen(v, "w");

			if (f == NULL)
				end_die(&end[argv[i][8] - 'a'], v);
			end[argv[i][8] - 'a'].trace = f;
		} else if (IS("--limit"))
			limit = (unsigned)atoi(v);
		else
			usage();
#undef IS
	}
	if (pthread_create(&wt, NULL, watchdog, &limit) != 0)
		abort();
	alarm(limit + 5);
	pthread_barrier_init(&meet.ready, NULL, 3);
	pthread_barrier_init(&meet.connected, NULL, 3);
	pthread_barrier_init(&meet.armed, NULL, 3);
	pthread_barrier_init(&meet.done, NULL, 3);
	int fd[2];
	for (unsigned i = 0; i < 2; i++) {
		struct end *e = &end[i];

		e->connects = i == connects;
		e->app.client = i == sender;
		e->app.ends = end;
		e->app.request = request;
		e->app.response = response;
		e->app.rounds = rounds;
		if (!e->kernel) {
			int sp[2], size = 16 << 20;

			if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp) != 0)
				end_die(e, "socketpair");
			for (int k = 0; k < 2; k++)
				setsockopt(sp[k], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
			e->fd = sp[0];
			fd[i] = sp[1];
		}
		pthread_create(&e->thread, NULL, e->kernel ? end_kernel : end_stack, e);
	}
	/* the relay needs the devices */
	for (unsigned i = 0; i < 2; i++) {
		if (end[i].kernel) {
			while (__atomic_load_n(&end[i].fd, __ATOMIC_ACQUIRE) <= 0)
				usleep(1000);
			fd[i] = end[i].fd;
		}
	}
	r = relay_new(&rc, fd[0], fd[1], pcap[0], pcap[1]);
	relay_note(r, &seen);
	pthread_create(&rt, NULL, relay_thread, r);
	pthread_barrier_wait(&meet.ready);
	pthread_barrier_wait(&meet.connected);
	relay_arm(r, true);
	pthread_barrier_wait(&meet.armed);
	pthread_barrier_wait(&meet.done);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(end[i].thread, NULL);
	relay_stop(r);
	pthread_join(rt, NULL);
	relay_counts(r, n);
	from = &end[sender].app;
	to = &end[!sender].app;
	last = response != 0 ? from : to;
	ns = last->last_ns - from->first_ns;
	stall_judge((const struct stall_log *[]){ &seen, &from->log, &to->log }, 3, side_of(last), from->first_ns, last->last_ns,
	    (const uint32_t[]){ end[0].handshake_us, end[1].handshake_us }, &sr);
	printf("{\"ms\": %.3f, \"stall_ms\": %.3f, \"stall_rto_ms\": %.3f, \"stall_rtt_ms\": %.3f, \"mismatches\": %llu, ", (double)ns / 1e6,
	    (double)last->stall_ns / 1e6, (double)last->stall_rto_us / 1e3, (double)last->stall_rtt_us / 1e3, (unsigned long long)(from->mismatches + to->mismatches));
	say_end(&end[0]);
	say_end(&end[1]);
	printf("\"stalls\": {\"within\": %u, \"lost\": %u, \"timeouts\": %u, \"late\": [%u, %u], \"other\": %u, \"why\": \"%s\"}, ", sr.within, sr.lost,
	    sr.timeouts, sr.late[0], sr.late[1], sr.other, sr.why);
	printf("\"frames\": [%llu, %llu], \"lost\": [%llu, %llu], \"queue_drops\": [%llu, %llu], \"held\": %llu, \"doubled\": %llu, \"refused\": %llu, \"resets\": %llu}\n",
	    (unsigned long long)n[0].frames, (unsigned long long)n[1].frames, (unsigned long long)n[0].lost, (unsigned long long)n[1].lost,
	    (unsigned long long)n[0].queue_drops, (unsigned long long)n[1].queue_drops, (unsigned long long)(n[0].held + n[1].held),
	    (unsigned long long)(n[0].doubled + n[1].doubled), (unsigned long long)(n[0].refused + n[1].refused),
	    (unsigned long long)(n[0].resets + n[1].resets));
	relay_free(r);
	free(seen.e);
	free(from->log.e);
	free(to->log.e);
	for (unsigned i = 0; i < 2; i++) {
		if (pcap[i] != NULL)
			pcap_close(pcap[i]);
		if (end[i].trace != NULL)
			fclose(end[i].trace);
	}
	return from->mismatches + to->mismatches != 0;
}
