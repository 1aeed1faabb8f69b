/*
 * pass.h - descriptors in control messages (SCM_RIGHTS).
 */
#ifndef HV_PRELOAD_PASS_H
#define HV_PRELOAD_PASS_H

#include <sys/socket.h>

/* Before the kernel copies them: sockets of ours that another process will share stay in the kernel from now on. */
void hv_pass_sending(const struct msghdr *msg);
/* Numbers that the kernel has just given us: whatever the table says about them is old. */
void hv_pass_received(struct msghdr *msg);
/* A socket of ours that somebody else will use from now on. */
void hv_pass_fd(int fd, int why);

#endif
