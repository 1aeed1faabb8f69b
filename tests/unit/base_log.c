/* Log lines: formatting against the C library's, one write per line, and never into a descriptor or process that would suffer from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

static char path[] = "/tmp/hv_base_log.XXXXXX";
static char said[65536];

static int make_file(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	return 0;
}

static int drop_file(void **state)
{
	(void)state;
	return unlink(path);
}

static const char *slurp(void)
{
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	size_t n = fread(said, 1, sizeof said - 1, f);
	fclose(f);
	said[n] = '\0';
	return said;
}

static void start(void)
{
	assert_return_code(truncate(path, 0), 0);
	hv_log_threshold = HV_LOG_TRACE;
	hv_log_open(path);
}

#define SAME(...) do { \
		char want_[2048]; \
		int off_ = snprintf(want_, sizeof want_, "libhvaccel[%d]: info: ", (int)getpid()); \
		snprintf(want_ + off_, sizeof want_ - (size_t)off_, __VA_ARGS__); \
		strcat(want_, "\n"); \
		start(); \
		hv_log(HV_LOG_INFO, __VA_ARGS__); \
		assert_string_equal(slurp(), want_); \
	} while (0)

static void formats_as_libc(void **state)
{
	(void)state;
	SAME("plain");
	SAME("%d %i %u %x %X %o", -5, INT_MIN, UINT_MAX, 0xbeefu, 0xBEEFu, 8u);
	SAME("%ld %lu %lld %llu", LONG_MIN, ULONG_MAX, LLONG_MAX, ULLONG_MAX);
	SAME("%zd %zu %td %jd", (ssize_t)-1, SIZE_MAX, (ptrdiff_t)-3, INTMAX_MIN);
	SAME("%hhd %hd %hhx", (signed char)-1, (short)-2, (unsigned char)0xfe);
	SAME("%5d|%-5d|%05d|%+d|%#x|%#x", 42, 42, 42, 42, 42u, 0u);
	SAME("%.3d|%8.3d|%-8.3d|%.0d", 7, 7, -7, 0);
	SAME("%s|%10s|%-10s|%.2s|%.*s|%*s", "abc", "abc", "abc", "abc", 1, "abc", -6, "abc");
	SAME("%c%c %% %p", 'o', 'k', (void *)path);
	SAME("%" PRIu64 " %" PRIi64 " %08" PRIx32, UINT64_MAX, INT64_MIN, (uint32_t)0xabc);
}

static void one_line_each(void **state)
{
	(void)state;
	start();
	hv_log(HV_LOG_WARN, "a\nb\x1b[0m%s", "c\r\n");
	char want[128];
	snprintf(want, sizeof want, "libhvaccel[%d]: warn: a?b?[0mc??\n", (int)getpid());
	assert_string_equal(slurp(), want);

	start();
	char big[4000];
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	hv_log(HV_LOG_WARN, "%s", big);
	slurp();
	assert_int_equal(strlen(said), 1024);
	assert_int_equal(said[1023], '\n');
	assert_int_equal(said[1022], 'x');
}

static void unknown_conversion_ends_the_line(void **state)
{
	(void)state;
	const char *volatile fmt = "%d %q %s";
	start();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
	hv_log(HV_LOG_INFO, fmt, 1);
#pragma GCC diagnostic pop
	assert_non_null(strstr(slurp(), ": info: 1 %?\n"));
}

static void null_string(void **state)
{
	(void)state;
	const char *volatile none = NULL;
	start();
	hv_log(HV_LOG_INFO, "<%s>", none);
	assert_non_null(strstr(slurp(), "<(null)>\n"));
}

static void threshold_and_once(void **state)
{
	(void)state;
	start();
	hv_log_threshold = HV_LOG_WARN;
	hv_log(HV_LOG_INFO, "no");
	for (int i = 0; i < 3; i++)
		hv_log_once(HV_LOG_ERROR, "yes");
	slurp();
	assert_null(strstr(said, "no"));
	assert_non_null(strstr(said, "error: yes\n"));
	assert_null(strstr(strstr(said, "yes") + 1, "yes"));
}

static void errno_is_kept(void **state)
{
	(void)state;
	start();
	errno = 1234;
	hv_log(HV_LOG_INFO, "x");
	assert_int_equal(errno, 1234);
	hv_log_open("/nonexistent/dir/log");
	assert_int_equal(errno, 1234);
	hv_log_open(NULL);
	hv_log_open(path);
	assert_int_equal(errno, 1234);
}

/* The number that the program's next open() gets must not depend on us, and "close everything" must not send lines to the program's files. */
static void descriptor_is_out_of_the_way(void **state)
{
	(void)state;
	hv_log_open(NULL);
	int before = open("/dev/null", O_RDONLY);
	close(before);
	start();
	int after = open("/dev/null", O_RDONLY);
	assert_int_equal(after, before);
	close(after);
}

