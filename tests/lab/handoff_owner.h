/*
 * handoff_owner.h - test bench for src/failover: two namespaces' worth of sockets and the smallest TCP that can own a connection.
 *
 * The owner works over an AF_PACKET socket, acknowledges in-order data, sends go-back-N, keeps no out-of-order data. A tcx program can take the
 * connection's frames away from the kernel meanwhile, as a flow rule would. One thread only.
 */
#ifndef HANDOFF_OWNER_H
#define HANDOFF_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "failover/handoff.h"

#define QUEUE (1u << 20)

#define die(...) do { fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)
#define check(x) do { if (!(x)) die("failed: %s", #x); } while (0)
/* For system calls: the value, or the end of the test. */
#define sys(x) ({ long r_ = (long)(x); if (r_ < 0) die("%s: %m", #x); (int)r_; })

struct bench {
	int ns_a, ns_b;      /* ours and the peer's */
	int ifindex;         /* in ours */
	uint8_t mac_a[6], mac_b[6];
	int pkt[2];          /* AF_PACKET: IPv4, IPv6 */
	int steal_map, steal_link; /* -1: the kernel sees every frame too */
};
extern struct bench B;

struct owner {
	int fd;
	struct hv_park pk;
	struct hv_tcp_image img;         /* as promoted: constants of the connection */
	bool up, due_demote;             /* a FIN or RST wants the kernel */
	bool frozen;                     /* takes frames in, answers nothing: to leave things in flight */
	uint32_t una, nxt, end, wnd, wl1, maxwnd, rcv, edge, ts_recent;
	bool ts_ok, ack_due;
	int dup;
	uint64_t rto_us, settle_us;
	uint8_t *snd, *rcvq;             /* una..end; unread octets that end at rcv */
	uint32_t rcv_len;
	uint8_t held[2048];              /* the frame that asks for the kernel */
	uint32_t held_len;
	uint64_t rexmits, frames, late;
};

void bench_open(const char *ns_a, const char *ns_b, const char *dev, bool steal);
void bench_enter(int ns);
uint64_t bench_rsts(int ns);

void owner_init(struct owner *o, int fd);
void owner_free(struct owner *o);
enum hv_move_why owner_promote(struct owner *o);
void owner_poll(struct owner *o);                /* frames, late check, settle, output, timer */
void owner_kernel_sees(bool on);                 /* from the next promotion on, the kernel gets the frames too */
void owner_deaf(struct owner *o);                /* throws away what has come in for it */
uint32_t owner_write(struct owner *o, const void *p, uint32_t n);
uint32_t owner_read(struct owner *o, void *p, uint32_t n);
int owner_demote(struct owner *o, bool lost);    /* 0 or what hv_demote() said: the owner goes on then */

#endif
