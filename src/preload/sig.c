/*
 * sig.c - signal handlers of the program, wrapped (enter.h says why).
 *
 * The kernel's disposition of a wrapped signal is wrapper(), with the program's flags and mask; table[] has the program's own function. A signal that comes while the thread
 * is in the engine is kept (one; the others are blocked and stay with the kernel) and sent again to the same thread when it leaves, so the program's handler sees a
 * genuine frame, mask and alternate stack. Faults are never kept.
 *
 * Once there has been a socket on the VF, signals that nobody catches and that end the process are wrapped too: the kernel's socket of an accelerated connection
 * is parked, and would be closed without a word to the peer. So everything is given back first. To the program the disposition is still SIG_DFL.
 *
 * Dispositions that are set without us (raw system calls, before the constructor) work as ever; only restarts of interrupted waits are guessed for them.
 */
#include <string.h>
#include <ucontext.h>

#include "base/log.h"
#include "engine/lock.h"
#include "preload/io.h"
#include "preload/proc.h"

_Atomic bool hv_fatal_ready;
__thread bool hv_sig_norestart __attribute__((tls_model("initial-exec")));
static __thread siginfo_t kept_info __attribute__((tls_model("initial-exec")));
static __thread uint64_t kept_mask __attribute__((tls_model("initial-exec")));

struct slot {
	_Atomic(void *) handler;
	_Atomic int flags; /* as the program gave them */
};
static struct slot table[_NSIG];
static _Atomic uint64_t interrupting; /* siginterrupt() */

#define BIT(sig) (1ull << ((sig) - 1))
#define FAULTS (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS))

static bool is_fault(int sig, const siginfo_t *info)
{
	return sig <= 31 && (FAULTS & BIT(sig)) != 0 && info->si_code > 0;
}

/* By default they end the process, and no more than that; not SIGTRAP, which is the debugger's. */
#define FATAL                                                                                                                                              \
	(BIT(SIGHUP) | BIT(SIGINT) | BIT(SIGQUIT) | BIT(SIGILL) | BIT(SIGABRT) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGUSR1) | BIT(SIGSEGV) | BIT(SIGUSR2) | \
	 BIT(SIGPIPE) | BIT(SIGALRM) | BIT(SIGTERM) | BIT(SIGSTKFLT) | BIT(SIGXCPU) | BIT(SIGXFSZ) | BIT(SIGVTALRM) | BIT(SIGPROF) | BIT(SIGIO) |        \
	 BIT(SIGPWR) | ~(BIT(34) - 1)) /* real-time ones; the two before them are libc's own */
#define STACK_MIN 65536u /* that a hand-back may need */

static void wrapper(int sig, siginfo_t *info, void *ctx);

/* The wrapper for our own sake: to the program it is SIG_DFL. */
static void ours(int sig, struct sigaction *a)
{
	memset(a, 0, sizeof *a);
	a->sa_sigaction = wrapper;
	a->sa_flags = SA_SIGINFO | SA_NODEFER | (sig == SIGSEGV || sig == SIGBUS ? SA_ONSTACK : SA_RESTART);
}

/* Is SIG_DFL, or the SIG_IGN that isn't heard, to be the wrapper? */
static bool guards(int sig, bool ignored)
{
	if ((sig == SIGSEGV || sig == SIGBUS) && hv_fault_ready)
		return true;
	return !ignored && hv_fatal_ready && (FATAL & BIT(sig)) != 0;
}

static void by_default(int sig)
{
	struct sigaction dfl;

	memset(&dfl, 0, sizeof dfl);
	REAL_LAZY(sigaction)(sig, &dfl, NULL);
}

/* A handler for one time has had it. */
static void reset(int sig)
{
	struct sigaction a;

	if (!guards(sig, false)) {
		by_default(sig);
		return;
	}
	ours(sig, &a);
	atomic_store(&table[sig].handler, NULL);
	atomic_store(&table[sig].flags, 0);
	REAL_LAZY(sigaction)(sig, &a, NULL);
}

