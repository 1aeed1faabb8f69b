/*
 * mem.c - the engine's memory: small objects of fixed size from mmap'ed arenas, and the hand-off's scratch space.
 *
 * Not malloc: the library lives in processes whose allocator may call us, and hooks may run early or in signal handlers. Objects
 * go back to free lists by size class and are never unmapped (a late reader of a freed object sees an object of the same kind).
 * Own lock, leaf.
 */
#include <sys/mman.h>

#include "engine/internal.h"

#define CLASSES 64u
#define ALIGN 64u
#define ARENA (256u * 1024u)

static struct hv_lock mem_lock;
static void *free_list[CLASSES];
static uint8_t *arena;
static size_t arena_left;

/* The kernel gives nobody what another thread has unmapped before that call is over. ThreadSanitizer doesn't see these calls and would take the former
 * owner's last access for a race with the new one's first. */
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
static char order;
#define UNMAPPING __tsan_release(&order)
#define MAPPED __tsan_acquire(&order)
#else
#define UNMAPPING ((void)0)
#define MAPPED ((void)0)
#endif

void *hv_map(size_t len)
{
	long p = HV_SYS(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MAPPED;
	return p < 0 && p > -4096 ? NULL : (void *)p;
}

void hv_unmap(void *p, size_t len)
{
	UNMAPPING;
	if (p != NULL)
		HV_SYS(SYS_munmap, p, len, 0, 0, 0, 0);
}

void *hv_obj_alloc(size_t size)
{
	size_t n = (size + ALIGN - 1) / ALIGN;
	int held = hv_lock_held;

	if (n >= CLASSES)
		return NULL;
	hv_lock(&mem_lock);
	void *p = free_list[n];
	if (p != NULL) {
		free_list[n] = *(void **)p;
	} else {
		if (arena_left < n * ALIGN) {
			arena = hv_map(ARENA);
			arena_left = arena != NULL ? ARENA : 0;
		}
		if (arena_left >= n * ALIGN) {
			p = arena;
			arena += n * ALIGN;
			arena_left -= n * ALIGN;
		}
	}
	hv_unlock(&mem_lock);
	hv_lock_held = held;
	if (p != NULL)
		memset(p, 0, n * ALIGN);
	return p;
}

void hv_obj_free(void *p, size_t size)
{
	size_t n = (size + ALIGN - 1) / ALIGN;
	int held = hv_lock_held;

	if (p == NULL)
		return;
	hv_lock(&mem_lock);
	*(void **)p = free_list[n];
	free_list[n] = p;
	hv_unlock(&mem_lock);
	hv_lock_held = held;
}

/* Another thread of the parent may have been in the middle of it. */
void hv_mem_fork_child(void)
{
	atomic_store(&mem_lock.v, 0);
	memset(free_list, 0, sizeof free_list);
	arena_left = 0;
}

uint8_t *hv_scratch(size_t len)
{
	if (len > G.scratch_len) {
		size_t want = (len + 0xfffff) & ~(size_t)0xfffff;
		uint8_t *p = hv_map(want);
		if (p == NULL)
			return NULL;
		hv_unmap(G.scratch, G.scratch_len);
		G.scratch = p;
		G.scratch_len = want;
	}
	return G.scratch;
}
