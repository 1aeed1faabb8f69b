/*
 * capture.h - inbound packets of promoted connections that arrive on the upper device instead of the VF's queue.
 *
 * The kernel drops them (their socket is parked), and the peer would only find out by its retransmission timer. They come there whenever the
 * host moves the data path before the guest is told, and now and then while the VF is healthy (vf-and-netvsc.md 0.1, 1.2). So do segments that an
 * adapter's flow rules don't match by their ports: those with IP options, and fragments. Captured, they are input of our stack like any other. One capture per process and upper device; without it everything works, but later.
 *
 * What a reader has to expect:
 *  - Each packet comes once here, but the kernel gets it too: until the socket is parked, and again when it isn't any more, the kernel uses it.
 *    Add the tuple before the freeze and delete it after the thaw: a segment may then be seen twice, which TCP sorts out, but is never missed.
 *  - Packets captured before hv_capture_del() are still in the queue after it. Look up the tuple of each.
 *  - ICMP errors that say "too big" about what a tuple has sent come too: the kernel takes them for forgeries, because the parked socket's sequence
 *    numbers are old. The reader has to make sure that they aren't (RFC 5927).
 *  - Frames may be several segments in one, up to 64 KB and beyond the MTU (GRO, or segmentation offload of a sender on the same host).
 */
#ifndef HV_CAPTURE_H
#define HV_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stack/image.h"

/* Enough for any frame that Linux makes unless gso_max_size or gro_max_size were raised above 64 KB. */
#define HV_CAPTURE_FRAME_MAX (65536u + 14u)

struct hv_capture;
/* 0 or -errno; *what (NULL: not wanted) then names the missing thing (AF_PACKET: CAP_NET_RAW; BPF: CAP_BPF). Captures nothing until tuples are
 * added. Belongs to the network namespace of the calling thread. */
int hv_capture_open(struct hv_capture **out, int upper_ifindex, const char **what);
/* Waits for an RCU grace period (milliseconds). NULL is allowed. */
void hv_capture_close(struct hv_capture *c);
/* In a forked child, instead of using it: gives up the descriptors and leaves the parent's tuples alone. Only hv_capture_close() may follow. */
void hv_capture_child(struct hv_capture *c);
/* Readable when there are frames. */
int hv_capture_fd(const struct hv_capture *c);

/* TCP tuples only (-EINVAL). Any thread; about a microsecond. Adding again is harmless, deleting what isn't there is -ENOENT. -E2BIG: full. */
int hv_capture_add(struct hv_capture *c, const struct hv_tuple *t);
int hv_capture_del(struct hv_capture *c, const struct hv_tuple *t);

/* One Ethernet frame, TCP or ICMP, without VLAN tag, of fragments only the first, never one that this machine sent. Returns its length; -EAGAIN when there is
 * none, -EMSGSIZE when it was longer than cap (it's gone), other -errno when the socket is broken. Never waits. One thread at a time.
 * *csum_ok: the TCP checksum needs no check, because the kernel has seen that it's right, or because the packet never was on a wire and the
 * field holds something else. False: nobody has looked yet. */
ssize_t hv_capture_read(struct hv_capture *c, void *frame, size_t cap, bool *csum_ok);

struct hv_capture_counters { uint64_t frames, octets, too_long, overrun; };
/* By the reading thread. overrun: lost because nobody read in time. */
void hv_capture_counters(struct hv_capture *c, struct hv_capture_counters *n);

#endif
