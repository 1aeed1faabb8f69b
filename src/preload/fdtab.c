/*
 * fdtab.c - the descriptor table (fdtab.h).
 *
 * No locks. An entry owns one reference and one of nfds. Whoever takes an object out of an entry (atomic exchange) drops both; the one who drops the last of nfds
 * tells the engine that the socket is about to be closed.
 */
#include "preload/fdtab.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/sys.h"
#include "preload/enter.h"

#define CHUNK 1024u
#define CHUNKS 4096u

_Atomic(hv_tab_entry *) hv_tab_root[HV_FD_MAX / HV_FD_LEAF];
_Atomic bool hv_tab_used;
bool hv_on;

static _Atomic(struct hv_file *) chunks[CHUNKS];
static _Atomic unsigned top;            /* leaves at and above this one have never been mapped */
static _Atomic uint32_t fresh;          /* files handed out for the first time so far */
static _Atomic uint64_t free_head;      /* turn << 32 | index + 1: the turn makes a stale exchange fail */

static void *map(size_t len)
{
	long p = HV_SYS(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p < 0 && p > -4096 ? NULL : (void *)p;
}

/* *slot, mapped by whoever comes first. */
static void *mapped(_Atomic(void *) *slot, size_t len)
{
	void *p = atomic_load_explicit(slot, memory_order_acquire);

	if (p != NULL)
		return p;
	void *n = map(len);
	if (n == NULL)
		return NULL;
	if (atomic_compare_exchange_strong(slot, &p, n))
		return n;
	HV_SYS(SYS_munmap, n, len, 0, 0, 0, 0);
	return p;
}

static struct hv_file *file_at(uint32_t i)
{
	return &atomic_load_explicit(&chunks[i / CHUNK], memory_order_acquire)[i % CHUNK];
}

static struct hv_file *file_alloc(void)
{
	uint64_t h = atomic_load(&free_head);

	while ((uint32_t)h != 0) {
		struct hv_file *f = file_at((uint32_t)h - 1);
		uint64_t n = ((h >> 32) + 1) << 32 | atomic_load_explicit(&f->next, memory_order_relaxed);
		if (atomic_compare_exchange_weak(&free_head, &h, n))
			return f;
	}
	uint32_t i = atomic_fetch_add(&fresh, 1);
	if (i >= CHUNK * CHUNKS) {
		atomic_fetch_sub(&fresh, 1);
		return NULL;
	}
	struct hv_file *c = mapped((_Atomic(void *) *)&chunks[i / CHUNK], CHUNK * sizeof *c);
	if (c == NULL)
		return NULL; /* number i is lost, which doesn't matter */
	c[i % CHUNK].index = i;
	return &c[i % CHUNK];
}

static void file_free(struct hv_file *f)
{
	uint64_t h = atomic_load(&free_head), n;

	do {
		atomic_store_explicit(&f->next, (uint32_t)h, memory_order_relaxed);
		n = ((h >> 32) + 1) << 32 | (f->index + 1);
	} while (!atomic_compare_exchange_weak(&free_head, &h, n));
}

static void obj_put(enum hv_kind kind, void *obj)
{
	hv_engine_enter();
	if (kind == HV_KIND_SOCK)
		hv_sock_put(obj);
	else
		hv_epoll_put(obj);
	hv_engine_leave();
}

struct hv_file *hv_file_new(enum hv_kind kind, void *obj)
{
	if (obj == NULL)
		return NULL;
	struct hv_file *f = file_alloc();
	if (f == NULL) {
		obj_put(kind, obj);
		return NULL;
	}
	f->kind = kind;
	atomic_store_explicit(&f->nested, false, memory_order_relaxed);
	if (kind == HV_KIND_SOCK)
		f->s = obj;
	else
		f->ep = obj;
	atomic_store_explicit(&f->nfds, 0, memory_order_relaxed);
	atomic_store_explicit(&f->refs, 1, memory_order_release);
	if (!atomic_load_explicit(&hv_tab_used, memory_order_relaxed))
		atomic_store(&hv_tab_used, true);
	return f;
}

void hv_file_put_slow(struct hv_file *f)
{
	uint32_t n = atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel);

	assert(n != 0);
	if (n != 1)
		return;
	assert(atomic_load_explicit(&f->nfds, memory_order_relaxed) == 0);
	obj_put(f->kind, f->kind == HV_KIND_SOCK ? (void *)f->s : (void *)f->ep);
	file_free(f);
}

