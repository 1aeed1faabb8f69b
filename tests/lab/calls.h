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
	X("efault-cold", c_efault_cold) \
	X("shutdown", c_shutdown) \
	X("shutdown-rd", c_shutdown_rd) \
	X("reset", c_reset) \
	X("reset-midway", c_reset_midway) \
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
	X("fork-again", c_fork_again) \
	X("fork-exec", c_fork_exec) \
	X("fork-exec-dup-cloexec", c_fork_exec_dup_cloexec) \
	X("fork-exec-dup", c_fork_exec_dup) \
	X("fork-exec-flag", c_fork_exec_flag) \
	X("fork-exec-open", c_fork_exec_open) \
	X("fork-exec-opt", c_fork_exec_opt) \
	X("fork-stays", c_fork_stays) \
	X("fork-closes", c_fork_closes) \
	X("fork-closes-all", c_fork_closes_all) \
	X("fork-grandchild", c_fork_grandchild) \
	X("vfork-dup", c_vfork_dup) \
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
	X("privileges", c_privileges) \
	X("privileges-back", c_privileges_back) \
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
	X("udp-efault", c_udp_efault) \
	X("udp-cmsg-hot", c_udp_cmsg_hot) \
	X("udp-mapped", c_udp_mapped) \
	X("udp-kernel-cmsg", c_udp_kernel_cmsg) \
	X("udp-refused", c_udp_refused) \
	X("udp-more", c_udp_more) \
	X("udp-peek", c_udp_peek) \
	X("udp-full", c_udp_full) \
	X("udp-slow", c_udp_slow) \
	X("udp-reuse", c_udp_reuse) \
	X("udp-segment", c_udp_segment) \
	X("udp-nothing", c_udp_nothing) \
	X("udp-turns", c_udp_turns) \
	X("udp-stamp", c_udp_stamp) \
	X("udp-error-later", c_udp_error_later) \
	X("epoll-turns", c_epoll_turns) \
	X("epoll-same-data", c_epoll_same_data) \
	X("epoll-names", c_epoll_names) \
	X("epoll-refused", c_epoll_refused) \
	X("opt-carried", c_opt_carried) \
	X("opt-lowat", c_opt_lowat) \
	X("opt-cmsg", c_opt_cmsg) \
	X("opt-zerocopy", c_opt_zerocopy) \
	X("opt-inherited", c_opt_inherited) \
	X("opt-toggle", c_opt_toggle) \
	X("opt-live", c_opt_live) \
	X("opt-buffers", c_opt_buffers) \
	X("info-length", c_info_length) \
	X("info-moves", c_info_moves) \
	X("end-signal", c_end_signal) \
	X("end-busy", c_end_busy) \
	X("limit-fds", c_limit_fds) \
	X("no-fds", c_no_fds) \
	X("no-fds-epoll", c_no_fds_epoll) \
	X("epoll-dup", c_epoll_dup) \
	X("epoll-now", c_epoll_now) \
	X("cancel", c_cancel) \
	X("close-unknown", c_close_unknown) \
	X("fork-busy", c_fork_busy)

#define CALL_PROTO(name, fn) void fn(void);
CALL_CASES(CALL_PROTO)
#undef CALL_PROTO

#endif
