/*
 * stats.c - what can be seen: counters, the journal of the last moves, and the summary (one JSON object per process) that HVACCEL_SUMMARY
 * asks for.
 *
 * Counters are relaxed atomics; the journal is under G.lock.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "engine/internal.h"

struct hv_stats S;

#define JOURNAL 512u
static struct entry { uint64_t t_us; const char *what; char why[48]; struct hv_tuple t; uint64_t ns; } journal[JOURNAL];
static uint32_t journal_n;

static const char *const why_text[] = {
#define HV_WHY(NAME, text) text,
#include "engine/why.def"
#undef HV_WHY
};
static const char *const why_name[] = {
#define HV_WHY(NAME, text) #NAME,
#include "engine/why.def"
#undef HV_WHY
};

const char *hv_why_text(enum hv_why why)
{
	return why < HV_WHY_MAX ? why_text[why] : "?";
}

void hv_stats_max(_Atomic uint64_t *m, uint64_t v)
{
	uint64_t o = atomic_load_explicit(m, memory_order_relaxed);

	while (v > o && !atomic_compare_exchange_weak_explicit(m, &o, v, memory_order_relaxed, memory_order_relaxed))
		;
}

void hv_journal(const char *what, const struct hv_sock *s, const char *why, uint64_t ns)
{
	struct entry *e = &journal[journal_n++ % JOURNAL];
	char t[128] = "";

	e->t_us = hv_now_us();
	e->what = what;
	snprintf(e->why, sizeof e->why, "%s", why);
	e->ns = ns;
	if (s != NULL)
		e->t = s->p->tuple;
	else
		memset(&e->t, 0, sizeof e->t);
	if (HV_UNLIKELY(hv_log_threshold >= HV_LOG_DEBUG) && s != NULL) {
		hv_tuple_print(&s->p->tuple, t, sizeof t);
		hv_log(HV_LOG_DEBUG, "%s %s: %s (%llu us)", what, t, why, (unsigned long long)(ns / 1000u));
	}
}

int hv_tuple_print(const struct hv_tuple *t, char *buf, size_t len)
{
	char l[INET6_ADDRSTRLEN] = "", r[INET6_ADDRSTRLEN] = "";
	int af = t->family == 6 ? AF_INET6 : AF_INET;

	if (t->family == 0)
		return snprintf(buf, len, "-");
	inet_ntop(af, t->laddr, l, sizeof l);
	inet_ntop(af, t->raddr, r, sizeof r);
	return snprintf(buf, len, t->family == 6 ? "%s [%s]:%u [%s]:%u" : "%s %s:%u %s:%u", t->proto == 6 ? "tcp" : "udp", l, ntohs(t->lport), r, ntohs(t->rport));
}

struct out {
	char *p;
	size_t n, cap;
};

static void put(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct out *o, const char *fmt, ...)
{
	va_list a;

	va_start(a, fmt);
	int r = vsnprintf(o->p + o->n, o->cap - o->n, fmt, a);
	va_end(a);
	if (r > 0 && (size_t)r < o->cap - o->n)
		o->n += (size_t)r;
}

static void quoted(struct out *o, const char *s)
{
	put(o, "\"");
	for (; *s != '\0'; s++) {
		if (*s == '"' || *s == '\\')
			put(o, "\\%c", *s);
		else if ((unsigned char)*s < 32)
			put(o, "\\u%04x", *s);
		else
			put(o, "%c", *s);
	}
	put(o, "\"");
}

#define KERNEL_SUMS 64u
static struct hv_kernel_sum kernel_sums[KERNEL_SUMS];
__thread struct hv_kernel_sum *hv_kernel_mine __attribute__((tls_model("initial-exec")));

struct hv_kernel_sum *hv_kernel_sum_get(void)
{
	static _Atomic uint32_t next;

	hv_kernel_mine = &kernel_sums[atomic_fetch_add(&next, 1) % KERNEL_SUMS];
	return hv_kernel_mine;
}

static unsigned long long kernel_total(bool octets)
{
	unsigned long long n = 0;

	for (unsigned i = 0; i < KERNEL_SUMS; i++)
		n += atomic_load_explicit(octets ? &kernel_sums[i].octets : &kernel_sums[i].calls, memory_order_relaxed);
	return n;
}

#define U(f) (unsigned long long)atomic_load_explicit(&S.f, memory_order_relaxed)

static void by_why(struct out *o, const char *key, _Atomic uint64_t *v)
{
	bool first = true;

	put(o, ",\"%s\":{", key);
	for (unsigned i = 0; i < HV_WHY_MAX; i++) {
		unsigned long long n = atomic_load_explicit(&v[i], memory_order_relaxed);
		if (n == 0)
			continue;
		put(o, "%s\"%s\":%llu", first ? "" : ",", why_name[i], n);
		first = false;
	}
	put(o, "}");
}

static void fill(struct out *o)
{
	char comm[32] = "";
	int fd = (int)HV_SYS(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC, 0, 0, 0);

	if (fd >= 0) {
		ssize_t r = hv_sys_read(fd, comm, sizeof comm - 1);
		hv_sys_close(fd);
		if (r > 0 && comm[r - 1] == '\n')
			comm[r - 1] = '\0';
	}
	const struct hv_move_counters *m = hv_move_counters();
	put(o, "{\"pid\":%d,\"program\":", hv_sys_getpid());
	quoted(o, comm);
	put(o, ",\"vf\":{\"opens\":%llu,\"losses\":%llu,\"last\":", U(ring_opens), U(ring_losses));
	quoted(o, G.handoff_failed ? "connections can't be moved: a privilege is missing" : hv_vf_why_text((enum hv_vf_why)G.open_why));
	put(o, ",\"guard\":\"%s\"}", hv_handoff_guard_kind());
	put(o, ",\"promotions\":%llu,\"promotion_failures\":%llu,\"demotions\":%llu,\"demotion_retries\":%llu", U(promotes), U(promote_fails), U(demotes), U(demote_retries));
	put(o, ",\"promote_us\":{\"mean\":%.1f,\"max\":%.1f},\"demote_us\":{\"mean\":%.1f,\"max\":%.1f}", U(promotes) != 0 ? (double)U(promote_ns_sum) / 1e3 / (double)U(promotes) : 0.0,
	    (double)U(promote_ns_max) / 1e3, U(demotes) != 0 ? (double)U(demote_ns_sum) / 1e3 / (double)U(demotes) : 0.0, (double)U(demote_ns_max) / 1e3);
	put(o, ",\"octets_for_each\":{\"socket\":%zu,\"udp_socket\":%zu,\"accelerated_tcp\":%zu,\"epoll_member\":%zu}", HV_SOCK_SIZE(SOCK_STREAM), HV_SOCK_SIZE(SOCK_DGRAM), hv_tcb_size(),
	    sizeof(struct hv_epitem));
	put(o, ",\"closed_later\":%llu,\"closed_never\":%llu", U(orphaned), U(orphans_lost));
	by_why(o, "demoted_because", S.demote_why);
	by_why(o, "stayed_because", S.stay_why);
	put(o, ",\"move_refusals\":{");
	bool first = true;
	for (unsigned i = 1; i < 32; i++) {
		unsigned long long n = U(move_why[i]);
		if (n != 0) {
			put(o, "%s", first ? "" : ",");
			quoted(o, hv_move_why_text((enum hv_move_why)i));
			put(o, ":%llu", n);
			first = false;
		}
	}
	put(o, "}");
	put(o, ",\"failover\":{\"sockets_moved\":%llu,\"longest_us\":%.1f}", U(failover_socks), (double)U(failover_ns_max) / 1e3);
	put(o, ",\"vf_octets\":{\"rx\":%llu,\"tx\":%llu},\"vf_calls\":{\"rx\":%llu,\"tx\":%llu},\"kernel_calls\":%llu,\"kernel_octets\":%llu", U(vf_rx_octets), U(vf_tx_octets),
	    U(vf_rx_calls), U(vf_tx_calls), kernel_total(false), kernel_total(true));
	put(o, ",\"udp_by_kernel_path\":%llu,\"udp_resent\":%llu,\"tcp_by_kernel_path\":%llu,\"path_mtu_changes\":%llu", U(udp_kernel_path),
	    U(udp_resent), U(captured), U(path_mtus));
	put(o, ",\"injected\":%llu,\"sleeps\":%llu,\"spins_hit\":%llu", (unsigned long long)m->injected, U(sleeps), U(spins_hit));
	put(o, ",\"late_accepts\":%llu,\"late_octets\":%llu,\"settles\":%llu,\"purges\":%llu,\"resent\":%llu", (unsigned long long)m->late_accepts, (unsigned long long)m->late_octets,
	    (unsigned long long)m->settles, (unsigned long long)m->purges, (unsigned long long)m->resent);
	const struct hv_tcp_counters *t = &G.tcp;
	put(o, ",\"tcp\":{\"segs_in\":%llu,\"segs_out\":%llu,\"predicted\":%llu,\"rexmit\":%llu,\"rto\":%llu,\"fast_rexmit\":%llu,\"tlp\":%llu,\"ooo_in\":%llu,\"paws_drops\":%llu,\"challenge_acks\":%llu}",
	    (unsigned long long)t->segs_in, (unsigned long long)t->segs_out, (unsigned long long)t->predicted, (unsigned long long)t->rexmit_segs, (unsigned long long)t->rto,
	    (unsigned long long)t->fast_rexmit, (unsigned long long)t->tlp, (unsigned long long)t->ooo_in, (unsigned long long)t->paws_drops, (unsigned long long)t->challenge_acks);
	put(o, ",\"events\":[");
	uint32_t n = journal_n, from = n > 64 ? n - 64 : 0;
	for (uint32_t i = from; i < n; i++) {
		const struct entry *e = &journal[i % JOURNAL];
		char tup[128];
		hv_tuple_print(&e->t, tup, sizeof tup);
		put(o, "%s{\"t_us\":%llu,\"what\":\"%s\",\"socket\":\"%s\",\"why\":", i == from ? "" : ",", (unsigned long long)e->t_us, e->what, tup);
		quoted(o, e->why);
		put(o, ",\"us\":%.1f}", (double)e->ns / 1e3);
	}
	put(o, "]}\n");
}

void hv_summary_write(void)
{
	struct out o = { NULL, 0, 64u << 10 };
	int fd = 2;

	if (hv_conf.summary == NULL || hv_conf.summary[0] == '\0')
		return;
	o.p = hv_map(o.cap);
	if (o.p == NULL)
		return;
	hv_lock(&G.lock); /* other threads go on working in the kernel */
	fill(&o);
	hv_unlock(&G.lock);
	if (strcmp(hv_conf.summary, "-") != 0)
		fd = (int)HV_SYS(SYS_openat, AT_FDCWD, hv_conf.summary, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644, 0, 0);
	if (fd < 0) {
		hv_log(HV_LOG_WARN, "HVACCEL_SUMMARY=%s can't be written (error %d); check the directory and its permissions", hv_conf.summary, -fd);
	} else {
		hv_sys_write(fd, o.p, o.n); /* one write: lines of several processes don't mix */
		if (fd != 2)
			hv_sys_close(fd);
	}
	hv_unmap(o.p, o.cap);
}

void hv_stats_fork_child(void)
{
	memset(&S, 0, sizeof S);
	memset(kernel_sums, 0, sizeof kernel_sums);
	memset(&G.tcp, 0, sizeof G.tcp);
	journal_n = 0;
}
