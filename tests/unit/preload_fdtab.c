/*
 * preload_fdtab.c - the descriptor table: who owns what, and readers against a closing thread. The engine is a counter of calls here.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "preload/enter.h"
#include "preload/fdtab.h"

/* ---- the engine's side: objects that know whether they are alive ---- */

__thread bool hv_sig_kept __attribute__((tls_model("initial-exec")));
__thread bool hv_sig_norestart __attribute__((tls_model("initial-exec")));
void hv_sig_release(void) { }

#define ALIVE 0x5afe
#define DEAD 0xdead
static _Atomic unsigned born, died, last_closes, fd_closes, fd_adds;

static struct hv_sock *sock_new(void)
{
	struct hv_sock *s = calloc(1, sizeof *s);
	assert_non_null(s);
	atomic_store(&s->calls, ALIVE);
	atomic_store(&s->refs, 1);
	atomic_store(&s->names, 1);
	atomic_fetch_add(&born, 1);
	return s;
}
static void must_live(struct hv_sock *s)
{
	if (atomic_load(&s->calls) != ALIVE)
		abort();
}
void hv_sock_put(struct hv_sock *s)
{
	must_live(s);
	if (atomic_fetch_sub(&s->refs, 1) != 1 || atomic_load(&s->names) != 0)
		abort();
	atomic_store(&s->calls, DEAD);
	atomic_fetch_add(&died, 1);
	free(s); /* the sanitizer build sees a late reader */
}
void hv_sock_last_close(struct hv_sock *s, int fd)
{
	(void)fd;
	must_live(s);
	atomic_fetch_add(&last_closes, 1);
}
void hv_sock_abandon(struct hv_sock *s)
{
	must_live(s);
	atomic_fetch_add(&last_closes, 1);
}
void hv_sock_fd_closed(struct hv_sock *s, int fd)
{
	(void)fd;
	must_live(s);
	atomic_fetch_add(&fd_closes, 1);
}
void hv_sock_fd_added(struct hv_sock *s, int fd)
{
	(void)fd;
	must_live(s);
	atomic_fetch_add(&fd_adds, 1);
}
void hv_sock_pin(struct hv_sock *s, enum hv_why why)
{
	(void)why;
	must_live(s);
}
void hv_epoll_put(struct hv_epoll *ep)
{
	free(ep);
	atomic_fetch_add(&died, 1);
}
static int ep_closed, ep_other;
void hv_epoll_fd_closed(struct hv_epoll *ep, int fd, int other)
{
	assert_non_null(ep);
	ep_closed = fd;
	ep_other = other;
}
struct hv_file *hv_sock_probe(int fd)
{
	(void)fd;
	return NULL;
}

static int reset(void **state)
{
	(void)state;
	hv_on = true;
	born = died = last_closes = fd_closes = fd_adds = 0;
	return 0;
}

static void put_sock(int fd)
{
	struct hv_file *f = hv_file_new(HV_KIND_SOCK, sock_new());
	assert_non_null(f);
	hv_tab_set(fd, f);
}

static void close_it(int fd)
{
	if (hv_tab_drop(fd))
		hv_tab_gone(fd);
}

/* ---- */

static void test_unknown(void **state)
{
	(void)state;
	assert_null(hv_tab_ref(3));
	assert_null(hv_tab_ref(-1));
	assert_null(hv_tab_ref(INT32_MAX));
	assert_false(hv_tab_known(70000));
	assert_false(hv_tab_drop(70000));
	hv_tab_set(5, HV_FD_OTHER);
	assert_true(hv_tab_known(5));
	assert_false(hv_tab_ours(5));
	assert_null(hv_tab_ref(5));
	assert_false(hv_tab_drop(5)); /* and the number is open to another look */
	assert_false(hv_tab_known(5));
}

static void test_one(void **state)
{
	(void)state;
	put_sock(7);
	struct hv_file *f = hv_sock_at(7);
	assert_non_null(f);
	assert_true(hv_tab_is(7, f));
	assert_int_equal(atomic_load(&f->refs), 2);
	hv_file_put(f);
	assert_true(hv_tab_drop(7));
	assert_int_equal(last_closes, 1);
	assert_int_equal(died, 1);
	assert_null(hv_tab_ref(7)); /* closing: nobody's */
	assert_true(hv_tab_known(7));
	hv_tab_gone(7);
	assert_false(hv_tab_known(7));
}

/* The engine hears of the last close when the last name goes, and the object lives as long as somebody uses it. */
static void test_dup(void **state)
{
	(void)state;
	put_sock(10);
	struct hv_file *f = hv_tab_ref(10);
	hv_tab_share(11, f);
	hv_tab_share(20000, f);
	assert_int_equal(fd_adds, 2);
	close_it(10);
	close_it(20000);
	assert_int_equal(fd_closes, 2);
	assert_int_equal(last_closes, 0);
	assert_true(hv_tab_is(11, f));
	close_it(11);
	assert_int_equal(last_closes, 1);
	assert_int_equal(died, 0);
	hv_file_put(f);
	assert_int_equal(died, 1);
}

/* A number that comes back from the kernel while we think that it is open. */
static void test_stale(void **state)
{
	(void)state;
	put_sock(12);
	put_sock(12);
	assert_int_equal(died, 1);
	hv_tab_forget(12);
	assert_int_equal(died, 2);
	assert_int_equal(last_closes, 2);
	assert_null(hv_tab_ref(12));
}

/* Closing a number and getting it again from another thread before the end of close(). */
static void test_gone_late(void **state)
{
	(void)state;
	put_sock(13);
	assert_true(hv_tab_drop(13));
	put_sock(13);
	hv_tab_gone(13);
	assert_true(hv_tab_ours(13));
	close_it(13);
	assert_int_equal(died, 2);
}

