#!/usr/bin/env python3
"""mutate.py - do the tests notice? Changes one comparison, operator, constant or statement of src/stack at a time and runs against it, the
cheapest first: the unit programs stack_*, the packet scripts on the core, the fuzzers' corpus, the simulator with its twins (fast = slow).

    tests/mutation/mutate.py --work DIR [--sample N] [--seed S] [--files input,ack,recovery,undo] [--seeds A-B] [--only REGEX] [--again]
                             [--list] [--seconds N]

A mutant is killed when something fails, crashes or doesn't end. DIR keeps objects and DIR/results.txt: mutants that are in there already
aren't tried again (but with --again those that survived are), so a full run can be done in pieces (--seconds: stop after so long).
Survivors, and why they may survive: tests/mutation/survivors.txt. --seeds 0: without the simulator.
"""
import argparse, glob, os, random, re, subprocess, sys, threading, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBS = os.cpu_count() or 1
CFLAGS = "-std=gnu11 -D_GNU_SOURCE -O1 -w -fno-strict-aliasing".split()
TOKENS = [
    (r"<=", ["<"]), (r">=", [">"]), (r"==", ["!="]), (r"!=", ["=="]), (r"&&", ["||"]), (r"\|\|", ["&&"]), (r"\+=", ["-="]), (r"-=", ["+="]),
    (r"(?<= )<(?= )", ["<="]), (r"(?<= )>(?= )", [">="]), (r"(?<= )\+(?= )", ["-"]), (r"(?<= )-(?= )", ["+"]),
    (r"hv_seq_lt\b", ["hv_seq_le", "hv_seq_ge"]), (r"hv_seq_le\b", ["hv_seq_lt", "hv_seq_gt"]), (r"hv_seq_gt\b", ["hv_seq_ge", "hv_seq_le"]),
    (r"hv_seq_ge\b", ["hv_seq_gt", "hv_seq_lt"]), (r"hv_min32\b", ["hv_max32"]), (r"hv_max32\b", ["hv_min32"]), (r"\btrue\b", ["false"]),
    (r"\bfalse\b", ["true"]), (r"(?<![\w.\"])\d+u?(?![\w.\"])", [None]),
]
STATEMENT = re.compile(r"^(\t+)(t->[\w.]+ (?:[|&+-]?=) [^;]*|hv_\w+\([^;]*\)|challenge\([^;]*\));\s*(?:/\*.*)?$")


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S)


def mutants(name):
    """(key, line number, description, new text)"""
    text = open(f"{TOP}/src/stack/{name}.c").read()
    lines, code, seen = text.split("\n"), strip_comments(text).split("\n"), Counter()
    for n, (line, c) in enumerate(zip(lines, code)):
        if c.startswith("#") or not c.startswith("\t") or "counters" in c or "cnt->" in c:  # figures for people
            continue
        found = []
        for pattern, news in TOKENS:
            for m in re.finditer(pattern, c):
                if pattern in ("==", "!=", "<=", ">=") and c[m.start() - 1] in "<>=!":
                    continue
                for new in news:
                    if new is None:
                        new = str(int(m.group(0).rstrip("u")) + 1) + ("u" if m.group(0).endswith("u") else "")
                    found.append((f"{m.group(0)} -> {new} at column {m.start() + 1}", line[:m.start()] + new + line[m.end():]))
        m = STATEMENT.match(c)
        if m:
            found.append(("statement left out", m.group(1) + ";"))
        for what, new in found:
            out = lines[:n] + [new] + lines[n + 1:]
            key = f"{name}.c: {line.strip()} | {what}"
            seen[key] += 1
            yield key + (f" (no. {seen[key]} of such lines)" if seen[key] > 1 else ""), n + 1, "\n".join(out)


def run(cmd, timeout, **more):
    try:
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.run(cmd, **quiet, timeout=timeout, **more).returncode
    except subprocess.TimeoutExpired:
        return -1


def cc(src, obj):
    return run(["gcc", *CFLAGS, "-fPIC", f"-I{TOP}/src", f"-I{TOP}/tests/sim", "-c", src, "-o", obj], 100) == 0


def link(objs, so):
    return run(["gcc", "-shared", *objs, "-o", so], 100) == 0


