/*
 * waits.h - the cases of the test program waits. A new one is a function w_NAME() in one of the waits_*.c files and a line here.
 */
#ifndef TESTS_LAB_WAITS_H
#define TESTS_LAB_WAITS_H

#include "drive.h"

void after_in(struct sock *s);
int ep_with(int fd, unsigned events, uint64_t data);
void say_epoll(int ep, int timeout); /* one epoll_wait, described: number, events and data of the first ones */
void take(struct sock *s, size_t n);

#define WAIT_CASES(X) \
	X("recv", w_recv) \
	X("read", w_read) \
	X("readv", w_readv) \
	X("recvmsg", w_recvmsg) \
	X("waitall", w_waitall) \
	X("waitall-split", w_waitall_split) \
	X("waitall-fin", w_waitall_fin) \
	X("peek", w_peek) \
	X("dontwait", w_dontwait) \
	X("nonblock", w_nonblock) \
	X("fin", w_fin) \
	X("rst", w_rst) \
	X("shutdown", w_shutdown) \
	X("send", w_send) \
	X("out-poll", w_out_poll) \
	X("out-select", w_out_select) \
	X("out-epoll", w_out_epoll) \
	X("sndtimeo", w_sndtimeo) \
	X("poll", w_poll) \
	X("poll-timeout", w_poll_timeout) \
	X("poll-mixed", w_poll_mixed) \
	X("poll-two", w_poll_two) \
	X("poll-fin", w_poll_fin) \
	X("poll-rst", w_poll_rst) \
	X("ppoll", w_ppoll) \
	X("select", w_select) \
	X("pselect", w_pselect) \
	X("epoll-lt", w_epoll_lt) \
	X("epoll-et", w_epoll_et) \
	X("epoll-et-out", w_epoll_et_out) \
	X("epoll-oneshot", w_epoll_oneshot) \
	X("epoll-exclusive", w_epoll_exclusive) \
	X("epoll-nested", w_epoll_nested) \
	X("epoll-poll", w_epoll_poll) \
	X("epoll-two", w_epoll_two) \
	X("epoll-in-two", w_epoll_in_two) \
	X("epoll-mod", w_epoll_mod) \
	X("epoll-timeout", w_epoll_timeout) \
	X("epoll-fin", w_epoll_fin) \
	X("epoll-rst", w_epoll_rst) \
	X("two-recv", w_two_recv) \
	X("two-poll", w_two_poll) \
	X("two-epoll", w_two_epoll) \
	X("duplex", w_duplex) \
	X("recv-restart", w_recv_restart) \
	X("recv-intr", w_recv_intr) \
	X("poll-intr", w_poll_intr) \
	X("epoll-intr", w_epoll_intr) \
	X("select-intr", w_select_intr) \
	X("ppoll-mask", w_ppoll_mask) \
	X("send-intr", w_send_intr) \
	X("rcvtimeo", w_rcvtimeo) \
	X("rcvtimeo-intr", w_rcvtimeo_intr) \
	X("rcvlowat", w_rcvlowat) \
	X("udp-recv", w_udp_recv) \
	X("udp-poll", w_udp_poll) \
	X("udp-epoll", w_udp_epoll) \
	X("udp-timeo", w_udp_timeo)

#define WAIT_PROTO(name, fn) void fn(void);
WAIT_CASES(WAIT_PROTO)
#undef WAIT_PROTO

#endif
