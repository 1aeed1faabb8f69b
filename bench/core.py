#!/usr/bin/env python3
"""What the TCP core costs by itself: instructions of each step of the fast path (callgrind), ns per message over many connections, memory.

The instruction counts are exact and repeat; they include what the steps call, libc's memcpy() of the payload too. The times are this machine's.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

STEPS = 1000
# step of core.c, what it is, the most instructions it may take (None: reported only)
TABLE = [
    ("step_send", "send: hv_tcp_send_fast() + commit", 160),
    ("step_parse", "hv_tcp_parse()", None),
    ("step_input_data_ack", "hv_tcp_input(): data with a new ACK", 190),
    ("step_input_data", "hv_tcp_input(): data only", 190),
    ("step_input_ack", "hv_tcp_input(): pure ACK", 190),
    ("step_read", "hv_tcp_read()", 80),
    ("step_memcpy", "of which each memcpy() of the payload", None),
]


def edges(path):
    """{caller: {callee: (calls, inclusive instructions)}} of a callgrind output file."""
    names, out = {}, {}
    caller = callee = None
    calls = 0

    def name(field):
        m = re.fullmatch(r"\((\d+)\)(?: (.*))?", field)
        if m.group(2) is not None:
            names[m.group(1)] = re.sub(r"[.'].*", "", m.group(2))  # a compiler's clone is the same function
        return names[m.group(1)]

    with open(path) as f:
        for line in f:
            line = line.rstrip("\n")
            if line.startswith("fn="):
                caller = name(line[3:])
            elif line.startswith("cfn="):
                callee = name(line[4:])
            elif line.startswith("calls="):
                calls = int(line[6:].split()[0])
                cost = int(next(f).split()[1])
                n, c = out.setdefault(caller, {}).get(callee, (0, 0))
                out[caller][callee] = (n + calls, c + cost)
    return out


def instructions(core, length):
    """{step: instructions}; None without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "out")
        r = subprocess.run([valgrind, "--tool=callgrind", "--callgrind-out-file=" + out, core, "--steps", str(STEPS), "--len", str(length)],
                           env=dict(os.environ, LD_BIND_NOW="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=100)
        if r.returncode != 0:
            sys.exit("core.py: %s\n%s" % (" ".join(r.args), r.stderr))
        if not json.loads(r.stdout)["optimized"]:
            print("%s was compiled without optimization: its counts mean nothing" % core)
            sys.exit(77)
        got = edges(out)
    res = {}
    for step, _, _ in TABLE:
        callees = got.get(step)
        if not callees:
            sys.exit("core.py: callgrind saw no call from %s()" % step)
        # a step makes each of its calls once
        res[step] = sum(cost / n for n, cost in callees.values())
    return res


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=os.path.join(here, "..", "build"), help="build directory (default: build/ in the source tree)")
    ap.add_argument("--len", type=int, default=64, help="octets per message")
    ap.add_argument("--conns", default="1,512,4096,32768", help="numbers of connections")
    ap.add_argument("--counts", action="store_true", help="only the instruction counts")
    ap.add_argument("--gate", action="store_true", help="only instruction counts and memory; status 1 if one is above its limit, 77 if they can't be had")
    ap.add_argument("--json", action="store_true", help="print the figures as JSON")
    a = ap.parse_args()
    core = os.path.join(a.build, "bench", "core")
    if not os.path.exists(core):
        sys.exit("core.py: %s is not built" % core)

    counts = instructions(core, a.len)
    if counts is None and a.gate:
        print("valgrind is not installed")
        sys.exit(77)
    res = {"len": a.len, "instructions": counts}
    if not a.counts:
        conns = "1" if a.gate else a.conns
        args = [core, "--json", "--len", str(a.len), "--conns", conns] + (["--ms", "1"] if a.gate else [])
        res.update(json.loads(subprocess.run(args, stdout=subprocess.PIPE, check=True, text=True, timeout=300).stdout))
    if a.json:
        print(json.dumps(res, indent=1))
        return

    over = []
    if counts is None:
        print("instructions: valgrind is not installed")
    else:
        print("instructions, %d octets (limit)" % a.len)
        for step, what, limit in TABLE:
            print("  %-40s %6.1f%s" % (what, counts[step], "" if limit is None else "  (%d)" % limit))
            if limit is not None and counts[step] > limit:
                over.append("%s: %.1f instructions, more than %d" % (what, counts[step], limit))
    if not a.counts:
        print("memory of an idle connection: %d octets (1024)" % res["idle_octets"])
        if res["idle_octets"] > 1024:
            over.append("an idle connection holds %d octets" % res["idle_octets"])
        if not a.gate:
            print("ns per message, both ends (connections in random order)   without prefetch")
            for s in res["speed"]:
                print("  %11d connections  %8.1f  %32.1f" % (s["connections"], s["ns"], s["ns_without_prefetch"]))
    if a.gate and over:
        print("\n".join(over))
        sys.exit(1)


main()
