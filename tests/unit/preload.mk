UNIT_TESTS += preload_fdtab
preload_fdtab_SOURCES = tests/unit/preload_fdtab.c src/preload/fdtab.c
preload_fdtab_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -pthread
preload_fdtab_LDADD = libhvbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/lab/preload_signals
tests_lab_preload_signals_SOURCES = tests/lab/drive.c tests/lab/drive.h tests/lab/peer.h tests/lab/preload_signals.c
tests_lab_preload_signals_LDFLAGS = -pthread
