# Every figure that the README states can be measured again with these; see the scripts' --help.
noinst_PROGRAMS += bench/stream bench/xsk_pingpong bench/core
bench_stream_SOURCES = bench/stream.c
bench_xsk_pingpong_SOURCES = bench/xsk_pingpong.c
bench_core_SOURCES = bench/core.c
bench_core_LDADD = libhvstack.la
EXTRA_DIST += bench/core.py bench/benchlab.py bench/latency.py bench/failover.py bench/report.py
EXTRA_DIST += bench/impaired.py
