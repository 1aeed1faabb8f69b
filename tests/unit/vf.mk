check_PROGRAMS += tests/lab/vf_ring
tests_lab_vf_ring_SOURCES = tests/lab/vf_ring.c tests/lab/vf_ring.h tests/lab/vf_ring_loss.c
tests_lab_vf_ring_LDADD = libhvvf.la libhvbase.la
