#!/usr/bin/env python3
"""mutate.py - do the tests notice? Changes one comparison, operator, constant or statement of src/stack at a time and runs the unit tests and the
simulator against it.

    tests/mutation/mutate.py --work DIR [--sample N] [--seed S] [--files input,ack,recovery] [--seeds A-B] [--list] [--seconds N]

A mutant is killed when something fails, crashes or doesn't end. DIR keeps objects and DIR/results.txt: mutants that are in there already aren't tried
again, so a full run can be done in pieces (--seconds: stop after so long). Survivors and why they may survive: tests/mutation/survivors.txt.
"""
import argparse, glob, os, random, re, subprocess, sys, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
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
    lines, code = text.split("\n"), strip_comments(text).split("\n")
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
            yield f"{name}.c: {line.strip()} | {what}", n + 1, "\n".join(out)


def run(cmd, timeout):
    try:
        return subprocess.run(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout).returncode
    except subprocess.TimeoutExpired:
        return -1


def cc(src, obj):
    return run(["gcc", *CFLAGS, f"-I{TOP}/src", f"-I{TOP}/tests/sim", f"-I{TOP}/src/stack", "-c", src, "-o", obj], 60) == 0


def build(work):
    objs, programs = {}, {}
    os.makedirs(work, exist_ok=True)
    for src in glob.glob(f"{TOP}/src/stack/*.c") + glob.glob(f"{TOP}/tests/sim/*.c") + glob.glob(f"{TOP}/tests/unit/stack_*.c"):
        obj = f"{work}/{os.path.basename(os.path.dirname(src))}_{os.path.basename(src)[:-2]}.o"
        if not os.path.exists(obj) or os.path.getmtime(obj) < os.path.getmtime(src):
            if not cc(src, obj):
                continue
        objs[src] = obj
    stack = [o for s, o in objs.items() if "/src/stack/" in s]
    rig = [o for s, o in objs.items() if s.endswith(("/stack_rig.c", "/sim/host.c", "/sim/seg.c"))]
    programs["sim"] = [o for s, o in objs.items() if "/tests/sim/" in s]
    for s, o in objs.items():
        name = os.path.basename(s)[:-2]
        if "/tests/unit/" in s and name not in ("stack_rig", "stack_seq", "stack_udp", "stack_trim"):
            programs[name] = [o] + rig
    return stack, programs


def judge(work, stack, programs, seeds):
    """True: killed."""
    for name, objs in sorted(programs.items(), key=lambda p: p[0] == "sim"):
        exe = f"{work}/run_{name}"
        if run(["gcc", *stack, *objs, "-lcmocka", "-o", exe], 60) != 0:
            continue
        if run([exe, "--twins", "--seeds", seeds] if name == "sim" else [exe], 40) != 0:
            return name
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--work", required=True)
    p.add_argument("--sample", type=int)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--files", default="input,ack,recovery")
    p.add_argument("--seeds", default="1-100")
    p.add_argument("--seconds", type=int, default=10 ** 9)
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    todo = [(f, *m) for f in a.files.split(",") for m in mutants(f)]
    if a.sample:
        todo = random.Random(a.seed).sample(todo, min(a.sample, len(todo)))
    if a.list:
        print("\n".join(f"{line}: {key}" for _, key, line, _ in todo))
        print(f"{len(todo)} mutants")
        return 0
    stack, programs = build(a.work)
    end = time.monotonic() + a.seconds
    path = f"{a.work}/results.txt"
    done = dict(reversed(line.rstrip("\n").split("\t", 1)) for line in open(path)) if os.path.exists(path) else {}
    if judge(a.work, stack, programs, a.seeds) is not None:
        sys.exit("mutate: the tests fail without any mutation")
    for name, key, line, text in todo:
        if key in done or time.monotonic() > end:
            continue
        src, obj = f"{a.work}/mutant_{name}.c", f"{a.work}/mutant_{name}.o"
        open(src, "w").write(text)
        if not cc(src, obj):
            verdict = "not built"
        else:
            by = judge(a.work, [obj if o.endswith(f"/stack_{name}.o") else o for o in stack], programs, a.seeds)
            verdict = f"killed by {by}" if by else "survived"
        done[key] = verdict
        with open(path, "a") as f:
            f.write(f"{verdict}\t{key}\n")
    tried = [(k, done[k]) for _, k, _, _ in todo if k in done and done[k] != "not built"]
    alive = [k for k, v in tried if v == "survived"]
    print("\n".join("survived: " + k for k in alive))
    print(f"{len(tried)} of {len(todo)} mutants tried, {len(tried) - len(alive)} killed ({100 * (len(tried) - len(alive)) // max(1, len(tried))} %)")
    return 0


sys.exit(main())
