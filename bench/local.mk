# Every figure that the README states can be measured again with these; see the scripts' --help.
noinst_PROGRAMS += bench/stream bench/xsk_pingpong
bench_stream_SOURCES = bench/stream.c
bench_xsk_pingpong_SOURCES = bench/xsk_pingpong.c
EXTRA_DIST += bench/benchlab.py bench/latency.py bench/failover.py bench/report.py
