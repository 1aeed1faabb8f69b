/* softvf exports what the installed libibverbs.so.1 exports: every name, version and kind, nothing missing, nothing more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SYMS 1024

struct syms {
	char *s[MAX_SYMS];
	int n;
};

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* "T name@@VERSION" of everything defined that carries one of libibverbs' versions. */
static void list(const char *lib, struct syms *o)
{
	char cmd[PATH_MAX + 64], line[512], kind, name[400];
	FILE *f;

	snprintf(cmd, sizeof cmd, "nm -D --defined-only '%s'", lib);
	f = popen(cmd, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL && o->n < MAX_SYMS) {
		char t[410];

		if (sscanf(line, "%*s %c %399s", &kind, name) != 2 || strstr(name, "IBVERBS_") == NULL)
			continue;
		snprintf(t, sizeof t, "%c %s", kind == 'D' ? 'B' : kind, name); /* .data or .bss: no matter */
		o->s[o->n++] = strdup(t);
	}
	assert_int_equal(pclose(f), 0);
	qsort(o->s, (size_t)o->n, sizeof o->s[0], by_text);
}

/* The system's library: the first of the usual places that isn't ours. */
static const char *system_lib(const char *ours)
{
	static char real[PATH_MAX];
	static const char *const at[] = { "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64" };
	char p[128];
	unsigned i;

	for (i = 0; i < sizeof at / sizeof at[0]; i++) {
		snprintf(p, sizeof p, "%s/libibverbs.so.1", at[i]);
		if (realpath(p, real) != NULL && strcmp(real, ours) != 0)
			return real;
	}
	return NULL;
}

static char ours[PATH_MAX];
static const char *real;

static void same(void **state)
{
	struct syms a = { .n = 0 }, b = { .n = 0 };
	int i, k, bad = 0;

	(void)state;
	list(real, &a);
	list(ours, &b);
	assert_true(a.n > 150);
	for (i = k = 0; i < a.n || k < b.n;) {
		int c = i == a.n ? 1 : k == b.n ? -1 : strcmp(a.s[i], b.s[k]);

		if (c != 0) {
			print_error("%s: %s\n", c < 0 ? "missing" : "too much", c < 0 ? a.s[i] : b.s[k]);
			bad++;
		}
		i += c <= 0;
		k += c >= 0;
	}
	assert_int_equal(bad, 0);
	while (a.n > 0)
		free(a.s[--a.n]);
	while (b.n > 0)
		free(b.s[--b.n]);
}

/* What isn't implemented says so. */
static void stubs(void **state)
{
	struct ibv_pd pd = { .context = NULL };
	struct ibv_srq_init_attr sa = { .attr = { .max_wr = 1 } };
	void *old;

	(void)state;
	errno = 0;
	assert_null(ibv_create_srq(&pd, &sa));
	assert_int_equal(errno, EOPNOTSUPP);
	assert_int_equal(ibv_attach_mcast(NULL, NULL, 0), EOPNOTSUPP);
	old = dlvsym(RTLD_DEFAULT, "ibv_open_device", "IBVERBS_1.0");
	assert_non_null(old);
	assert_ptr_not_equal(old, dlvsym(RTLD_DEFAULT, "ibv_open_device", "IBVERBS_1.1"));
	errno = 0;
	assert_null(((void *(*)(void))(uintptr_t)old)());
	assert_int_equal(errno, EOPNOTSUPP);
	assert_string_equal(ibv_wc_status_str(IBV_WC_WR_FLUSH_ERR), "Work Request Flushed Error");
	assert_int_equal(ibv_rate_to_mbps(mbps_to_ibv_rate(10000)), 10000);
}

/* The providers of the installed rdma-core load beside it: their private symbols resolve. */
static void providers(void **state)
{
	static const char *const libs[] = { "libmlx5.so.1", "libmlx4.so.1", "libefa.so.1", "librdmacm.so.1" };
	unsigned i, n = 0;

	(void)state;
	for (i = 0; i < sizeof libs / sizeof libs[0]; i++) {
		void *h = dlopen(libs[i], RTLD_NOW | RTLD_LOCAL);

		if (h != NULL)
			n++;
		else if (strstr(dlerror(), "cannot open shared object") == NULL)
			fail_msg("%s doesn't load", libs[i]);
	}
	if (n == 0)
		skip();
}

int main(void)
{
	const struct CMUnitTest t[] = { cmocka_unit_test(same), cmocka_unit_test(stubs), cmocka_unit_test(providers) };
	Dl_info i;

	if (dladdr((void *)(uintptr_t)ibv_open_device, &i) == 0 || realpath(i.dli_fname, ours) == NULL) {
		fprintf(stderr, "can't tell where libibverbs was loaded from\n");
		return 1;
	}
	real = system_lib(ours);
#ifdef __SANITIZE_ADDRESS__
	fprintf(stderr, "SKIP: compares shared libraries; in this build softvf is linked statically, and the system's providers leak\n");
	return 77;
#endif
	if (real == NULL || system("nm --version >/dev/null 2>&1") != 0) {
		fprintf(stderr, "SKIP: needs the system's libibverbs.so.1 and nm to compare with\n");
		return 77;
	}
	return cmocka_run_group_tests(t, NULL, NULL);
}
