/*
 * fault.c - loads that may fail (fault.h).
 */
#include "preload/fault.h"

#include <stdatomic.h>
#include <ucontext.h>

_Atomic bool hv_fault_ready;

extern const char hv_fault_at[] __attribute__((visibility("hidden")));
extern const char hv_fault_done[] __attribute__((visibility("hidden")));
extern const char hv_fault_after[] __attribute__((visibility("hidden")));

/* bool hv_fault_load(const void *p, const void *q): the result is preset to false and becomes true behind the loads. The handler leaves the function's frame alone. */
#if defined(__x86_64__)
__asm__(".text\n"
	".p2align 4\n"
	".globl hv_fault_load\n.hidden hv_fault_load\n.type hv_fault_load, @function\n"
	"hv_fault_load:\n"
	".cfi_startproc\n"
	"	xorl %eax, %eax\n"
	".globl hv_fault_at\n.hidden hv_fault_at\n"
	"hv_fault_at:\n"
	"	movb (%rdi), %cl\n"
	"	movb (%rsi), %cl\n"
	".globl hv_fault_done\n.hidden hv_fault_done\n"
	"hv_fault_done:\n"
	"	movl $1, %eax\n"
	".globl hv_fault_after\n.hidden hv_fault_after\n"
	"hv_fault_after:\n"
	"	ret\n"
	".cfi_endproc\n"
	".size hv_fault_load, . - hv_fault_load\n");
#else
__asm__(".text\n"
	".p2align 4\n"
	".globl hv_fault_load\n.hidden hv_fault_load\n.type hv_fault_load, %function\n"
	"hv_fault_load:\n"
	".cfi_startproc\n"
	"	mov x2, x0\n"
	"	mov w0, #0\n"
	".globl hv_fault_at\n.hidden hv_fault_at\n"
	"hv_fault_at:\n"
	"	ldrb w3, [x2]\n"
	"	ldrb w3, [x1]\n"
	".globl hv_fault_done\n.hidden hv_fault_done\n"
	"hv_fault_done:\n"
	"	mov w0, #1\n"
	".globl hv_fault_after\n.hidden hv_fault_after\n"
	"hv_fault_after:\n"
	"	ret\n"
	".cfi_endproc\n"
	".size hv_fault_load, . - hv_fault_load\n");
#endif

bool hv_fault_fixup(void *ucontext)
{
	ucontext_t *uc = ucontext;
#if defined(__x86_64__)
	greg_t *pc = &uc->uc_mcontext.gregs[REG_RIP];
#else
	unsigned long long *pc = &uc->uc_mcontext.pc;
#endif
	if ((uintptr_t)*pc < (uintptr_t)hv_fault_at || (uintptr_t)*pc >= (uintptr_t)hv_fault_done)
		return false;
	*pc = (__typeof__(*pc))(uintptr_t)hv_fault_after;
	return true;
}

#define PAGE 4096u /* the smallest there is */

bool hv_fault_try(uintptr_t a, size_t len)
{
	uintptr_t last = a + len - 1;

	if (!hv_fault_load((const void *)a, (const void *)a))
		return false;
	for (a = (a | (PAGE - 1)) + 1; a <= last; a += PAGE)
		if (!hv_fault_load((const void *)a, (const void *)a))
			return false;
	return true;
}
