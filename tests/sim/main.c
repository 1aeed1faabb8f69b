/*
 * main.c - sim [--seeds A-B] [--seed N [--pcap FILE] [-v]] [--pcap-dir DIR] [--twins] | --matrix | --fairness | --stalls A-B
 *
 * Runs the seeds, prints a line for each that fails and a last line with the count. A failing seed is run once more to write its
 * capture. The same seed always does the same.
 */
#include "sim.h"
#include "twin.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define PCAPS_MAX 5u

static struct world world; /* large; one at a time */

static bool run(uint64_t seed, const char *pcap_path, bool verbose, bool twins)
{
	struct pcap *p = pcap_path != NULL ? pcap_open(pcap_path) : NULL;
	bool ok;

	if (pcap_path != NULL && p == NULL)
		fprintf(stderr, "sim: can't write %s\n", pcap_path);
	ok = world_run(&world, seed, &(struct world_opts){ .pcap = p, .verbose = verbose, .twins = twins });
	if (p != NULL)
		pcap_close(p);
	return ok;
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [--seeds A-B] [--seed N] [--pcap FILE] [--pcap-dir DIR] [--twins] [-v] | --matrix | --fairness |\n"
			"       --stalls A-B\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = { { "seeds", 1, NULL, 's' }, { "seed", 1, NULL, 'n' }, { "pcap", 1, NULL, 'p' },
		{ "pcap-dir", 1, NULL, 'd' }, { "twins", 0, NULL, 't' }, { "matrix", 0, NULL, 'm' }, { "fairness", 0, NULL, 'f' },
		{ "stalls", 1, NULL, 'S' },
		{ "verbose", 0, NULL, 'v' }, { "version", 0, NULL, 'V' }, { "help", 0, NULL, 'h' }, { NULL, 0,
		    NULL, 0 } };
	uint64_t from = 1, to = 200, failed = 0, frames = 0, octets = 0, sum = 0;
	const char *pcap = NULL, *dir = NULL;
	bool verbose = false, twins = false, stalls = false;
	int c;

	while ((c = getopt_long(argc, argv, "v", opts, NULL)) != -1) {
		char *end = NULL;
		switch (c) {
		case 'S': stalls = true; /* fall through */
		case 's':
			from = strtoull(optarg, &end, 0);
			if (*end != '-' || end == optarg)
				return usage();
			to = strtoull(end + 1, &end, 0);
			break;
		case 'n': from = to = strtoull(optarg, &end, 0); break;
		case 'p': pcap = optarg; break;
		case 'd': dir = optarg; break;
		case 'v': verbose = true; break;
		case 't': twins = true; break;
		case 'm': return bulk_matrix(stdout) ? 0 : 1;
		case 'f': return bulk_fairness(stdout) ? 0 : 1;
		case 'h': usage(); return 0;
		default: return usage();
		}
		if (end != NULL && *end != 0)
			return usage();
	}
	if (optind != argc || from > to || (pcap != NULL && from != to))
		return usage();
	if (stalls)
		return bulk_stalls(from, to, verbose) ? 0 : 1;
	for (uint64_t s = from; s <= to; s++) {
		bool ok = run(s, pcap, verbose, twins);
		for (int i = 0; i < 2; i++) {
			frames += world.side[i].frames;
			octets += world.side[i].app.read;
			sum = sum * 31 + world.side[i].frames + world.side[i].app.read + world.now;
		}
		if (ok)
			continue;
		printf("seed %lu: %s\n", (unsigned long)s, world.fail);
		fflush(stdout);
		if (failed++ < PCAPS_MAX && pcap == NULL && dir != NULL) {
			char path[512], why[sizeof world.fail];
			snprintf(path, sizeof path, "%s/sim-%lu.pcap", dir, (unsigned long)s);
			memcpy(why, world.fail, sizeof why);
			run(s, path, false, twins);
			if (strcmp(why, world.fail) != 0)
				printf("seed %lu: not reproduced: %s\n", (unsigned long)s, world.fail);
			printf("seed %lu: its capture: %s\n", (unsigned long)s, path);
		}
	}
	if (twins)
		printf("twins: %lu segments and %lu small messages by both ways\n", (unsigned long)twin_count.input, (unsigned long)twin_count.send);
	printf("sim: %lu seeds, %lu failed, %lu frames, %lu octets delivered, digest %016lx\n", (unsigned long)(to - from + 1),
	    (unsigned long)failed, (unsigned long)frames, (unsigned long)octets, (unsigned long)sum);
	return failed != 0;
}
