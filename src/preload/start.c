/*
 * start.c - constructor and destructor.
 *
 * Order: the real functions are found first, whatever happens afterwards, because libc's own (with their cancellation points) are better than the stand-ins. Then
 * tunables, log, engine; hv_on is set last, and until then every hook is libc's function.
 */
#include <sys/auxv.h>
#include <unistd.h>

#include "base/conf.h"
#include "preload/enter.h"
#include "preload/fdtab.h"
#include "preload/proc.h"
#include "preload/real.h"

static void cancelled(void)
{
	hv_engine_leave();
}

__attribute__((constructor)) static void start(void)
{
	int e = errno;

	hv_real_init();
	if (getauxval(AT_SECURE) != 0) { /* somebody else's privileges: not ours to use */
		errno = e;
		return;
	}
	hv_conf_load(environ); /* and opens the log */
	if (hv_conf.enable) {
		hv_engine_init();
		hv_wait_cancelled = cancelled;
		hv_proc_init();
		hv_on = true;
	}
	errno = e;
}

__attribute__((destructor)) static void stop(void)
{
	int e = errno;

	hv_proc_exit();
	errno = e;
}
