/*
 * confdoc.c - build-time program: writes the ENVIRONMENT entries of libhvaccel(7), or with "help" the plain table, to standard output. Not installed.
 */
#include <stdio.h>
#include <string.h>

#include "base/conf.h"

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "help") == 0)
		hv_conf_print_help(stdout);
	else
		hv_conf_print_man(stdout);
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
