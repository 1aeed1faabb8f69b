/* Tunables: values, limits, warnings. Each case loads a made-up environment with the log sent to a temporary file and reads back what was said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/log.h"

static char path[] = "/tmp/hv_base_conf.XXXXXX";
static char file_var[64];
static char said[65536];

static int make_file(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	snprintf(file_var, sizeof file_var, "HVACCEL_LOG_FILE=%s", path);
	return 0;
}

static int drop_file(void **state)
{
	(void)state;
	return unlink(path);
}

/* Loads up to four variables; returns the number of lines that were logged, their text is in `said`. */
static int load(const char *a, const char *b, const char *c)
{
	char *envp[] = { file_var, (char *)"HOME=/root", (char *)a, (char *)b, (char *)c, NULL };
	assert_return_code(truncate(path, 0), 0);
	hv_conf_load(envp);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	size_t n = fread(said, 1, sizeof said - 1, f);
	fclose(f);
	said[n] = '\0';
	int lines = 0;
	for (size_t i = 0; i < n; i++)
		lines += said[i] == '\n';
	return lines;
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(load(NULL, NULL, NULL), 0);
	assert_int_equal(hv_conf.enable, 1);
	assert_int_equal(hv_conf.promote_calls, 8);
	assert_string_equal(hv_conf.promote, "8");
	assert_int_equal(hv_conf.idle_ms, 3000);
	assert_string_equal(hv_conf.verbs, "libibverbs.so.1");
	assert_string_equal(hv_conf.summary, "");
	assert_int_equal(hv_log_threshold, HV_LOG_WARN);
}

static void good_values(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_SPIN_US=0", "HVACCEL_CC=reno", "HVACCEL_DEVICE=eth0"), 0);
	assert_int_equal(hv_conf.spin_us, 0);
	assert_int_equal(hv_conf.cc, 1);
	assert_string_equal(hv_conf.device, "eth0");
	/* and back to the defaults when unset */
	assert_int_equal(load(NULL, NULL, NULL), 0);
	assert_int_equal(hv_conf.spin_us, 50);
	assert_int_equal(hv_conf.cc, 0);
	assert_string_equal(hv_conf.device, "");
}

static void empty_is_unset(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_SPIN_US=", "HVACCEL_CC=", "HVACCEL_VERBS="), 0);
	assert_int_equal(hv_conf.spin_us, 50);
	assert_string_equal(hv_conf.verbs, "libibverbs.so.1");
}

static void limits(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_IDLE_MS=10", NULL, NULL), 0);
	assert_int_equal(hv_conf.idle_ms, 10);
	assert_int_equal(load("HVACCEL_IDLE_MS=86400000", NULL, NULL), 0);
	assert_int_equal(hv_conf.idle_ms, 86400000);
	const char *const bad[] = { "9", "86400001", "-1", "1e3", " 20", "20 ", "0x20", "20ms", "99999999999999999999", "18446744073709551626", "-", "--20" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		char var[64];
		snprintf(var, sizeof var, "HVACCEL_IDLE_MS=%s", bad[i]);
		assert_int_equal(load(var, NULL, NULL), 1);
		assert_int_equal(hv_conf.idle_ms, 3000);
		assert_non_null(strstr(said, "warn: "));
		assert_non_null(strstr(said, var));
		assert_non_null(strstr(said, "10..86400000 ms"));
		assert_non_null(strstr(said, "using 3000"));
	}
}

static void bad_words(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_CC=vegas", "HVACCEL_TCP=ye", "HVACCEL_DEVICE=a/b"), 3);
	assert_int_equal(hv_conf.cc, 0);
	assert_int_equal(hv_conf.tcp, 1);
	assert_string_equal(hv_conf.device, "");
	assert_non_null(strstr(said, "HVACCEL_CC=vegas: not valid, allowed cubic|reno; using cubic\n"));
	assert_non_null(strstr(said, "HVACCEL_TCP=ye: not valid, allowed no|yes; using yes\n"));
	assert_non_null(strstr(said, "HVACCEL_DEVICE=a/b: not valid, allowed netdev name; using none\n"));
}

