UNIT_TESTS += base_conf base_log
base_conf_SOURCES = tests/unit/base_conf.c
base_conf_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
base_conf_LDADD = libhvbase.la $(CMOCKA_LIBS)
base_log_SOURCES = tests/unit/base_log.c
base_log_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
base_log_LDADD = libhvbase.la $(CMOCKA_LIBS)