/* The default, by the same instruction or the same signal once more; before that the connections go back. */
static void die(int sig, bool fault)
{
	stack_t st;
	struct sigaction a;

	if (hv_fatal_ready && (sigaltstack(NULL, &st) != 0 || (st.ss_flags & SS_ONSTACK) == 0 || st.ss_size >= STACK_MIN)) {
		hv_inside_depth++;
		hv_engine_dying();
		hv_inside_depth--;
	}
	by_default(sig);
	if (fault)
		return;
	HV_SYS(SYS_tgkill, hv_sys_getpid(), hv_sys_gettid(), sig, 0, 0, 0);
	/* Still here: the first process of a container isn't ended by its own kind. */
	if (guards(sig, false)) {
		ours(sig, &a);
		REAL_LAZY(sigaction)(sig, &a, NULL);
	}
}

static void wrapper(int sig, siginfo_t *info, void *ctx)
{
	struct slot *s = &table[sig];
	int flags = atomic_load_explicit(&s->flags, memory_order_relaxed), e = errno;
	bool fault = is_fault(sig, info);

	if (fault && hv_fault_fixup(ctx))
		return;
	void *h = atomic_load_explicit(&s->handler, memory_order_acquire);
	bool keep = (hv_inside_depth != 0 || hv_lock_held != 0) && !fault && !hv_sig_kept;
	if (h == NULL && !keep) {
		die(sig, fault);
		errno = e;
		return;
	}
	hv_sig_count++;
	if ((flags & SA_RESTART) == 0)
		hv_sig_norestart = true;
	if (keep) {
		ucontext_t *uc = ctx;
		kept_info = *info;
		memcpy(&kept_mask, &uc->uc_sigmask, sizeof kept_mask);
		uint64_t all = ~(uint64_t)(FAULTS & ~BIT(SIGSYS));
		memcpy(&uc->uc_sigmask, &all, sizeof all);
		hv_sig_kept = true;
		if (hv_sleep != NULL) { /* just before the system call, or in it */
			hv_sleep->tv_sec = 0;
			hv_sleep->tv_nsec = 0;
		}
		return;
	}
	if ((flags & (int)SA_RESETHAND) != 0) /* ours to do: the kernel would have reset it when the signal was kept */
		reset(sig);
	const char *outer = hv_handler_frame;
	hv_handler_frame = __builtin_frame_address(0);
	errno = e;
	((void (*)(int, siginfo_t *, void *))h)(sig, info, ctx);
	hv_handler_frame = outer;
}

/* The engine has been left: what was kept comes now. */
void hv_sig_release(void)
{
	int e = errno, sig = kept_info.si_signo;
	uint64_t mask = kept_mask, open = mask & ~BIT(sig);
	siginfo_t info = kept_info;

	hv_sig_kept = false;
	HV_SYS(SYS_rt_tgsigqueueinfo, hv_sys_getpid(), hv_sys_gettid(), sig, &info, 0, 0);
	HV_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &open, NULL, 8, 0, 0); /* handlers run here */
	if (mask != open) /* it had been let in by the mask of ppoll() and the like only */
		HV_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8, 0, 0);
	errno = e;
}

static bool wrapped(const struct sigaction *sa)
{
	return (sa->sa_flags & SA_SIGINFO) != 0 && sa->sa_sigaction == wrapper;
}

static bool is_function(const struct sigaction *sa)
{
	return (sa->sa_flags & SA_SIGINFO) != 0 ? sa->sa_sigaction != NULL && (void *)sa->sa_sigaction != (void *)SIG_IGN : sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN;
}

void hv_fault_init(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS };
	static atomic_flag once = ATOMIC_FLAG_INIT;
	struct sigaction old, a;
	bool ok = true;

	if (atomic_flag_test_and_set(&once))
		return;
	for (int i = 0; i < 2; i++) {
		ours(sigs[i], &a);
		if (REAL_LAZY(sigaction)(sigs[i], NULL, &old) < 0)
			ok = false;
		else if (!is_function(&old)) /* a fault is never ignored, so neither is lost by this */
			ok &= REAL_LAZY(sigaction)(sigs[i], &a, NULL) == 0;
		else
			ok &= wrapped(&old);
	}
	hv_fault_ready = ok;
}

