/*
 * log.c - writes log lines: one write(2) per line, nothing buffered, nothing allocated.
 *
 * Owns: hv_log_threshold, the log's file descriptor and path. Callers: anyone in the process, also signal handlers and forked or vforked children.
 * Lock: none. hv_log_open() is for the constructor; afterwards only log_fd changes, and only when the program has closed it behind our back.
 *
 * The formatter is our own because vsnprintf isn't async-signal-safe. It knows %d %i %u %x %X %o %c %s %p %%, the flags 0 - + and #, width, precision
 * (both also as *), and the lengths hh h l ll z t j. Anything else prints "%?" and ends the line: its argument can't be skipped without knowing its type.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/sys.h"

#define LINE_MAX_OCTETS 1024u
#define PREFIX "libhvaccel["

int hv_log_threshold = HV_LOG_WARN;

static int log_fd = 2;
static char log_path[PATH_MAX];     /* a copy: programs that set their title overwrite the environment */
static dev_t log_dev;               /* of log_fd when it's a file: tells our fd from one that the program opened in its place */
static ino_t log_ino;

struct line {
	char buf[LINE_MAX_OCTETS];
	size_t len;
};

/* Room for the newline is always kept. Control characters would break "one line each" and confuse terminals. */
static void put(struct line *l, char c)
{
	if (l->len >= sizeof l->buf - 1)
		return;
	if ((unsigned char)c < 0x20 || c == 0x7f)
		c = '?';
	l->buf[l->len++] = c;
}

static void put_str(struct line *l, const char *s)
{
	while (*s != '\0')
		put(l, *s++);
}

static void pad(struct line *l, int n, char c)
{
	if (n > (int)sizeof l->buf)
		n = (int)sizeof l->buf;
	while (n-- > 0)
		put(l, c);
}

struct spec {
	bool left, zero, plus, alt;
	int width, prec; /* prec -1: none */
};

static void put_num(struct line *l, const struct spec *sp, uintmax_t v, bool neg, unsigned base, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char tmp[24];
	const char *sign = neg ? "-" : sp->plus ? "+" : "";
	const char *pre = sp->alt && base == 16 && v != 0 ? (upper ? "0X" : "0x") : "";
	int n = 0;
	for (; v != 0 || (n == 0 && sp->prec != 0); v /= base)
		tmp[n++] = digits[v % base];
	int zeros = sp->prec > n ? sp->prec - n : 0;
	int all = n + zeros + (int)strlen(sign) + (int)strlen(pre);
	int fill = sp->width > all ? sp->width - all : 0;
	if (fill > 0 && sp->zero && !sp->left && sp->prec < 0) {
		zeros += fill;
		fill = 0;
	}
	if (!sp->left)
		pad(l, fill, ' ');
	put_str(l, sign);
	put_str(l, pre);
	pad(l, zeros, '0');
	while (n > 0)
		put(l, tmp[--n]);
	if (sp->left)
		pad(l, fill, ' ');
}

static void put_text(struct line *l, const struct spec *sp, const char *s)
{
	if (s == NULL)
		s = "(null)";
	int n = (int)strnlen(s, sp->prec >= 0 ? (size_t)sp->prec : LINE_MAX_OCTETS);
	if (!sp->left)
		pad(l, sp->width - n, ' ');
	for (int i = 0; i < n; i++)
		put(l, s[i]);
	if (sp->left)
		pad(l, sp->width - n, ' ');
}

enum length { LEN_HH, LEN_H, LEN_INT, LEN_L, LEN_LL, LEN_Z, LEN_T, LEN_J };

static enum length get_length(const char **f)
{
	switch (**f) {
	case 'h':
		*f += (*f)[1] == 'h' ? 2 : 1;
		return (*f)[-2] == 'h' ? LEN_HH : LEN_H;
	case 'l':
		*f += (*f)[1] == 'l' ? 2 : 1;
		return (*f)[-2] == 'l' ? LEN_LL : LEN_L;
	case 'z':
		(*f)++;
		return LEN_Z;
	case 't':
		(*f)++;
		return LEN_T;
	case 'j':
		(*f)++;
		return LEN_J;
	default:
		return LEN_INT;
	}
}

static int get_int(const char **f)
{
	int n = 0;
	for (; **f >= '0' && **f <= '9'; (*f)++)
		n = n < 100000 ? n * 10 + (**f - '0') : n;
	return n;
}