static hv_tab_entry *entry(int fd)
{
	unsigned t = atomic_load_explicit(&top, memory_order_relaxed), l = (unsigned)fd >> HV_FD_LEAF_BITS;

	if ((unsigned)fd >= HV_FD_MAX)
		return NULL;
	while (t <= l && !atomic_compare_exchange_weak(&top, &t, l + 1))
		;
	hv_tab_entry *leaf = mapped((_Atomic(void *) *)&hv_tab_root[(unsigned)fd >> HV_FD_LEAF_BITS], HV_FD_LEAF * sizeof *leaf);
	return leaf == NULL ? NULL : &leaf[(unsigned)fd & (HV_FD_LEAF - 1)];
}

struct name {
	const struct hv_file *f;
	int fd;
};

static void other_name(int fd, struct hv_file *f, void *arg)
{
	struct name *n = arg;

	if (f == n->f)
		n->fd = fd;
}

/* f has left the entry of fd, which is still open when `open`. */
static void left(int fd, struct hv_file *f, bool open)
{
	bool last = atomic_fetch_sub(&f->nfds, 1) == 1;

	if (f->kind == HV_KIND_SOCK) {
		atomic_fetch_sub(&f->s->names, 1);
		hv_engine_enter();
		if (!last)
			hv_sock_fd_closed(f->s, fd);
		else if (open)
			hv_sock_last_close(f->s, fd);
		else { /* closed by somebody who doesn't come past us */
			hv_log_once(HV_LOG_INFO, "descriptor %d was closed behind our back", fd);
			hv_sock_abandon(f->s);
		}
		hv_engine_leave();
	} else if (!last) { /* rare: the table is searched */
		struct name n = { f, -1 };
		hv_tab_each(0, HV_FD_MAX - 1, other_name, &n);
		hv_engine_enter();
		if (n.fd >= 0)
			hv_epoll_fd_closed(f->ep, fd, n.fd);
		hv_engine_leave();
	}
	hv_file_put(f);
}

/* The last descriptor that can be in the table, as a limit of a walk. */
static unsigned limit(unsigned last)
{
	unsigned t = atomic_load(&top) * HV_FD_LEAF;
	return last < t ? last : t - 1;
}

static bool ours(const struct hv_file *f)
{
	return (uintptr_t)f > (uintptr_t)HV_FD_CLOSING;
}

/* f's reference and its count in nfds, if it is an object, become the entry's. */
static void enter(hv_tab_entry *e, int fd, struct hv_file *f)
{
	struct hv_file *old = atomic_exchange(e, f);

	if (ours(old))
		left(fd, old, false);
}

void hv_tab_set(int fd, struct hv_file *f)
{
	hv_tab_entry *e = f != HV_FD_UNKNOWN ? entry(fd) : hv_tab_at(fd);

	if (ours(f))
		atomic_fetch_add(&f->nfds, 1);
	if (e != NULL)
		enter(e, fd, f);
	else if (ours(f)) /* can't be followed */
		left(fd, f, true);
}

