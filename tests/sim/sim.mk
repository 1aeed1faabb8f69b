# Deterministic simulation of two stacks and a bad network.
noinst_PROGRAMS += sim
sim_SOURCES = tests/sim/main.c tests/sim/world.c tests/sim/setup.c tests/sim/app.c tests/sim/move.c tests/sim/wire.c tests/sim/link.c tests/sim/hole.c tests/sim/kernel.c \
	tests/sim/bulk.c tests/sim/host.c tests/sim/twin.c tests/sim/twin.h tests/sim/seg.c tests/sim/pcap.c \
	tests/sim/sim.h tests/sim/host.h tests/sim/seg.h tests/sim/pcap.h tests/sim/prng.h
sim_LDADD = libhvstack.la
EXTRA_DIST += tests/sim/sim.sh tests/sim/cost.sh tests/sim/bulk.sh tests/sim/matrix.txt tests/model/handoff.pml tests/model/run.sh tests/fuzz
