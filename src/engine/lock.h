/*
 * lock.h - the ring lock: a futex mutex that spins a little first.
 *
 * Held for microseconds (tens for a hand-off), never across a wait. Not recursive. hv_lock_held is this thread's flag for the preload
 * layer: a signal handler that interrupts the holder must not enter the engine (it defers instead).
 */
#ifndef HV_LOCK_H
#define HV_LOCK_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/sys.h"

struct hv_lock {
	_Atomic uint32_t v; /* 0 free, 1 held, 2 held and somebody may sleep */
};

extern __thread int hv_lock_held __attribute__((tls_model("initial-exec")));

static inline void hv_cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("yield" ::: "memory");
#endif
}

static inline bool hv_trylock(struct hv_lock *l)
{
	uint32_t z = 0;
	if (!atomic_compare_exchange_strong_explicit(&l->v, &z, 1, memory_order_acquire, memory_order_relaxed))
		return false;
	hv_lock_held = 1;
	return true;
}

void hv_lock_slow(struct hv_lock *l);

static inline void hv_lock(struct hv_lock *l)
{
	if (!hv_trylock(l))
		hv_lock_slow(l);
}

static inline void hv_unlock(struct hv_lock *l)
{
	hv_lock_held = 0;
	if (atomic_exchange_explicit(&l->v, 0, memory_order_release) == 2)
		hv_sys_futex((uint32_t *)&l->v, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL);
}

#endif