static void promote(void **state)
{
	(void)state;
	static const struct { const char *var; int64_t calls; int lines; } cases[] = {
		{ "HVACCEL_PROMOTE=never", -1, 0 }, { "HVACCEL_PROMOTE=always", 0, 0 },   { "HVACCEL_PROMOTE=1", 1, 0 },      { "HVACCEL_PROMOTE=1000000", 1000000, 0 },
		{ "HVACCEL_PROMOTE=0", 8, 1 },      { "HVACCEL_PROMOTE=1000001", 8, 1 }, { "HVACCEL_PROMOTE=Always", 8, 1 }, { "HVACCEL_PROMOTE=-1", 8, 1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(load(cases[i].var, NULL, NULL), cases[i].lines);
		assert_int_equal(hv_conf.promote_calls, cases[i].calls);
	}
}

static void unknown_names(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_SPINN_US=1", "HVACCEL_LAB_NAME=x", "HVACCELERATE=1"), 1);
	assert_non_null(strstr(said, "HVACCEL_SPINN_US: unknown variable"));
	assert_non_null(strstr(said, "HVACCEL_SPIN_US\n"));
	assert_int_equal(load("HVACCEL_HUGE=1", "HVACCEL_=1", "HVACCEL_LOGFILE"), 3);
	assert_non_null(strstr(said, "HVACCEL_HUGE: unknown variable, ignored; the nearest known one is HVACCEL_"));
	assert_non_null(strstr(said, "HVACCEL_LOGFILE: unknown variable, ignored; the nearest known one is HVACCEL_LOG_FILE\n"));
	/* a name far longer than any table entry */
	char longname[3000] = "HVACCEL_";
	memset(longname + 8, 'Q', sizeof longname - 9);
	assert_int_equal(load(longname, NULL, NULL), 1);
}

static void first_of_two_counts(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_SPIN_US=7", "HVACCEL_SPIN_US=9", NULL), 0);
	assert_int_equal(hv_conf.spin_us, 7);
}

static void strings_are_copied(void **state)
{
	(void)state;
	char var[] = "HVACCEL_VERBS=/lib/softvf.so";
	assert_int_equal(load(var, NULL, NULL), 0);
	memset(var, 'X', sizeof var - 1); /* as setproctitle() does */
	assert_string_equal(hv_conf.verbs, "/lib/softvf.so");
}

static void silent_when_asked(void **state)
{
	(void)state;
	assert_int_equal(load("HVACCEL_LOG=error", "HVACCEL_SPIN_US=x", "HVACCEL_FOO=1"), 0);
	assert_int_equal(hv_conf.spin_us, 50);
	assert_int_equal(load("HVACCEL_LOG=loud", NULL, NULL), 1); /* invalid level: the default, warn */
}

static void no_environment(void **state)
{
	(void)state;
	hv_conf_load(NULL);
	assert_int_equal(hv_conf.enable, 1);
}

/* Every entry of the table appears in both documents with its range and default. */
static void documented(void **state)
{
	(void)state;
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	hv_conf_print_help(f);
	fclose(f);
#define HV_INT(NAME, field, def, min, max, unit, words) assert_non_null(strstr(text, "HVACCEL_" #NAME "=" #min ".." #max " " unit " (default " #def ")"));
#define HV_STR(NAME, field, def, allowed, words) assert_non_null(strstr(text, "HVACCEL_" #NAME "=" allowed " (default "));
#define HV_ENUM(NAME, field, def, list, words) assert_non_null(strstr(text, "HVACCEL_" #NAME "=" list " (default "));
#include "base/tunables.def"
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),        cmocka_unit_test(good_values),         cmocka_unit_test(empty_is_unset),     cmocka_unit_test(limits),
		cmocka_unit_test(bad_words),       cmocka_unit_test(promote),             cmocka_unit_test(unknown_names),      cmocka_unit_test(first_of_two_counts),
		cmocka_unit_test(strings_are_copied), cmocka_unit_test(silent_when_asked), cmocka_unit_test(documented),        cmocka_unit_test(no_environment),
	};
	return cmocka_run_group_tests(tests, make_file, drop_file);
}
