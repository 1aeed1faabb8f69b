/*
 * relay_main.c - the relay as a program: between a new TAP device in one network namespace and an existing device in another.
 *
 *   impair-relay --tap=NETNS:DEVICE --link=NETNS:DEVICE [what relay.h takes]
 *
 * Says "ready" when the TAP device is there. Only delay and rate apply until SIGUSR1, and again from SIGUSR2 on. At SIGTERM it ends with its counts as one line of JSON.
 */
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct relay *relay;

static void on_signal(int sig)
{
	if (sig == SIGUSR1 || sig == SIGUSR2)
		relay_arm(relay, sig == SIGUSR1);
	else
		relay_stop(relay);
}

static void die(const char *what)
{
	fprintf(stderr, "impair-relay: %s: %m\n", what);
	exit(1);
}

/* Goes to the namespace before the colon; returns what is behind it. */
static const char *enter(const char *where)
{
	const char *colon = strchr(where, ':');
	char path[256];
	int fd;

	if (colon == NULL) {
		errno = EINVAL;
		die(where);
	}
	snprintf(path, sizeof path, "/run/netns/%.*s", (int)(colon - where), where);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) != 0)
		die(path);
	close(fd);
	return colon + 1;
}

static int packet_socket(const char *dev)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(dev) };
	int one = 1, size = 16 << 20, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || ll.sll_ifindex == 0 || setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0 || bind(fd, (struct sockaddr *)&ll, sizeof ll) != 0)
		die(dev);
	return fd;
}

int main(int argc, char **argv)
{
	struct relay_conf rc = { .delay_us = 5000, .queue = 250000, .hold_us = 3000 };
	const char *tap = NULL, *link = NULL;
	struct sched_param prio = { .sched_priority = 10 };
	struct relay_count n[2];
	int fd_tap, fd_link;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--tap=", 6) == 0) {
			tap = argv[i] + 6;
		} else if (strncmp(argv[i], "--link=", 7) == 0) {
			link = argv[i] + 7;
		} else if (!relay_option(&rc, argv[i])) {
			fprintf(stderr, "usage: impair-relay --tap=NETNS:DEVICE --link=NETNS:DEVICE [OPTION...]\n%s", relay_usage);
			return 2;
		}
	}
	if (tap == NULL || link == NULL) {
		errno = EINVAL;
		die("--tap and --link");
	}
	fd_tap = relay_tap(enter(tap));
	if (fd_tap < 0) {
		errno = -fd_tap;
		die("TAP device");
	}
	fd_link = packet_socket(enter(link));
	relay = relay_new(&rc, fd_link, fd_tap, NULL, NULL);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	prctl(PR_SET_TIMERSLACK, 1);
	(void)sched_setscheduler(0, SCHED_FIFO, &prio);
	puts("ready");
	fflush(stdout);
	relay_run(relay);
	relay_counts(relay, n);
	printf("{\"frames\": %llu, \"lost\": %llu, \"queue_drops\": %llu, \"held\": %llu, \"doubled\": %llu, \"resets\": %llu}\n",
	    (unsigned long long)(n[0].frames + n[1].frames), (unsigned long long)(n[0].lost + n[1].lost),
	    (unsigned long long)(n[0].queue_drops + n[1].queue_drops), (unsigned long long)(n[0].held + n[1].held),
	    (unsigned long long)(n[0].doubled + n[1].doubled), (unsigned long long)(n[0].resets + n[1].resets));
	relay_free(relay);
	return 0;
}