void hv_fatal_init(void)
{
	static atomic_flag once = ATOMIC_FLAG_INIT;
	struct sigaction old, a;

	if (atomic_flag_test_and_set(&once))
		return;
	for (int sig = 1; sig < _NSIG; sig++) {
		ours(sig, &a);
		if ((FATAL & BIT(sig)) != 0 && REAL_LAZY(sigaction)(sig, NULL, &old) == 0 && (old.sa_flags & SA_SIGINFO) == 0 && old.sa_handler == SIG_DFL)
			REAL_LAZY(sigaction)(sig, &a, NULL);
	}
	hv_fatal_ready = true;
}

static int set_action(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction ka, ko;
	struct slot *s = &table[sig];
	void *oh = atomic_load(&s->handler);
	int of = atomic_load(&s->flags);

	if (act != NULL && is_function(act)) {
		ka = *act;
		ka.sa_sigaction = wrapper;
		ka.sa_flags = (act->sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
		atomic_store(&s->flags, act->sa_flags);
		atomic_store(&s->handler, (act->sa_flags & SA_SIGINFO) != 0 ? (void *)act->sa_sigaction : (void *)act->sa_handler);
	} else if (act != NULL && guards(sig, act->sa_handler == SIG_IGN)) {
		ours(sig, &ka);
		atomic_store(&s->flags, 0);
		atomic_store(&s->handler, NULL);
	} else if (act != NULL) {
		ka = *act;
	}
	int r = REAL_LAZY(sigaction)(sig, act != NULL ? &ka : NULL, &ko);
	if (r < 0) {
		atomic_store(&s->handler, oh);
		atomic_store(&s->flags, of);
		return r;
	}
	if (old != NULL) {
		if (wrapped(&ko)) {
			ko.sa_flags = of | (ko.sa_flags & 0x04000000); /* SA_RESTORER, which libc doesn't hide */
			if ((of & SA_SIGINFO) != 0)
				ko.sa_sigaction = (void (*)(int, siginfo_t *, void *))oh;
			else
				ko.sa_handler = (void (*)(int))oh;
		}
		*old = ko;
	}
	return r;
}

/* A vforked child has dispositions of its own, but not a table. */
static bool aside(int sig)
{
	return hv_aside() || sig <= 0 || sig >= _NSIG || hv_borrowed();
}

HV_EXPORT int sigaction(int sig, const struct sigaction *restrict act, struct sigaction *restrict old)
{
	if (aside(sig))
		return REAL_LAZY(sigaction)(sig, act, old);
	return set_action(sig, act, old);
}

static sighandler_t simple(int sig, sighandler_t h, int flags, bool mask)
{
	struct sigaction a, o;

	memset(&a, 0, sizeof a);
	a.sa_handler = h;
	a.sa_flags = flags;
	if (mask)
		sigaddset(&a.sa_mask, sig);
	return set_action(sig, &a, &o) < 0 ? SIG_ERR : o.sa_handler;
}

HV_EXPORT sighandler_t signal(int sig, sighandler_t h)
{
	if (h == SIG_ERR || aside(sig))
		return REAL_LAZY(signal)(sig, h);
	return simple(sig, h, (atomic_load(&interrupting) & BIT(sig)) != 0 ? 0 : SA_RESTART, true);
}

HV_EXPORT sighandler_t __sysv_signal(int sig, sighandler_t h)
{
	if (h == SIG_ERR || aside(sig))
		return REAL_LAZY(__sysv_signal)(sig, h);
	return simple(sig, h, (int)SA_RESETHAND | SA_NODEFER, false);
}

HV_EXPORT int siginterrupt(int sig, int flag)
{
	struct sigaction a;

	if (aside(sig))
		return REAL_LAZY(siginterrupt)(sig, flag);
	if (set_action(sig, NULL, &a) < 0)
		return -1;
	if (flag) {
		atomic_fetch_or(&interrupting, BIT(sig));
		a.sa_flags &= ~SA_RESTART;
	} else {
		atomic_fetch_and(&interrupting, ~BIT(sig));
		a.sa_flags |= SA_RESTART;
	}
	return set_action(sig, &a, NULL);
}

int __sigaction(int sig, const struct sigaction *restrict act, struct sigaction *restrict old) HV_ALSO(sigaction);
sighandler_t bsd_signal(int sig, sighandler_t h) HV_ALSO(signal);
sighandler_t ssignal(int sig, sighandler_t h) HV_ALSO(signal);
sighandler_t sysv_signal(int sig, sighandler_t h) HV_ALSO(__sysv_signal);
