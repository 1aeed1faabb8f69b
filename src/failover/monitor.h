/*
 * monitor.h - is the VF there? rtnetlink through libnl-3 (loaded late) -> VF state machine (vf-and-netvsc.md 10).
 *
 * One monitor per opened ring, used only by the service thread (open, fd, read, close) and by promotion attempts (hold state). The verbs async
 * events and the TX watchdog are fed in by the engine with hv_monitor_signal(): first signal wins, later ones of an epoch change nothing.
 */
#ifndef HV_MONITOR_H
#define HV_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

enum hv_vf_state { HV_VFS_ABSENT, HV_VFS_CANDIDATE, HV_VFS_HOLD, HV_VFS_ACTIVE, HV_VFS_LOST };
enum hv_loss { HV_LOSS_NONE, HV_LOSS_LINK_DOWN, HV_LOSS_LINK_GONE, HV_LOSS_MASTER, HV_LOSS_DEVICE_FATAL, HV_LOSS_PORT_ERR, HV_LOSS_CHANNEL, HV_LOSS_TX_WATCHDOG,
	HV_LOSS_OVERRUN };
const char *hv_vf_state_text(enum hv_vf_state s);
const char *hv_loss_text(enum hv_loss l);

struct hv_monitor;
/* Watches lower (the VF) below upper. 0 or -errno, *what names the missing thing (libnl-3, netlink). */
int hv_monitor_open(struct hv_monitor **out, int upper, int lower, const char **what);
void hv_monitor_close(struct hv_monitor *m);
int hv_monitor_fd(const struct hv_monitor *m);
/* Handle pending messages; returns the loss cause of this epoch, HV_LOSS_NONE while healthy. */
enum hv_loss hv_monitor_read(struct hv_monitor *m);
/* True only for the first signal of the epoch. */
bool hv_monitor_signal(struct hv_monitor *m, enum hv_loss cause);

/* Hold-down after losses: one per process, keyed by upper ifindex; pure, time passed in (unit-tested without netlink). */
struct hv_hold { uint64_t last_loss_us, first_seen_us; uint32_t losses_10min; uint64_t loss_times[16]; uint32_t nloss; };
void hv_hold_lost(struct hv_hold *h, uint64_t now_us);
/* The VF looks usable now (present) or not; true when it has been stable long enough to open: hold_us, doubled per loss within 10 min up to max_us; 0 at
 * first sight in a process that has seen no loss. *left_us: how long still. */
bool hv_hold_ready(struct hv_hold *h, bool present, uint64_t now_us, uint64_t hold_us, uint64_t max_us, uint64_t *left_us);

#endif
