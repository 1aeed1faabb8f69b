UNIT_TESTS += engine_ring
engine_ring_SOURCES = tests/unit/engine_ring.c tests/sim/seg.c tests/sim/seg.h tests/sim/host.c tests/sim/host.h
engine_ring_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -pthread
engine_ring_LDADD = libhvengine.la libhvfail.la libhvstack.la libhvbase.la $(CMOCKA_LIBS)
