/*
 * proc.h - which process this is.
 */
#ifndef HV_PRELOAD_PROC_H
#define HV_PRELOAD_PROC_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/sys.h"

extern pid_t hv_pid;          /* of the process whose memory this is */

/* True in a child made by vfork() or clone(CLONE_VM): memory is the parent's, descriptors are its own. Costs a system call. */
static inline bool hv_borrowed(void)
{
	return hv_sys_getpid() != hv_pid;
}

/* The program uses io_uring: octets may move without us. Nothing is accelerated any more. */
void hv_uring_seen(void);
/* F_DUPFD and the like: fd is a new name of old. Returns fd. */
int hv_tab_duplicated(int old, int fd);

/* Around a fork that runs no pthread_atfork() handlers. */
void hv_fork_prepare(void);
void hv_fork_parent(void);
void hv_fork_child(void);

void hv_proc_init(void);
void hv_proc_exit(void);

#endif
