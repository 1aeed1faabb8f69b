#!/usr/bin/env python3
"""startup.py - what LD_PRELOAD=libhvaccel.so costs a program that opens no connection.

usage: startup.py [--lib PATH] [--rounds N] [--json FILE]

Starts /bin/true, bash and python3 alternately without and with the library and prints the medians of the wall time in ms and their difference.
"""
import argparse
import json
import os
import statistics
import sys
import time

PROGRAMS = [["/bin/true"], ["bash", "-c", ":"], ["python3", "-c", "import asyncio"]]


def run(argv, env):
    t = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, env)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit("startup.py: %s failed with status %d" % (argv[0], status))
    return (time.perf_counter() - t) * 1e3


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--lib", default=os.path.join(here, "..", "build", ".libs", "libhvaccel.so"))
    ap.add_argument("--rounds", type=int, default=100)
    ap.add_argument("--json")
    a = ap.parse_args()
    if not os.path.exists(a.lib):
        sys.exit("startup.py: %s not found: run make, or name it with --lib" % a.lib)
    plain = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    preload = dict(plain, LD_PRELOAD=os.path.abspath(a.lib))
    out = {}
    print("%-28s %10s %10s %10s" % ("program", "plain ms", "with ms", "cost ms"))
    for argv in PROGRAMS:
        t = {"plain": [], "with": []}
        for _ in range(a.rounds):
            t["plain"].append(run(argv, plain))
            t["with"].append(run(argv, preload))
        p, w = statistics.median(t["plain"]), statistics.median(t["with"])
        out[" ".join(argv)] = {"plain_ms": p, "with_ms": w, "cost_ms": w - p}
        print("%-28s %10.2f %10.2f %10.2f" % (" ".join(argv), p, w, w - p))
    if a.json:
        with open(a.json, "w") as f:
            json.dump(out, f, indent=1)


if __name__ == "__main__":
    main()