void hv_tab_share(int fd, struct hv_file *f)
{
	hv_tab_entry *e = entry(fd);
	uint32_t n = atomic_load(&f->nfds);

	while (n != 0 && !atomic_compare_exchange_weak(&f->nfds, &n, n + 1))
		;
	if (n == 0) { /* the last name was closed meanwhile, and the engine has heard that: this one stays libc's */
		hv_tab_set(fd, HV_FD_OTHER);
		return;
	}
	atomic_fetch_add(&f->refs, 1);
	if (f->kind == HV_KIND_SOCK) {
		atomic_fetch_add(&f->s->names, 1);
		hv_engine_enter();
		if (e != NULL)
			hv_sock_fd_added(f->s, fd);
		else
			hv_sock_pin(f->s, HV_WHY_CALL); /* a name that we can't follow */
		hv_engine_leave();
	}
	if (e != NULL)
		enter(e, fd, f);
	else
		left(fd, f, true);
}

bool hv_tab_drop(int fd)
{
	hv_tab_entry *e = hv_tab_at(fd);

	if (e == NULL)
		return false;
	struct hv_file *f = atomic_load_explicit(e, memory_order_acquire);
	for (;;) {
		if (f == HV_FD_OTHER) {
			/* The number will mean something else: look at it again then. */
			if (atomic_compare_exchange_weak(e, &f, HV_FD_UNKNOWN))
				return false;
			continue;
		}
		if (!ours(f))
			return false;
		if (atomic_compare_exchange_weak(e, &f, HV_FD_CLOSING))
			break;
	}
	left(fd, f, true);
	return true;
}

void hv_tab_gone(int fd)
{
	hv_tab_entry *e = hv_tab_at(fd);
	struct hv_file *f = HV_FD_CLOSING;

	if (e != NULL) /* unless the number has found a new owner */
		atomic_compare_exchange_strong(e, &f, HV_FD_UNKNOWN);
}

void hv_tab_gone_range(unsigned first, unsigned last)
{
	if (atomic_load(&top) == 0)
		return;
	last = limit(last);
	for (uint64_t fd = first; fd <= last; fd++) {
		hv_tab_entry *leaf = atomic_load_explicit(&hv_tab_root[fd >> HV_FD_LEAF_BITS], memory_order_acquire);
		if (leaf == NULL)
			fd |= HV_FD_LEAF - 1;
		else if ((uintptr_t)atomic_load_explicit(&leaf[fd & (HV_FD_LEAF - 1)], memory_order_relaxed) - 1 < 2) {
			struct hv_file *f = HV_FD_OTHER;
			if (!atomic_compare_exchange_strong(&leaf[fd & (HV_FD_LEAF - 1)], &f, HV_FD_UNKNOWN))
				hv_tab_gone((int)fd);
		}
	}
}

void hv_tab_settle(int fd, struct hv_file *f)
{
	hv_tab_entry *e = entry(fd);
	struct hv_file *u = HV_FD_UNKNOWN;

	if (ours(f))
		atomic_fetch_add(&f->nfds, 1);
	if (e != NULL && atomic_compare_exchange_strong(e, &u, f))
		return;
	if (ours(f)) {
		atomic_fetch_sub(&f->nfds, 1);
		if (f->kind == HV_KIND_SOCK)
			atomic_fetch_sub(&f->s->names, 1);
		hv_file_put(f);
	}
}

void hv_tab_forget(int fd)
{
	hv_tab_set(fd, HV_FD_UNKNOWN);
}

void hv_tab_each(unsigned first, unsigned last, void (*fn)(int fd, struct hv_file *f, void *arg), void *arg)
{
	if (atomic_load(&top) == 0)
		return;
	last = limit(last);
	for (uint64_t fd = first; fd <= last; fd++) {
		hv_tab_entry *leaf = atomic_load_explicit(&hv_tab_root[fd >> HV_FD_LEAF_BITS], memory_order_acquire);
		if (leaf == NULL) {
			fd |= HV_FD_LEAF - 1;
			continue;
		}
		if ((uintptr_t)atomic_load_explicit(&leaf[fd & (HV_FD_LEAF - 1)], memory_order_relaxed) <= (uintptr_t)HV_FD_CLOSING)
			continue;
		struct hv_file *f = hv_tab_ref((int)fd);
		if (f == NULL)
			continue;
		fn((int)fd, f, arg);
		hv_file_put(f);
	}
}