static void reopened_after_close(void **state)
{
	(void)state;
	start();
	hv_log(HV_LOG_INFO, "one");
	/* find ours, and put another file in its place */
	char other[] = "/tmp/hv_base_other.XXXXXX";
	int ofd = mkstemp(other), found = 0;
	assert_true(ofd >= 0);
	for (int fd = 3; fd < 8192; fd++) {
		char link[64], to[PATH_MAX];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, to, sizeof to - 1);
		if (n < 0)
			continue;
		to[n] = '\0';
		if (strcmp(to, path) == 0) {
			assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
			assert_int_equal(dup2(ofd, fd), fd);
			found = fd;
		}
	}
	assert_true(found > 2);
	hv_log(HV_LOG_INFO, "two");
	assert_int_equal(lseek(ofd, 0, SEEK_END), 0);
	slurp();
	assert_non_null(strstr(said, "info: one\n"));
	assert_non_null(strstr(said, "info: two\n"));
	close(found);
	close(ofd);
	unlink(other);
}

/* The rest plays with descriptor 2: in a child each. Returns its wait status. */
static int in_child(void (*body)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		body();
		_exit(0);
	}
	int st = -1;
	assert_int_equal(waitpid(pid, &st, 0), pid);
	return st;
}

static void body_broken_pipe(void)
{
	int p[2];
	if (pipe(p) != 0 || dup2(p[1], 2) != 2)
		_exit(9);
	close(p[0]);
	close(p[1]);
	hv_log_open(NULL);
	hv_log(HV_LOG_ERROR, "nobody listens");
	sigset_t now;
	sigpending(&now);
	_exit(sigismember(&now, SIGPIPE) ? 8 : 0);
}

static void broken_pipe_is_no_signal(void **state)
{
	(void)state;
	assert_int_equal(in_child(body_broken_pipe), 0);
}

static void body_closed_stderr(void)
{
	close(2);
	hv_log_open(NULL);
	if (open(path, O_WRONLY | O_TRUNC) != 2)
		_exit(9);
	hv_log(HV_LOG_ERROR, "into the program's file");
	_exit(lseek(2, 0, SEEK_END) == 0 ? 0 : 8);
}

static void closed_stderr_stays_silent(void **state)
{
	(void)state;
	assert_int_equal(in_child(body_closed_stderr), 0);
}

static void body_inet_stderr(void)
{
	int s[2] = { socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0) };
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof sa;
	char c;
	if (bind(s[0], (void *)&sa, l) != 0 || getsockname(s[0], (void *)&sa, &l) != 0 || connect(s[1], (void *)&sa, l) != 0 || dup2(s[1], 2) != 2)
		_exit(9);
	hv_log_open(NULL);
	hv_log(HV_LOG_ERROR, "to the peer");
	_exit(recv(s[0], &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN ? 0 : 8);
}

static void peer_gets_no_lines(void **state)
{
	(void)state;
	assert_int_equal(in_child(body_inet_stderr), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_as_libc),          cmocka_unit_test(one_line_each),
		cmocka_unit_test(unknown_conversion_ends_the_line), cmocka_unit_test(null_string),
		cmocka_unit_test(threshold_and_once),       cmocka_unit_test(errno_is_kept),
		cmocka_unit_test(descriptor_is_out_of_the_way), cmocka_unit_test(reopened_after_close),
		cmocka_unit_test(broken_pipe_is_no_signal), cmocka_unit_test(closed_stderr_stays_silent),
		cmocka_unit_test(peer_gets_no_lines),
	};
	return cmocka_run_group_tests(tests, make_file, drop_file);
}
