/*
 * fork.c - sockets that a child process has inherited: when may the parent have them on the VF again?
 *
 * A socket that any other process can reach stays in the kernel. A fork makes all of them reachable; this file finds out when that is over,
 * without asking the child:
 *
 * - The life line. Each fork has a pipe, close-on-exec: the child, and whatever it forks, holds the write end, the parent reads. End of
 *   file means that each of those processes has exited or become another program. (They can't close it by accident: it's one of the
 *   descriptors that the library protects.)
 * - Close-on-exec. Only sockets all of whose names had that flag at the time of the fork count: another program doesn't have them then.
 * - The mark. Before a child does something by which a socket of its parent's could outlive the child's life line (a copy or a flag without
 *   close-on-exec, a descriptor passed on, a program started with one), or that only its own copy of our tables would know (options,
 *   members of epoll sets), it writes into a page that it shares with its parent. Such a fork is never over.
 *
 * So while a child could use a socket its parent does not promote it; and a child, in which fork_born says what is inherited, never does.
 * What isn't known for certain counts as reachable for ever.
 *
 * Everything under G.lock, which is held across fork().
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

#include "engine/internal.h"

#define LINES 16u
#define ANCESTORS 8u

typedef _Atomic uint32_t mark_t;

static struct line {
	uint32_t gen; /* 0: free */
	int rfd;
} lines[LINES];
static mark_t *marks;                /* one for each line, shared with the children */
static uint32_t lost;                /* forks up to this one are never over */
static int next_slot = -1, next_rfd, next_wfd;

/* in a child */
static uint32_t born;                /* sockets of earlier generations are inherited */
static mark_t *mine[ANCESTORS];
static int held[ANCESTORS];
static unsigned n_mine;

static void mark_all(void)
{
	for (unsigned i = 0; i < n_mine; i++)
		atomic_store(mine[i], 1);
}

/* A process that has not used the VF yet, nor its parents, isn't given pipes: what exists when it forks stays in the kernel. */
bool hv_fork_matters(void)
{
	return atomic_load(&S.promotes) != 0 || n_mine != 0;
}

