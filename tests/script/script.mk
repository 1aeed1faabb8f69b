# Packet scripts, played against the core and against the kernel.
noinst_PROGRAMS += pktscript
pktscript_SOURCES = tests/script/main.c tests/script/parse.c tests/script/packet.c tests/script/play.c tests/script/core.c tests/script/kernel.c \
	tests/script/script.h tests/sim/host.c tests/sim/host.h tests/sim/seg.c tests/sim/seg.h
pktscript_LDADD = libhvstack.la
EXTRA_DIST += tests/script/README.md
