/*
 * fdtab.h - which descriptor is which of our objects.
 *
 * Lock-free: one pointer per descriptor in lazily mapped leaves. struct hv_file stands for an open file description that we follow; it lives in memory that is
 * never unmapped nor used for anything else, so a reader may take a reference on a stale pointer and find out afterwards that the table has moved on.
 */
#ifndef HV_PRELOAD_FDTAB_H
#define HV_PRELOAD_FDTAB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/inside.h"
#include "engine/engine.h"

enum hv_kind { HV_KIND_SOCK, HV_KIND_EPOLL };

struct hv_file {
	_Atomic uint32_t refs;  /* table entries + users; 0 = free */
	_Atomic uint32_t nfds;  /* table entries */
	enum hv_kind kind;
	_Atomic bool nested;    /* epoll: the engine knows that others wait for the epfd */
	union {
		struct hv_sock *s;
		struct hv_epoll *ep;
	};
	_Atomic uint32_t next;  /* free list */
	uint32_t index;
} __attribute__((aligned(64)));

/* Values of an entry that are no pointers. */
#define HV_FD_UNKNOWN ((struct hv_file *)0)
#define HV_FD_OTHER ((struct hv_file *)1)   /* known not to be ours */
#define HV_FD_CLOSING ((struct hv_file *)2) /* being closed: libc's business until that is done */

#define HV_FD_LEAF_BITS 12
#define HV_FD_LEAF (1u << HV_FD_LEAF_BITS)
#define HV_FD_MAX (1u << 26) /* above: never followed */

typedef _Atomic(struct hv_file *) hv_tab_entry;
extern _Atomic(hv_tab_entry *) hv_tab_root[HV_FD_MAX / HV_FD_LEAF];
extern _Atomic bool hv_tab_used; /* something has been followed at some time */
extern bool hv_on; /* acceleration is possible in this process; set once by the constructor */

static inline hv_tab_entry *hv_tab_at(int fd)
{
	if ((unsigned)fd >= HV_FD_MAX)
		return NULL;
	hv_tab_entry *leaf = atomic_load_explicit(&hv_tab_root[(unsigned)fd >> HV_FD_LEAF_BITS], memory_order_acquire);
	return leaf == NULL ? NULL : &leaf[(unsigned)fd & (HV_FD_LEAF - 1)];
}

/* A reference on the object behind fd, or NULL if that is none of ours. */
void hv_file_put_slow(struct hv_file *f);
static inline struct hv_file *hv_tab_ref(int fd)
{
	hv_tab_entry *e = hv_tab_at(fd);

	if (e == NULL)
		return NULL;
	for (;;) {
		struct hv_file *f = atomic_load_explicit(e, memory_order_acquire);
		if ((uintptr_t)f <= (uintptr_t)HV_FD_CLOSING)
			return NULL;
		uint32_t n = atomic_load_explicit(&f->refs, memory_order_relaxed);
		if (n == 0 || !atomic_compare_exchange_weak_explicit(&f->refs, &n, n + 1, memory_order_acquire, memory_order_relaxed))
			continue;
		if (atomic_load_explicit(e, memory_order_acquire) == f)
			return f;
		hv_file_put_slow(f);
	}
}

static inline void hv_file_put(struct hv_file *f)
{
	uint32_t n = atomic_load_explicit(&f->refs, memory_order_relaxed);
	if (n > 1 && atomic_compare_exchange_strong_explicit(&f->refs, &n, n - 1, memory_order_release, memory_order_relaxed))
		return;
	hv_file_put_slow(f);
}

/* Does fd still lead to f? */
static inline bool hv_tab_is(int fd, const struct hv_file *f)
{
	hv_tab_entry *e = hv_tab_at(fd);
	return e != NULL && atomic_load_explicit(e, memory_order_acquire) == f;
}

/* Is there anything about fd in the table? */
static inline bool hv_tab_known(int fd)
{
	hv_tab_entry *e = hv_tab_at(fd);
	return e != NULL && atomic_load_explicit(e, memory_order_relaxed) != HV_FD_UNKNOWN;
}

/* Is it one that we follow? */
static inline bool hv_tab_ours(int fd)
{
	hv_tab_entry *e = hv_tab_at(fd);
	return e != NULL && (uintptr_t)atomic_load_explicit(e, memory_order_relaxed) > (uintptr_t)HV_FD_CLOSING;
}

/* True: the hooks stand aside for this thread. */
static inline bool hv_aside(void)
{
	return !hv_on || hv_inside_depth != 0;
}

/* For data calls: looks at an unknown descriptor once. Sockets only. NULL: call libc. */
struct hv_file *hv_sock_probe(int fd);
static inline struct hv_file *hv_sock_at(int fd)
{
	if (hv_aside())
		return NULL;
	struct hv_file *f = hv_tab_ref(fd);
	if (__builtin_expect(f == NULL, 0)) {
		hv_tab_entry *e = hv_tab_at(fd);
		if (e != NULL && atomic_load_explicit(e, memory_order_relaxed) != HV_FD_UNKNOWN)
			return NULL;
		return hv_sock_probe(fd);
	}
	if (f->kind != HV_KIND_SOCK) {
		hv_file_put(f);
		return NULL;
	}
	return f;
}
/* Never looks. Any kind. */
static inline struct hv_file *hv_file_at(int fd)
{
	return hv_aside() ? NULL : hv_tab_ref(fd);
}

/* New objects; the caller owns the first reference and gives it to an entry with hv_tab_put(). NULL: no memory; s or ep are then dropped. */
struct hv_file *hv_file_new(enum hv_kind kind, void *obj);
/* fd has just been returned by the kernel: what the table says about it is of the past. f: its object (takes over one reference), HV_FD_OTHER or HV_FD_UNKNOWN. */
void hv_tab_set(int fd, struct hv_file *f);
/* A duplicate of f. */
void hv_tab_share(int fd, struct hv_file *f);
/* Before fd is closed or replaced. False: not ours, nothing done. Afterwards the entry says CLOSING: end it with hv_tab_gone() or hv_tab_set(). */
bool hv_tab_drop(int fd);
void hv_tab_gone(int fd);
void hv_tab_gone_range(unsigned first, unsigned last);
/* Like hv_tab_set(), but only if nothing is known about fd; otherwise f is given back. */
void hv_tab_settle(int fd, struct hv_file *f);
/* Forget entries that the kernel has given to something else. */
void hv_tab_forget(int fd);
/* Calls fn for every followed descriptor in [first, last], with a reference held. */
void hv_tab_each(unsigned first, unsigned last, void (*fn)(int fd, struct hv_file *f, void *arg), void *arg);

#endif