static void test_settle(void **state)
{
	(void)state;
	struct hv_file *f = hv_file_new(HV_KIND_SOCK, sock_new());
	hv_tab_settle(14, f);
	assert_true(hv_tab_is(14, f));
	hv_tab_settle(14, hv_file_new(HV_KIND_SOCK, sock_new())); /* too late */
	assert_true(hv_tab_is(14, f));
	assert_int_equal(died, 1);
	close_it(14);
	assert_int_equal(died, 2);
}

static void test_inside(void **state)
{
	(void)state;
	put_sock(15);
	hv_inside_enter();
	assert_null(hv_sock_at(15));
	hv_inside_leave();
	hv_on = false;
	assert_null(hv_sock_at(15));
	hv_on = true;
	struct hv_file *f = hv_sock_at(15);
	assert_non_null(f);
	hv_file_put(f);
	close_it(15);
}

static void test_kinds(void **state)
{
	(void)state;
	hv_tab_set(16, hv_file_new(HV_KIND_EPOLL, malloc(8)));
	assert_null(hv_sock_at(16));
	struct hv_file *f = hv_file_at(16);
	assert_non_null(f);
	assert_int_equal(f->kind, HV_KIND_EPOLL);
	hv_file_put(f);
	close_it(16);
	assert_int_equal(died, 1);
}

static void test_far(void **state)
{
	(void)state;
	put_sock((int)HV_FD_MAX - 1);
	assert_true(hv_tab_ours((int)HV_FD_MAX - 1));
	put_sock((int)HV_FD_MAX); /* can't be followed: given back */
	assert_int_equal(died, 1);
	close_it((int)HV_FD_MAX - 1);
	assert_int_equal(died, 2);
}

static void count(int fd, struct hv_file *f, void *arg)
{
	(void)f;
	*(int64_t *)arg += fd;
}

static void drop(int fd, struct hv_file *f, void *arg)
{
	(void)f;
	(void)arg;
	hv_tab_drop(fd);
}

static void test_range(void **state)
{
	int64_t sum = 0;
	(void)state;
	for (int fd = 4090; fd < 4100; fd++) /* over the end of a leaf */
		put_sock(fd);
	hv_tab_set(4095, HV_FD_OTHER);
	hv_tab_each(4091, 4098, count, &sum);
	assert_int_equal(sum, 4091 + 4092 + 4093 + 4094 + 4096 + 4097 + 4098);
	hv_tab_each(0, UINT32_MAX, drop, NULL);
	hv_tab_gone_range(0, UINT32_MAX);
	for (int fd = 4090; fd < 4100; fd++)
		assert_false(hv_tab_known(fd));
	assert_int_equal(died, 10);
	assert_int_equal(last_closes, 10);
}

/* Many more objects than one chunk of the pool, in use at once. */
static void test_many(void **state)
{
	(void)state;
	for (int fd = 0; fd < 5000; fd++)
		put_sock(fd);
	for (int fd = 0; fd < 5000; fd++)
		close_it(fd);
	assert_int_equal(born, 5000);
	assert_int_equal(died, 5000);
}

/* ---- readers, duplicators and closers on the same few numbers ---- */

#define FDS 4
#define ROUNDS 20000
static _Atomic bool stop;
static _Atomic unsigned long seen;

static void *reader(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		struct hv_file *f = hv_sock_at((int)(100 + i++ % FDS));
		if (f == NULL)
			continue;
		must_live(f->s);
		struct hv_file *g = hv_tab_ref((int)(100 + i % FDS)); /* two at a time, as sendfile() does */
		if (g != NULL) {
			must_live(g->s);
			hv_file_put(g);
		}
		must_live(f->s);
		hv_file_put(f);
		atomic_fetch_add_explicit(&seen, 1, memory_order_relaxed);
	}
	return NULL;
}

static void *churner(void *arg)
{
	unsigned x = (unsigned)(uintptr_t)arg * 7919u + 1u;
	for (unsigned i = 0; i < ROUNDS; i++) {
		x = x * 1103515245u + 12345u;
		int fd = 100 + (int)(x >> 16) % FDS, other = 100 + (int)(x >> 20) % FDS;
		switch ((x >> 8) % 4) {
		case 0:
		case 1:
			put_sock(fd); /* over whatever there is */
			break;
		case 2:
			close_it(fd);
			break;
		default: {
			struct hv_file *f = hv_tab_ref(fd);
			if (f != NULL) {
				hv_tab_share(other, f);
				hv_file_put(f);
			}
		}
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t r[2], c[2];
	(void)state;
	stop = false;
	for (uintptr_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&r[i], NULL, reader, (void *)i), 0);
		assert_int_equal(pthread_create(&c[i], NULL, churner, (void *)i), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(c[i], NULL);
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(r[i], NULL);
	for (int fd = 100; fd < 100 + FDS; fd++)
		close_it(fd);
	assert_true(born > ROUNDS / 4);
	assert_int_equal(died, born);        /* nothing leaked, nothing freed twice */
	assert_int_equal(last_closes, born); /* each heard of its end exactly once */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_unknown, reset), cmocka_unit_test_setup(test_one, reset),   cmocka_unit_test_setup(test_dup, reset),
		cmocka_unit_test_setup(test_stale, reset),   cmocka_unit_test_setup(test_gone_late, reset), cmocka_unit_test_setup(test_settle, reset),
		cmocka_unit_test_setup(test_inside, reset),  cmocka_unit_test_setup(test_kinds, reset), cmocka_unit_test_setup(test_far, reset),
		cmocka_unit_test_setup(test_range, reset),   cmocka_unit_test_setup(test_many, reset),  cmocka_unit_test_setup(test_threads, reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
