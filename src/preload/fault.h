/*
 * fault.h - bad addresses: EFAULT from the kernel, a crash in our copies. So addresses are tried before the engine gets them.
 *
 * A try is one load per page by an instruction whose fault is recognized by the handler of SIGSEGV and SIGBUS (sig.c), which is put in place when the first
 * socket is seen on the VF, or one that we follow is put in a set: the set is ours to read from then on. Tried are the first HV_TRY_SEND or
 * HV_TRY_RECV octets of each piece: more would cost more than it is worth, and loads from memory that has never been touched map it. What lies
 * behind, and memory that may be read but not written, isn't found out.
 */
#ifndef HV_PRELOAD_FAULT_H
#define HV_PRELOAD_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_TRY_SEND 65536u
#define HV_TRY_RECV 16384u
#define HV_TRY_ALL SIZE_MAX

#if defined(__aarch64__)
#define HV_ADDRESSES ((uintptr_t)1 << 52)
#else
#define HV_ADDRESSES ((uintptr_t)1 << 47)
#endif

extern _Atomic bool hv_fault_ready;
/* Puts the handler in place, unless the program has a handler that we don't know. */
void hv_fault_init(void);
static inline void hv_fault_need(void)
{
	if (__builtin_expect(!hv_fault_ready, 0))
		hv_fault_init();
}
/* Can these octets be read? */
bool hv_fault_load(const void *p, const void *q);
/* In the handler: was it a try? Then it goes on with "no". */
bool hv_fault_fixup(void *ucontext);

bool hv_fault_try(uintptr_t a, size_t len);

/* Not empty, a plausible address, and a single load tells of all of it. */
static inline bool hv_one_page(const void *p, size_t len)
{
	uintptr_t a = (uintptr_t)p;

	return a - 65536 < HV_ADDRESSES - 65536 && len - 1 < 4096 - (a & 4095);
}

/* True: not an address that we could use; the kernel shall say so. */
static inline bool hv_bad(const void *p, size_t len, size_t most)
{
	uintptr_t a = (uintptr_t)p;

	if (len == 0)
		return false;
	if (a < 65536 || len > (size_t)INT64_MAX || a + len > HV_ADDRESSES)
		return true;
	return hv_fault_ready && !hv_fault_try(a, len < most ? len : most);
}

#endif
