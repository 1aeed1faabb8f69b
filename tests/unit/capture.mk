# Needs root and the lab: tests/lab/capture_flow.sh runs it.
check_PROGRAMS += tests/lab/capture_flow
tests_lab_capture_flow_SOURCES = tests/lab/capture_flow.c
tests_lab_capture_flow_LDADD = libhvfail.la libhvstack.la libhvbase.la