/* va_list is passed by pointer in a struct: as a parameter it may have decayed to an array pointer. */
struct args {
	va_list ap;
};

static intmax_t get_signed(struct args *a, enum length len)
{
	switch (len) {
	case LEN_HH:
		return (signed char)va_arg(a->ap, int);
	case LEN_H:
		return (short)va_arg(a->ap, int);
	case LEN_L:
		return va_arg(a->ap, long);
	case LEN_LL:
		return va_arg(a->ap, long long);
	case LEN_Z:
		return va_arg(a->ap, ssize_t);
	case LEN_T:
		return va_arg(a->ap, ptrdiff_t);
	case LEN_J:
		return va_arg(a->ap, intmax_t);
	default:
		return va_arg(a->ap, int);
	}
}

static uintmax_t get_unsigned(struct args *a, enum length len)
{
	switch (len) {
	case LEN_HH:
		return (unsigned char)va_arg(a->ap, int);
	case LEN_H:
		return (unsigned short)va_arg(a->ap, int);
	case LEN_L:
		return va_arg(a->ap, unsigned long);
	case LEN_LL:
		return va_arg(a->ap, unsigned long long);
	case LEN_Z:
		return va_arg(a->ap, size_t);
	case LEN_T:
		return (uintmax_t)va_arg(a->ap, ptrdiff_t);
	case LEN_J:
		return va_arg(a->ap, uintmax_t);
	default:
		return va_arg(a->ap, unsigned);
	}
}

static struct spec get_spec(const char **f, struct args *a)
{
	struct spec sp = { .prec = -1 };
	for (;; (*f)++) {
		if (**f == '-')
			sp.left = true;
		else if (**f == '0')
			sp.zero = true;
		else if (**f == '+')
			sp.plus = true;
		else if (**f == '#')
			sp.alt = true;
		else if (**f != ' ')
			break;
	}
	if (**f == '*') {
		(*f)++;
		sp.width = va_arg(a->ap, int);
		if (sp.width < 0) {
			sp.left = true;
			sp.width = sp.width == INT_MIN ? INT_MAX : -sp.width;
		}
	} else {
		sp.width = get_int(f);
	}
	if (**f == '.') {
		(*f)++;
		if (**f == '*') {
			(*f)++;
			sp.prec = va_arg(a->ap, int);
		} else {
			sp.prec = get_int(f);
		}
	}
	return sp;
}

static void format(struct line *l, const char *f, struct args *a)
{
	for (; *f != '\0'; f++) {
		if (*f != '%') {
			put(l, *f);
			continue;
		}
		f++;
		struct spec sp = get_spec(&f, a);
		enum length len = get_length(&f);
		switch (*f) {
		case 'd':
		case 'i': {
			intmax_t v = get_signed(a, len);
			put_num(l, &sp, v < 0 ? 0 - (uintmax_t)v : (uintmax_t)v, v < 0, 10, false);
			break;
		}
		case 'u':
		case 'o':
		case 'x':
		case 'X':
			sp.plus = false;
			put_num(l, &sp, get_unsigned(a, len), false, *f == 'u' ? 10 : *f == 'o' ? 8 : 16, *f == 'X');
			break;
		case 'p':
			sp.alt = true;
			put_num(l, &sp, (uintptr_t)va_arg(a->ap, void *), false, 16, false);
			break;
		case 'c': {
			char s[2] = { (char)va_arg(a->ap, int), '\0' };
			put_text(l, &sp, s);
			break;
		}
		case 's':
			put_text(l, &sp, va_arg(a->ap, const char *));
			break;
		case '%':
			put(l, '%');
			break;
		default:
			put_str(l, "%?");
			return;
		}
	}
}

/* An internal descriptor at the number that the program's next open() would get would surprise it: keep ours out of the way, but never so high that the
 * kernel has to grow the process's table much (RLIMIT_NOFILE may be 10^9). */
static int move_high(int fd)
{
	struct rlimit rl = { 0, 0 };
	long r = HV_SYS(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &rl, 0, 0);
	rlim_t top = r < 0 || rl.rlim_cur > 4096 ? 4096 : rl.rlim_cur;
	long min = top > 64 ? (long)top - 32 : (long)top / 2;
	int high = hv_sys_fcntl(fd, F_DUPFD_CLOEXEC, min);
	if (high < 0)
		return fd;
	hv_sys_close(fd);
	return high;
}