void hv_fork_line_prepare(void)
{
	int p[2];

	next_slot = -1;
	if (!hv_fork_matters())
		return;
	if (marks == NULL) {
		long a = HV_SYS(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (a < 0 && a > -4096)
			return;
		marks = (mark_t *)a;
	}
	for (unsigned i = 0; i < LINES && next_slot < 0; i++)
		if (lines[i].gen == 0)
			next_slot = (int)i;
	if (next_slot < 0)
		return;
	if (HV_SYS(SYS_pipe2, p, O_CLOEXEC, 0, 0, 0, 0) < 0) {
		next_slot = -1;
		return;
	}
	next_rfd = hv_sys_high(p[0]);
	next_wfd = hv_sys_high(p[1]);
	atomic_store(&marks[next_slot], 0);
}

/* The fork has happened (or failed: then the line ends at once). gen: its number. */
void hv_fork_line_parent(uint32_t gen)
{
	if (next_slot < 0) {
		lost = gen;
		return;
	}
	hv_sys_close(next_wfd);
	lines[next_slot] = (struct line){ gen, next_rfd };
	next_slot = -1;
}

void hv_fork_line_child(uint32_t gen)
{
	born = gen;
	lost = 0;
	for (unsigned i = 0; i < LINES; i++) {
		if (lines[i].gen != 0)
			hv_sys_close(lines[i].rfd);
		lines[i].gen = 0;
	}
	if (next_slot >= 0) {
		hv_sys_close(next_rfd);
		if (n_mine < ANCESTORS) {
			mine[n_mine] = &marks[next_slot];
			held[n_mine++] = next_wfd;
		} else { /* the line stays open, unprotected: so the fork is never over */
			atomic_store(&marks[next_slot], 1);
		}
	}
	next_slot = -1;
	marks = NULL; /* the page is the parent's; children of this process get one of their own */
}

int hv_fork_fds(int *fds, int n)
{
	int k = 0;

	for (unsigned i = 0; i < LINES && k < n; i++)
		if (lines[i].gen != 0)
			fds[k++] = lines[i].rfd;
	for (unsigned i = 0; i < n_mine && k < n; i++)
		fds[k++] = held[i];
	return k;
}

/* preload tells about each name of each socket, just before a fork. */
void hv_sock_before_fork(struct hv_sock *s, bool cloexec)
{
	struct hv_sock_priv *p = s->p;
	uint32_t now = atomic_load(&G.fork_gen);

	/* Relaxed: hv_engine_fork_prepare() takes the lock afterwards, and hv_fork_exclusive() reads under it. When two threads fork at a time, one of the
	 * forks may not be noted: then the socket stays in the kernel. */
	if (!cloexec)
		atomic_store_explicit(&p->leaky, true, memory_order_relaxed);
	else if (atomic_load_explicit(&p->verified, memory_order_relaxed) == now)
		atomic_store_explicit(&p->verified, now + 1, memory_order_relaxed);
}

/* Another thread of the parent was moving it: nobody goes on with that here. */
void hv_sock_forked(struct hv_sock *s)
{
	uint32_t t = HV_TIER_MOVING;

	atomic_compare_exchange_strong(&s->tier, &t, HV_TIER_KERNEL);
}

/* A name without close-on-exec, or another way to it: whoever has inherited this socket may keep it for ever. */
void hv_sock_leaks(struct hv_sock *s)
{
	s->p->leaky = true;
	if (n_mine != 0 && s->p->fork_gen < born)
		mark_all();
}

/* Something that the parent's tables should know of, but won't. gen: of what is changed. */
void hv_fork_changed(uint32_t gen)
{
	if (n_mine != 0 && gen < born)
		mark_all();
}

static bool over(struct line *l)
{
	struct pollfd p = { l->rfd, POLLIN, 0 };
	struct timespec zero = { 0, 0 };

	if (hv_sys_ppoll(&p, 1, &zero, NULL) <= 0)
		return false;
	if (atomic_load(&marks[l - lines]) != 0 && l->gen > lost)
		lost = l->gen;
	hv_sys_close(l->rfd);
	l->gen = 0;
	return true;
}

/* What others may have changed in the open file description meanwhile. */
static void refresh(struct hv_sock *s, int fd)
{
	int fl = hv_sys_fcntl(fd, F_GETFL, 0);
	int64_t tv[2] = { 0, 0 };
	socklen_t l = sizeof tv;

	if (fl >= 0) {
		atomic_store(&s->nonblock, (fl & O_NONBLOCK) != 0);
		if ((fl & O_ASYNC) != 0)
			s->p->leaky = true;
	}
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, tv, &l) == 0)
		atomic_store(&s->rcvtimeo_ns, tv[0] * 1000000000 + tv[1] * 1000);
	l = sizeof tv;
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, tv, &l) == 0)
		atomic_store(&s->sndtimeo_ns, tv[0] * 1000000000 + tv[1] * 1000);
}

/* Tier MOVING, a fork has happened since the socket was known to be this process's alone. */
bool hv_fork_exclusive(struct hv_sock *s, int fd)
{
	struct hv_sock_priv *p = s->p;
	bool wait = false;

	hv_lock(&G.lock);
	uint32_t now = atomic_load(&G.fork_gen);
	for (unsigned i = 0; i < LINES; i++)
		if (lines[i].gen > p->fork_gen && !over(&lines[i]))
			wait = true;
	bool never = p->fork_gen < born || p->leaky || p->verified != now || lost > p->fork_gen;
	if (!never && !wait) {
		refresh(s, fd);
		never = p->leaky;
		if (!never)
			p->fork_gen = now;
	}
	hv_unlock(&G.lock);
	if (never)
		atomic_store(&s->pinned, true);
	return !never && !wait;
}
