/*
 * main.c - plays packet scripts: against the core in this process, against the kernel in one process and network namespace per script.
 *
 *   pktscript [--core] [--kernel] [--v4 | --v6] [--jobs N] [-v] SCRIPT...
 *
 * Without --core and --kernel both. -v shows every segment. Exit status: 0 all passed, 1 some failed, 2 usage or a script that can't be read.
 */
#include "script.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ATTEMPTS 8 /* of an exchange that this process was too late for */
#define MAX_JOBS 64

struct job {
	pid_t pid;
	FILE *out;
};

static bool verbose;

static bool play_core(const struct sc_script *s, bool v4, bool v6)
{
	for (unsigned m = 0; m < 8; m++) {
		struct sc_core_mode mode = { .v6 = (m & 4) != 0, .slow_send = (m & 1) != 0, .no_predict = (m & 2) != 0 };
		struct sc_target t;

		if (mode.v6 ? !v6 : !v4)
			continue;
		if (!sc_core_init(&t, &mode) || sc_play(&t, s, verbose) != 0)
			return false;
	}
	return true;
}

/* In a child: 0 passed, 1 failed, 2 inconclusive. */
static int play_kernel(const struct sc_script *s, bool v6)
{
	struct sc_target t;

	alarm(100);
	if (!sc_kernel_init(&t, s, v6)) {
		printf("%s: %s\n", s->file, t.why);
		return 1;
	}
	return sc_play(&t, s, verbose);
}

static void start(struct job *j, const struct sc_script *s, bool v6)
{
	j->out = tmpfile();
	if (j->out == NULL) {
		perror("tmpfile");
		exit(2);
	}
	fflush(stdout);
	j->pid = fork();
	if (j->pid < 0) {
		perror("fork");
		exit(2);
	}
	if (j->pid != 0)
		return;
	if (dup2(fileno(j->out), 1) < 0 || dup2(fileno(j->out), 2) < 0)
		_exit(2);
	for (int i = 0; i < ATTEMPTS; i++) {
		int st;
		pid_t c = fork();

		if (c == 0) {
			int rc = play_kernel(s, v6);

			fflush(stdout);
			_exit(rc);
		}
		if (c < 0 || waitpid(c, &st, 0) != c || !WIFEXITED(st)) {
			printf("%s: the kernel's side did not end\n", s->file);
			fflush(stdout);
			_exit(1);
		}
		if (WEXITSTATUS(st) != 2)
			_exit(WEXITSTATUS(st));
	}
	printf("%s: on the kernel: no CPU in time, %d attempts\n", s->file, ATTEMPTS);
	fflush(stdout);
	_exit(1);
}

static bool finish(struct job *j, int st)
{
	char buf[4096];
	size_t n;

	rewind(j->out);
	while ((n = fread(buf, 1, sizeof buf, j->out)) != 0)
		fwrite(buf, 1, n, stdout);
	fclose(j->out);
	j->pid = 0;
	return WIFEXITED(st) && WEXITSTATUS(st) == 0;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	bool core = false, kernel = false, v4 = true, v6 = true;
	unsigned jobs = 8, n, failed = 0, passed;
	struct job job[MAX_JOBS];
	struct sc_script *s;
	double t0;
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--core") == 0) {
			core = true;
		} else if (strcmp(argv[i], "--kernel") == 0) {
			kernel = true;
		} else if (strcmp(argv[i], "--v4") == 0) {
			v6 = false;
		} else if (strcmp(argv[i], "--v6") == 0) {
			v4 = false;
		} else if (strcmp(argv[i], "-v") == 0) {
			verbose = true;
		} else if (strcmp(argv[i], "--jobs") == 0 && i + 1 < argc) {
			jobs = (unsigned)strtoul(argv[++i], NULL, 10);
		} else {
			fprintf(stderr, "usage: pktscript [--core] [--kernel] [--v4 | --v6] [--jobs N] [-v] SCRIPT...\n");
			return 2;
		}
	}
	if (i == argc || jobs == 0 || jobs > MAX_JOBS) {
		fprintf(stderr, "pktscript: no scripts, or a number of jobs that isn't 1 to %d\n", MAX_JOBS);
		return 2;
	}
	if (!core && !kernel)
		core = kernel = true;
	n = (unsigned)(argc - i);
	s = calloc(n, sizeof *s);
	if (s == NULL)
		return 2;
	for (unsigned k = 0; k < n; k++)
		if (!sc_parse(&s[k], argv[i + (int)k]))
			return 2;
	if (core) {
		passed = 0;
		t0 = seconds();
		for (unsigned k = 0; k < n; k++) {
			if (play_core(&s[k], v4, v6))
				passed++;
			else
				failed++;
		}
		printf("core: %u of %u scripts passed, each in %u modes, in %.3f s\n", passed, n, v4 && v6 ? 8 : 4, seconds() - t0);
	}
	if (kernel) {
		unsigned runs = v4 && v6 ? 2 * n : n, next = 0, done = 0;

		passed = 0;
		t0 = seconds();
		memset(job, 0, sizeof job);
		while (done < runs) {
			int st;
			pid_t pid;

			for (unsigned k = 0; k < jobs && next < runs; k++) {
				if (job[k].pid == 0) {
					start(&job[k], &s[next % n], v4 ? next >= n : true);
					next++;
				}
			}
			pid = wait(&st);
			if (pid < 0) {
				perror("wait");
				return 2;
			}
			for (unsigned k = 0; k < jobs; k++) {
				if (job[k].pid != pid)
					continue;
				done++;
				if (finish(&job[k], st))
					passed++;
				else
					failed++;
			}
		}
		printf("kernel: %u of %u runs of %u scripts passed in %.1f s\n", passed, runs, n, seconds() - t0);
	}
	for (unsigned k = 0; k < n; k++)
		sc_free(&s[k]);
	free(s);
	return failed != 0;
}
