#!/usr/bin/env python3
"""Our TCP against the kernel's on a bad network: how long a transfer takes, compared with kernel to kernel through the same impairments.

Each case is run with several seeds; a seed decides which segments are lost, late or doubled, and also who connects and whether it is IPv4
or IPv6. Per seed the runs are interleaved: kernel to kernel, ours sending, ours receiving (and, with --both, ours at both ends). The table has
medians; `ratio` is the median of the ratios seed by seed and has to stay below 1.15. `stall` is the longest time in which the receiver got
nothing new, `rto` how many retransmission timeouts there were in all seeds. Needs root; no lab and no VF: src/stack itself runs at one end of a
relay (tests/impair). Python's standard library only."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BOUND = 1.15
NETWORK = ['--delay=5000', '--rate=100', '--queue=250000']
LONG, SHORT = '--bytes=8000000', '--bytes=3000000'
CASES = {
    'no loss': [LONG],
    'loss 0.01 %': [LONG, '--loss=0.01'],
    'loss 0.1 %': [LONG, '--loss=0.1'],
    'loss 1 %': [SHORT, '--loss=1'],
    'loss 3 %': ['--bytes=1500000', '--loss=3'],
    'bursts 1 %': [SHORT, '--loss=1', '--burst=4'],
    'jitter 2 ms': [LONG, '--jitter=1000'],
    'reorder 5 %': [LONG, '--reorder=5', '--hold=3000'],
    'twice 1 %': [LONG, '--dup=1'],
    'all of it': [SHORT, '--loss=0.5', '--jitter=500', '--reorder=1', '--dup=0.5'],
    'dialogue, 1 %': ['--rounds=60', '--request=200', '--response=6000', '--loss=1'],
    'dialogue, 3 %': ['--rounds=60', '--request=200', '--response=6000', '--loss=3'],
}
# who is at the sending (client's) and at the other end
TIERS = {'kernel': ('kernel', 'kernel'), 'send': ('stack', 'kernel'), 'receive': ('kernel', 'stack'), 'both': ('stack', 'stack')}


def run(program, tier, options, seed, limit):
    a, b = TIERS[tier]
    command = [program, '--a=' + a, '--b=' + b, '--sender=a', '--connect=' + 'ab'[seed % 2], '--family=' + '46'[seed // 2 % 2], '--seed=%d' % seed,
               '--limit=%d' % limit] + NETWORK + options
    p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        return {'error': (p.stderr or p.stdout or 'status %d' % p.returncode).strip(), 'command': command}
    return json.loads(p.stdout)


def summary(runs):
    good = [r for r in runs if 'error' not in r]
    if not good:
        return None
    return {
        'ms': statistics.median(r['ms'] for r in good),
        'stall_ms': max(r['stall_ms'] for r in good),
        'rexmit': statistics.median(r['a']['rexmit'] + r['b']['rexmit'] for r in good),
        'rto': sum(r['a']['rto'] + r['b']['rto'] for r in good),
        'queue_drops': statistics.median(sum(r['queue_drops']) for r in good),
        'resets': sum(r['resets'] for r in good),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--builddir', default='.', help='where the project was built')
    p.add_argument('--seeds', type=int, default=5, help='runs of each case (5)')
    p.add_argument('--first', type=int, default=1, help='first seed (1)')
    p.add_argument('--only', action='append', metavar='CASE', help='cases whose name contains this; may be repeated')
    p.add_argument('--both', action='store_true', help='also with ours at both ends')
    p.add_argument('--cc', default='cubic', choices=['cubic', 'reno'])
    p.add_argument('--limit', type=int, default=60, help='seconds for one run (60)')
    p.add_argument('--out', help='write everything that was measured there, as JSON')
    p.add_argument('--add', metavar='FILE', help='continue the report of an earlier run: its cases that are not run now are kept')
    args = p.parse_args()
    program = os.path.join(args.builddir, 'tests/impair/impaired')
    if os.geteuid():
        sys.exit('impaired.py: needs root for network namespaces')
    if not os.path.exists(program):
        sys.exit('impaired.py: %s not found: build it, or say --builddir' % program)
    tiers = [t for t in TIERS if t != 'both' or args.both]
    report = {'network': NETWORK, 'kernel': os.uname().release, 'cc': args.cc, 'cases': {}}
    if args.add and os.path.exists(args.add):
        report['cases'] = json.load(open(args.add))['cases']
    print('%-14s %-8s %9s %7s %8s %5s %9s %s' % ('case', 'ours', 'ms', 'ratio', 'rexmit', 'rto', 'stall ms', ''))
    bad = 0
    for name, options in CASES.items():
        if args.only and not any(o in name for o in args.only):
            continue
        runs = {t: [] for t in tiers}
        for seed in range(args.first, args.first + args.seeds):
            for t in tiers:
                r = run(program, t, options + ['--cc=' + args.cc], seed, args.limit)
                r['seed'] = seed
                runs[t].append(r)
                if 'error' in r:
                    print('%s, %s, seed %d: %s' % (name, t, seed, r['error']), file=sys.stderr)
                    bad += 1
        entry = {'options': options, 'tiers': {}}
        for t in tiers:
            s = summary(runs[t])
            if s is None:
                continue
            ratios = [o['ms'] / k['ms'] for k, o in zip(runs['kernel'], runs[t]) if 'error' not in k and 'error' not in o]
            s['ratio'] = statistics.median(ratios) if ratios else None
            s['ratio_of_medians'] = s['ms'] / summary(runs['kernel'])['ms'] if summary(runs['kernel']) else None
            s['runs'] = runs[t]
            entry['tiers'][t] = s
            over = s['ratio'] is not None and s['ratio'] > BOUND
            bad += over
            print('%-14s %-8s %9.1f %7.3f %8g %5d %9.1f %s' % (
                name, t, s['ms'], s['ratio'] or 0, s['rexmit'], s['rto'], s['stall_ms'], 'OVER' if over else ''), flush=True)
            if s['resets']:
                print('%s, %s: %d resets' % (name, t, s['resets']), file=sys.stderr)
                bad += 1
        report['cases'][name] = entry
    report['time'] = int(time.time())
    if args.out:
        with open(args.out, 'w') as f:
            json.dump(report, f, indent=1)
            f.write('\n')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
