#!/usr/bin/env python3
"""Our TCP against the kernel's on a bad network: how long a transfer takes, compared with kernel to kernel through the same impairments.

Each case is run with several seeds; a seed decides which segments are lost, late or doubled, and also who connects and whether it is IPv4
or IPv6 (four seeds have all four). Per seed the runs follow each other: kernel to kernel, ours sending, ours receiving (and, with --both, ours
at both ends). The table has medians. `ratio` is the median of the ratios seed by seed and has to stay below 1.15; behind it is the interval
that holds it with 95 % confidence (bootstrap over the seeds): if that reaches above the bound and the median doesn't, more seeds decide.
`stall` is the longest time in which the receiver got nothing new, in milliseconds and in retransmission timeouts of the sender whose turn it
was to break it, kernel's or ours; `rto` how many timeouts there were in all seeds. Then all stalls of 100 ms and more, by cause
(tests/impair/stall.h): `within` a timeout, a round trip and a delayed ACK; longer, because retransmissions or their ACKs were `lost` too, each
tried in time; and unexplained, `unexp`: an end was silent for longer than its timeout though it had something to send, or nothing that was lost
explains it. One that isn't the kernel's own fault is an error. Below the table: throughput of one stream at 1 % loss and 10 ms, all octets by all the time, which has to be at least
0.9 of the kernel's.

Needs root; no lab and no VF: src/stack itself runs at one end of a relay (tests/impair). Python's standard library only."""
import argparse
import concurrent.futures
import json
import os
import random
import statistics
import subprocess
import sys
import time

BOUND, RATE_BOUND = 1.15, 0.9
LATE = 4  # the connection wasn't set up in time (tests/impair/impaired.c): nothing was measured
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
THROUGHPUT = 'loss 1 %'
# who is at the sending (client's) and at the other end
TIERS = {'kernel': ('kernel', 'kernel'), 'send': ('stack', 'kernel'), 'receive': ('kernel', 'stack'), 'both': ('stack', 'stack')}