static int open_file(const char *path)
{
	/* O_NONBLOCK: a FIFO without a reader must not hang the program */
	int fd = (int)HV_SYS(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644, 0, 0);
	if (fd < 0)
		return fd;
	fd = move_high(fd);
	struct stat st;
	if (HV_SYS(SYS_fstat, fd, &st, 0, 0, 0, 0) < 0) {
		hv_sys_close(fd);
		return -EBADF;
	}
	log_dev = st.st_dev;
	log_ino = st.st_ino;
	return fd;
}

static bool is_our_file(int fd)
{
	struct stat st;
	return HV_SYS(SYS_fstat, fd, &st, 0, 0, 0, 0) == 0 && st.st_dev == log_dev && st.st_ino == log_ino;
}

/* Where this line may go, or -1. Programs close "everything" and reuse numbers: a log line must never end up in their files or connections. */
static int target(void)
{
	int fd = __atomic_load_n(&log_fd, __ATOMIC_RELAXED);
	if (log_path[0] == '\0') {
		int domain = fd < 0 ? 0 : hv_sys_getint(fd, SOL_SOCKET, SO_DOMAIN);
		return domain == AF_INET || domain == AF_INET6 ? -1 : fd; /* standard error is a peer (inetd): it didn't ask for our lines */
	}
	if (fd >= 0 && is_our_file(fd))
		return fd;
	fd = open_file(log_path);
	__atomic_store_n(&log_fd, fd, __ATOMIC_RELAXED);
	return fd;
}

/* write(2) without SIGPIPE: a reader of standard error that has gone must not make the library kill the program. */
static void write_quietly(int fd, const char *p, size_t n)
{
	uint64_t pipe_bit = 1ull << (SIGPIPE - 1), old = 0, pending = 0;
	HV_SYS(SYS_rt_sigprocmask, SIG_BLOCK, &pipe_bit, &old, sizeof old, 0, 0);
	HV_SYS(SYS_rt_sigpending, &pending, sizeof pending, 0, 0, 0, 0);
	ssize_t r = hv_sys_write(fd, p, n);
	if (r == -EPIPE && (pending & pipe_bit) == 0) {
		struct timespec none = { 0, 0 };
		HV_SYS(SYS_rt_sigtimedwait, &pipe_bit, NULL, &none, sizeof pipe_bit, 0, 0);
	}
	HV_SYS(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof old, 0, 0);
}

void hv_log_write(enum hv_log_level lvl, const char *fmt, ...)
{
	static const char *const names[] = { "", "error", "warn", "info", "debug", "trace" };
	if ((unsigned)lvl >= sizeof names / sizeof names[0])
		lvl = HV_LOG_ERROR;
	int fd = target();
	if (fd < 0)
		return;
	struct line l;
	l.len = 0;
	struct spec plain = { .prec = -1 };
	put_str(&l, PREFIX);
	put_num(&l, &plain, (uintmax_t)hv_sys_getpid(), false, 10, false);
	put_str(&l, "]: ");
	put_str(&l, names[lvl]);
	put_str(&l, ": ");
	struct args a;
	va_start(a.ap, fmt);
	format(&l, fmt, &a);
	va_end(a.ap);
	l.buf[l.len++] = '\n';
	write_quietly(fd, l.buf, l.len);
}

void hv_log_open(const char *path)
{
	if (path == NULL)
		path = "";
	if (path[0] != '\0' && log_fd >= 0 && strcmp(path, log_path) == 0 && is_our_file(log_fd))
		return;
	if (log_path[0] != '\0' && log_fd >= 0 && is_our_file(log_fd))
		hv_sys_close(log_fd);
	log_path[0] = '\0';
	/* with standard error closed, number 2 will be the program's next file: stay silent for good */
	log_fd = hv_sys_fcntl(2, F_GETFD, 0) < 0 ? -1 : 2;
	if (path[0] == '\0')
		return;
	if (strlen(path) >= sizeof log_path) {
		hv_log(HV_LOG_WARN, "log file: path too long, using standard error");
		return;
	}
	int fd = open_file(path);
	if (fd < 0) {
		hv_log(HV_LOG_WARN, "log file %s: errno %d, using standard error", path, -fd);
		return;
	}
	log_fd = fd;
	memcpy(log_path, path, strlen(path) + 1);
}
