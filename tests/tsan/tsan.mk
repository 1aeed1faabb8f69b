# What ./check builds with ThreadSanitizer besides the library and the unit programs that have threads (tests/README.md).
check_PROGRAMS += tests/tsan/threads
tests_tsan_threads_SOURCES = tests/tsan/threads.c
tests_tsan_threads_LDFLAGS = -pthread
EXTRA_DIST += tests/tsan/suppressions.txt
