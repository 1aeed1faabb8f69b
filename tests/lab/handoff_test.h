/*
 * handoff_test.h - what the parts of handoff_move share: connected pairs, known octets, waiting.
 */
#ifndef HANDOFF_TEST_H
#define HANDOFF_TEST_H

#include "handoff_owner.h"

enum kind { CLIENT4, ACCEPT4, CLIENT6, ACCEPT6, CLIENT_MAPPED, ACCEPT_MAPPED };

struct pair { int s, p, listener; }; /* s is ours, in namespace A; p the peer's */
struct pair connect_pair(enum kind k, const char *dev); /* dev: s is bound to that device, or NULL */
void close_pair(struct pair *c);

int geti(int fd, int level, int name);
int seti(int fd, int level, int name, int v);
void pause_us(unsigned us);
int state_of(int fd);
int outq_of(int fd);

/* Stream k's octets from off on. */
void gen(uint64_t k, uint64_t off, uint8_t *p, size_t n);
void verify(uint64_t k, uint64_t off, const uint8_t *p, size_t n, const char *who);
/* Exactly n octets of stream k from off, sent or received and checked. */
void put(int fd, uint64_t k, uint64_t off, size_t n);
void get(int fd, uint64_t k, uint64_t off, size_t n);

extern const char *scenario, *ns_name_a;
extern int guard_mode;
/* Waits for a condition that is certain to come; the bound only ends a broken test. */
#define await(cond, what) do { for (int i_ = 0; !(cond); i_++) { if (i_ > 20000) die("%s: waited in vain for %s", scenario, what); pause_us(1000); } } while (0)
/* The same while the owner works. */
#define await_owner(o, cond, what) do { for (int i_ = 0; !(cond); i_++) { if (i_ > 60000) die("%s: waited in vain for %s", scenario, what); \
	owner_poll(o); pause_us(300); } } while (0)
#define must(r) do { int m_ = (r); if (m_ != 0) die("%s: %s: %d", scenario, #r, m_); } while (0)

void case_queues(void);
void case_fin(void);
void case_rst(void);
void case_options(void);
void case_no_route(void);
void case_undo(void);
void case_fork(void);
void case_refused(void);
void case_lost(void);
void case_ooo(void);
void case_device(void);
void case_late(void);
void case_reuse(void);
void case_early_sent(void);
void case_far(void);
void case_rtt(void);

#endif