def build(work):
    """Objects of the stack, and the tests: (name, command), the cheapest run first. The programs find the stack, mutated or not, in
    LD_LIBRARY_PATH: a mutant is compiled and linked once."""
    os.makedirs(f"{work}/plain", exist_ok=True)
    objs, todo = {}, []
    headers = max(os.path.getmtime(f) for f in glob.glob(f"{TOP}/src/*/*.h") + glob.glob(f"{TOP}/tests/*/*.h"))
    sources = ("src/stack/*", "tests/sim/*", "tests/script/*", "tests/unit/stack_*", "tests/fuzz/*")
    for src in [f for d in sources for f in glob.glob(f"{TOP}/{d}.c")]:
        objs[src] = obj = f"{work}/{os.path.basename(os.path.dirname(src))}_{os.path.basename(src)[:-2]}.o"
        if not os.path.exists(obj) or os.path.getmtime(obj) < max(os.path.getmtime(src), headers):
            todo.append((src, obj))
    with ThreadPoolExecutor(JOBS) as pool:
        if not all(pool.map(lambda f: cc(*f), todo)):
            sys.exit("mutate: doesn't compile")
    of = lambda part: [o for s, o in objs.items() if part in s]
    stack, host = of("/src/stack/"), of("/sim/host.c") + of("/sim/seg.c")
    programs = {"sim": of("/tests/sim/"), "pktscript": of("/tests/script/") + host,
                "replay_tcp": of("/fuzz/fuzz_tcp.c") + of("/fuzz/replay.c") + host + of("/sim/twin.c")}
    for o in of("/tests/unit/"):
        name = os.path.basename(o)[5:-2]
        if name not in ("stack_rig", "stack_seq"):  # stack_seq doesn't call the stack
            programs[name] = [o] + of("/stack_rig.c") + host
    if not link(stack, f"{work}/plain/libmutant.so"):
        sys.exit("mutate: doesn't link")
    for name, files in programs.items():
        if run(["gcc", *files, f"-L{work}/plain", "-lmutant", "-lcmocka", "-o", f"{work}/run_{name}"], 100) != 0:
            sys.exit(f"mutate: {name} doesn't link")
    tests = [(n, [f"{work}/run_{n}"]) for n in programs if n.startswith("stack_") and n != "stack_udp"]
    tests.append(("scripts", [f"{work}/run_pktscript", "--core", *sorted(glob.glob(f"{TOP}/tests/script/tcp/*.pkt"))]))
    tests.append(("fuzz corpus", [f"{work}/run_replay_tcp", *sorted(glob.glob(f"{TOP}/tests/fuzz/corpus/tcp/*"))]))
    return stack, tests


def judge(lib, tests):
    """Who killed it; None: it lives."""
    env = {**os.environ, "LD_LIBRARY_PATH": lib}
    for name, cmd in tests:
        if run(cmd, 60, env=env, cwd=lib) != 0:
            return name
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--work", required=True)
    p.add_argument("--sample", type=int)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--files", default="input,ack,recovery,undo")
    p.add_argument("--seeds", default="1-300")
    p.add_argument("--seconds", type=int, default=10 ** 9)
    p.add_argument("--list", action="store_true")
    p.add_argument("--again", action="store_true", help="try those that survived before once more")
    p.add_argument("--only", help="mutants whose description matches this regular expression")
    a = p.parse_args()
    a.work = os.path.abspath(a.work)
    todo = [(f, *m) for f in a.files.split(",") for m in mutants(f)]
    if a.sample:
        todo = random.Random(a.seed).sample(todo, min(a.sample, len(todo)))
    if a.only:
        todo = [m for m in todo if re.search(a.only, m[1])]
    if a.list:
        print("\n".join(f"{line}: {key}" for _, key, line, _ in todo))
        print(f"{len(todo)} mutants")
        return 0
    stack, tests = build(a.work)
    if a.seeds != "0":
        tests.append(("sim", [f"{a.work}/run_sim", "--twins", "--seeds", a.seeds]))
    end = time.monotonic() + a.seconds
    path = f"{a.work}/results.txt"
    done = dict(reversed(line.rstrip("\n").split("\t", 1)) for line in open(path)) if os.path.exists(path) else {}
    cost = {}
    for test in tests:
        start = time.monotonic()
        by = judge(f"{a.work}/plain", [test])
        cost[test[0]] = time.monotonic() - start
        if by is not None:
            sys.exit(f"mutate: {by} fails without any mutation")
    tests.sort(key=lambda test: cost[test[0]])
    lock = threading.Lock()

    def one(mutant):
        name, key, line, text = mutant
        if time.monotonic() > end:
            return
        d = f"{a.work}/{threading.get_ident()}"
        os.makedirs(d, exist_ok=True)
        open(f"{d}/{name}.c", "w").write(text)
        if cc(f"{d}/{name}.c", f"{d}/{name}.o") and \
                link([f"{d}/{name}.o" if o.endswith(f"/stack_{name}.o") else o for o in stack], f"{d}/libmutant.so"):
            by = judge(d, tests)
            verdict = f"killed by {by}" if by else "survived"
        else:
            verdict = "not built"
        with lock:
            done[key] = verdict
            with open(path, "a") as f:
                f.write(f"{verdict}\t{key}\n")

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(one, [m for m in todo if m[1] not in done or (a.again and done[m[1]] == "survived")]))
    tried = [(k, n, done[k]) for _, k, n, _ in todo if k in done and done[k] != "not built"]
    alive = [(n, k) for k, n, v in tried if v == "survived"]
    known = open(f"{TOP}/tests/mutation/survivors.txt").read() if os.path.exists(f"{TOP}/tests/mutation/survivors.txt") else ""
    same = sum(k in known for n, k in alive)
    print("\n".join(f"survived{' (known)' if k in known else ''}: {n}: {k}" for n, k in alive))
    print(Counter(v for _, _, v in tried))
    killed = len(tried) - len(alive)
    print(f"{len(tried)} of {len(todo)} mutants tried, {killed} killed ({100 * killed / max(1, len(tried)):.1f} %), "
          f"{same} of the survivors in survivors.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