def run(program, tier, options, seed, limit, keep=None):
    a, b = TIERS[tier]
    command = [program, '--a=' + a, '--b=' + b, '--sender=a', '--connect=' + 'ab'[seed % 2], '--family=' + '46'[seed // 2 % 2], '--seed=%d' % seed,
               '--limit=%d' % limit] + NETWORK + options
    pcaps = ['%s-%s-%d-%s.pcap' % (keep, tier, seed, e) for e in 'ab'] if keep else []
    command += ['--pcap-%s=%s' % e for e in zip('ab', pcaps)]
    for _ in range(5):
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if p.returncode != LATE:
            break
    if p.returncode:
        return {'error': (p.stderr or p.stdout or 'status %d' % p.returncode).strip(), 'command': command}
    for f in pcaps:
        os.unlink(f)
    return json.loads(p.stdout)


def one_seed(program, tiers, options, seed, limit, keep):
    runs = {}
    for t in tiers:
        runs[t] = run(program, t, options, seed, limit, keep)
        runs[t]['seed'] = seed
    return runs


def interval(values, figure=statistics.median, draws=2000):
    """95 % by bootstrap: the figure of as many values drawn from these, again and again."""
    rng = random.Random(1)
    found = sorted(figure([values[rng.randrange(len(values))] for _ in values]) for _ in range(draws))
    return [found[int(draws * 0.025)], found[int(draws * 0.975) - 1]]


def stall_rtos(r):
    return r['stall_ms'] / r['stall_rto_ms'] if r['stall_rto_ms'] else 0


def unexplained(r):
    return sum(r['stalls']['late']) + r['stalls']['other']


def our_fault(r):
    """All that are unexplained but an end's that is the kernel's being late."""
    return unexplained(r) - sum(n for n, e in zip(r['stalls']['late'], 'ab') if r[e]['tcp'] == 'kernel') if 'stack' in (r['a']['tcp'], r['b']['tcp']) else 0


def summary(runs):
    good = [r for r in runs if 'error' not in r]
    if not good:
        return None
    return {
        'ms': statistics.median(r['ms'] for r in good),
        'stall_ms': max(r['stall_ms'] for r in good),
        'stall_rtos': max(stall_rtos(r) for r in good),
        'within': sum(r['stalls']['within'] for r in good),
        'lost': sum(r['stalls']['lost'] for r in good),
        'lost_timeouts': sum(r['stalls']['timeouts'] for r in good),
        'unexplained': sum(unexplained(r) for r in good),
        'rexmit': statistics.median(r['a']['rexmit'] + r['b']['rexmit'] for r in good),
        'rto': sum(r['a']['rto'] + r['b']['rto'] for r in good),
        'queue_drops': statistics.median(sum(r['queue_drops']) for r in good),
        'resets': sum(r['resets'] for r in good),
    }


def throughput(entry, tiers):
    """Of one stream, in Mbit/s, and its share of the kernel's, seed by seed the same losses."""
    octets = next(int(o.split('=')[1]) for o in entry['options'] if o.startswith('--bytes='))
    found = {}
    for t in tiers:
        pairs = [(k['ms'], o['ms']) for k, o in zip(entry['tiers']['kernel']['runs'], entry['tiers'][t]['runs']) if 'error' not in k and 'error' not in o]
        rate = octets * 8e-3 * len(pairs) / sum(o for k, o in pairs)
        found[t] = {'mbit_s': rate, 'share': sum(k for k, o in pairs) / sum(o for k, o in pairs),
                    'share_95': interval(pairs, lambda ps: sum(k for k, o in ps) / sum(o for k, o in ps))}
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--builddir', default='.', help='where the project was built')
    p.add_argument('--seeds', type=int, default=12, help='runs of each case (12)')
    p.add_argument('--first', type=int, default=1, help='first seed (1)')
    p.add_argument('--only', action='append', metavar='CASE', help='cases whose name contains this; may be repeated')
    p.add_argument('--tier', action='append', choices=['send', 'receive', 'both'], help='only this one; may be repeated')
    p.add_argument('--both', action='store_true', help='also with ours at both ends')
    p.add_argument('--cc', default='cubic', choices=['cubic', 'reno'])
    p.add_argument('--jobs', type=int, default=1, help='so many seeds at a time (1); mostly they wait, but a busy machine is another network')
    p.add_argument('--limit', type=int, default=60, help='seconds for one run (60)')
    p.add_argument('--keep', metavar='PREFIX', help='keep captures of runs that fail, PREFIX-CASE-TIER-SEED-a.pcap and so on')
    p.add_argument('--out', help='write everything that was measured there, as JSON')
    p.add_argument('--add', metavar='FILE', help='continue the report of an earlier run: its cases that are not run now are kept')
    args = p.parse_args()
    program = os.path.join(args.builddir, 'tests/impair/impaired')
    if os.geteuid():
        sys.exit('impaired.py: needs root for network namespaces')
    if not os.path.exists(program):
        sys.exit('impaired.py: %s not found: build it, or say --builddir' % program)
    tiers = ['kernel'] + [t for t in TIERS if t != 'kernel' and (t in args.tier if args.tier else t != 'both' or args.both)]
    report = {'network': NETWORK, 'kernel': os.uname().release, 'cc': args.cc, 'cases': {}}
    if args.add and os.path.exists(args.add):
        report['cases'] = json.load(open(args.add))['cases']
    print('%-14s %-8s %9s %7s %13s %7s %5s %9s %5s %6s %5s %5s' % (
        'case', 'ours', 'ms', 'ratio', '95 %', 'rexmit', 'rto', 'stall ms', 'rtos', 'within', 'lost', 'unexp'))
    bad = 0
    pool = concurrent.futures.ThreadPoolExecutor(args.jobs)
    for name, options in CASES.items():
        if args.only and not any(o in name for o in args.only):
            continue
        keep = args.keep + '-' + ''.join(c if c.isalnum() else '_' for c in name) if args.keep else None
        seeds = range(args.first, args.first + args.seeds)
        found = list(pool.map(lambda s: one_seed(program, tiers, options + ['--cc=' + args.cc], s, args.limit, keep), seeds))
        runs = {t: [f[t] for f in found] for t in tiers}
        for t in tiers:
            for r in runs[t]:
                if 'error' in r:
                    print('%s, %s, seed %d: %s' % (name, t, r['seed'], r['error']), file=sys.stderr)
                    bad += 1
                elif unexplained(r):
                    print('%s, %s, seed %d: unexplained stall%s: %s' % (
                        name, t, r['seed'], '' if our_fault(r) else ' (the kernel\'s)', r['stalls']['why']), file=sys.stderr)
                    bad += our_fault(r) != 0
        entry = {'options': options, 'tiers': {}}
        for t in tiers:
            s = summary(runs[t])
            if s is None:
                continue
            ratios = [o['ms'] / k['ms'] for k, o in zip(runs['kernel'], runs[t]) if 'error' not in k and 'error' not in o]
            s['ratio'] = statistics.median(ratios) if ratios else None
            s['ratio_95'] = interval(ratios) if ratios else None
            s['ratio_of_medians'] = s['ms'] / summary(runs['kernel'])['ms'] if summary(runs['kernel']) else None
            s['runs'] = runs[t]
            entry['tiers'][t] = s
            over = s['ratio'] is not None and s['ratio'] > BOUND
            bad += over
            print('%-14s %-8s %9.1f %7.3f %13s %7g %5d %9.1f %5.2f %6d %5d %5d %s' % (
                name, t, s['ms'], s['ratio'] or 0, '%.3f-%.3f' % tuple(s['ratio_95']) if ratios and t != 'kernel' else '', s['rexmit'], s['rto'],
                s['stall_ms'], s['stall_rtos'], s['within'], s['lost'], s['unexplained'], 'OVER' if over else ''), flush=True)
            if s['resets']:
                print('%s, %s: %d resets' % (name, t, s['resets']), file=sys.stderr)
                bad += 1
        report['cases'][name] = entry
        if name == THROUGHPUT and len(entry['tiers']) == len(tiers):
            report['throughput'] = throughput(entry, tiers)
    for t, r in report.get('throughput', {}).items():
        under = r['share'] < RATE_BOUND
        bad += under
        print('one stream, 1 %% loss, 10 ms: %-8s %6.2f Mbit/s%s%s' % (
            t, r['mbit_s'], ', %.3f (%.3f-%.3f) of the kernel\'s' % (r['share'], *r['share_95']) if t != 'kernel' else '', ' UNDER' if under else ''))
    report['time'] = int(time.time())
    if args.out:
        with open(args.out, 'w') as f:
            json.dump(report, f, indent=1)
            f.write('\n')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
