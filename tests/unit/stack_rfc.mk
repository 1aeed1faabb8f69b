# Unit tests of src/stack by RFC; the rig is stack.mk's.
if HAVE_CMOCKA
UNIT_TESTS += stack_frto stack_autotune stack_blackhole stack_model stack_segment
endif
EXTRA_PROGRAMS += stack_frto stack_autotune stack_blackhole stack_model stack_segment
stack_frto_SOURCES = tests/unit/stack_frto.c $(stack_rig)
stack_frto_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_frto_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_autotune_SOURCES = tests/unit/stack_autotune.c $(stack_rig)
stack_autotune_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_autotune_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_blackhole_SOURCES = tests/unit/stack_blackhole.c $(stack_rig)
stack_blackhole_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_blackhole_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_model_SOURCES = tests/unit/stack_model.c $(stack_rig)
stack_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_model_LDADD = libhvstack.la $(CMOCKA_LIBS)
stack_segment_SOURCES = tests/unit/stack_segment.c $(stack_rig)
stack_segment_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
stack_segment_LDADD = libhvstack.la $(CMOCKA_LIBS)
