/*
 * calls.h - the cases of the test program calls. A new one is a function c_NAME() in one of the calls_*.c files and a line here.
 */
#ifndef TESTS_LAB_CALLS_H
#define TESTS_LAB_CALLS_H

#include "drive.h"

#define CALL_CASES(X) \
	X("iov", c_iov) \
	X("mmsg", c_mmsg) \
	X("espipe", c_espipe) \
	X("zero", c_zero) \
	X("trunc", c_trunc) \
	X("flags", c_flags) \
	X("efault", c_efault) \
	X("shutdown", c_shutdown) \
	X("shutdown-rd", c_shutdown_rd) \
	X("reset", c_reset) \
	X("close-unsent", c_close_unsent) \
	X("linger", c_linger) \
	X("oob", c_oob) \
	X("ioctl", c_ioctl) \
	X("sendfile", c_sendfile) \
	X("splice", c_splice) \
	X("stdio", c_stdio) \
	X("syscall", c_syscall) \
	X("stream", c_stream) \
	X("dup", c_dup) \
	X("dup2-over", c_dup2_over) \
	X("fork-shared", c_fork_shared) \
	X("fork-close", c_fork_close) \
	X("fork-own", c_fork_own) \
	X("exec", c_exec) \
	X("spawn", c_spawn) \
	X("vfork", c_vfork) \
	X("system", c_system) \
	X("exec-self", c_exec_self) \
	X("pass", c_pass) \
	X("pass-self", c_pass_self) \
	X("stat", c_stat) \
	X("close-range", c_close_range) \
	X("reuse", c_reuse) \
	X("daemon", c_daemon) \
	X("getsockopt", c_getsockopt) \
	X("setsockopt", c_setsockopt) \
	X("optbad", c_optbad) \
	X("names", c_names) \
	X("disconnect", c_disconnect) \
	X("connect", c_connect) \
	X("accept", c_accept) \
	X("fcntl", c_fcntl) \
	X("udp", c_udp) \
	X("udp-unconnected", c_udp_unconnected) \
	X("udp-big", c_udp_big) \
	X("udp-mmsg", c_udp_mmsg) \
	X("udp-cmsg", c_udp_cmsg) \
	X("udp-errors", c_udp_errors) \
	X("udp-efault", c_udp_efault)

#define CALL_PROTO(name, fn) void fn(void);
CALL_CASES(CALL_PROTO)
#undef CALL_PROTO

#endif
