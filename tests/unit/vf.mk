UNIT_TESTS += vf_pure vf_find vf_data
vf_pure_SOURCES = tests/unit/vf_pure.c
vf_pure_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
vf_pure_LDADD = libhvvf.la libhvbase.la $(CMOCKA_LIBS)
vf_find_SOURCES = tests/unit/vf_find.c
vf_find_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
vf_find_LDADD = libhvvf.la libhvbase.la $(CMOCKA_LIBS)
vf_data_SOURCES = tests/unit/vf_data.c
vf_data_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
vf_data_LDADD = libhvvf.la libhvbase.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/lab/vf_ring
tests_lab_vf_ring_SOURCES = tests/lab/vf_ring.c tests/lab/vf_ring.h tests/lab/vf_ring_loss.c
tests_lab_vf_ring_LDADD = libhvvf.la libhvbase.la
