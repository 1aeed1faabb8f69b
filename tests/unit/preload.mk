UNIT_TESTS += preload_fdtab
preload_fdtab_SOURCES = tests/unit/preload_fdtab.c src/preload/fdtab.c
preload_fdtab_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -pthread
preload_fdtab_LDADD = libhvbase.la $(CMOCKA_LIBS)
