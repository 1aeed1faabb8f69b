/*
 * replay.c - runs a fuzz target on files, for builds without libFuzzer: replay FILE...
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		uint8_t *d = malloc(65536);
		size_t n;
		if (f == NULL || d == NULL) {
			perror(argv[i]);
			return 2;
		}
		n = fread(d, 1, 65536, f);
		fclose(f);
		LLVMFuzzerTestOneInput(d, n);
		free(d);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
