#!/usr/bin/env python3
"""Half round trips of sockperf's ping-pong across the lab: kernel, libhvaccel, and the bare AF_XDP loop below both.

Both ends on CPUs of their own; rounds of all cases are interleaved, and a ratio is the median of the ratios within a round: on a
virtual machine everything becomes slower or faster by up to 1.5 times from one second to the next (one line between the two CPUs took
from 27 to 220 ns within a minute: neighbours on the same cores, CPUs moved by the host); what was measured within ten seconds compares. Two baselines, because they answer different questions: the kernel as programs use it (blocking: on a virtual
machine mostly the time to wake a CPU) and the kernel polled (--nonblocked: the shortest that its stack can do)."""
import itertools
import json
import re
import subprocess
import sys

import benchlab

PORT = itertools.count(7711)   # another for each measurement: TIME_WAIT of the last one must not be in the way
PERCENTILES = ('p50', 'p99', 'p99.9')
CASES = {
    'kernel': 'kernel, blocking',
    'kernel-polled': 'kernel, --nonblocked',
    'hvaccel': 'libhvaccel',
    'bare': 'bare AF_XDP loop',
}


def sockperf(lab, protocol, case, seconds, size):
    setup = lab.setup
    accelerated = case == 'hvaccel'
    port = next(PORT)
    options = ['-i', benchlab.PEER, '-p', str(port), '-m', str(size)]
    if protocol == 'tcp':
        options.append('--tcp')
    if case == 'kernel-polled':
        options.append('--nonblocked')
    server = lab.popen('peer', ['sockperf', 'server'] + options, accelerated, setup.cpus[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        benchlab.wait_port(server, protocol, port)
        steal = benchlab.Steal()
        client = lab.popen('vm', ['sockperf', 'ping-pong', '-t', str(seconds)] + options, accelerated, setup.cpus[0],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            text, _ = client.communicate(timeout=seconds + 30)
        except subprocess.TimeoutExpired:
            client.kill()
            text, _ = client.communicate()
            return {'error': 'no end after %d s: %s' % (seconds + 30, text[-300:])}
        share = steal.share()
    finally:
        benchlab.end(server)
    text = re.sub(r'\x1b\[[0-9;]*m', '', text)
    result = {'steal': share}
    for name, number in (('p50', '50.000'), ('p99', '99.000'), ('p99.9', '99.900')):
        m = re.search(r'percentile %s\s*=\s*([0-9.]+)' % re.escape(number), text)
        if not m:
            return {'error': 'sockperf %s over %s says nothing usable (status %d): %s' % (case, protocol, client.returncode, text[-600:])}
        result[name] = float(m.group(1))
    m = re.search(r'dropped messages = (\d+); # duplicated messages = (\d+); # out-of-order messages = (\d+)', text)
    if m:
        result['dropped'], result['duplicated'], result['reordered'] = (int(x) for x in m.groups())
    m = re.search(r'\[Total Run\].*ReceivedMessages=(\d+)', text)
    if m:
        result['messages'] = int(m.group(1))
    if accelerated:
        result['summaries'] = lab.summaries()
    return result


def bare(lab, seconds, size):
    setup = lab.setup
    program = setup.programs['xsk_pingpong']
    server = lab.popen('peer', [program, 'server', '-i', 'eth0', '-c', str(setup.cpus[1]), '-t', str(seconds + 5)], stdout=subprocess.PIPE, text=True)
    try:
        if 'READY' not in server.stdout.readline():
            return {'error': 'the AF_XDP loop does not start in the peer'}
        steal = benchlab.Steal()
        client = lab.popen('vm', [program, 'client', '-i', 'vf0', '-c', str(setup.cpus[0]), '-s', benchlab.VM, '-d', benchlab.PEER, '-D', benchlab.PEER_MAC,
                                  '-t', str(seconds), '-l', str(size), '-j'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = client.communicate(timeout=seconds + 30)
        share = steal.share()
    finally:
        benchlab.end(server)
    if client.returncode:
        return {'error': err.strip()}
    r = json.loads(out)
    return dict(r['half_us'], messages=r['messages'], dropped=r['lost'], steal=share)


def ratios(rounds):
    def over(a, b, protocol):
        x, y = (rounds.get((protocol, c)) or rounds.get(('udp' if c == 'bare' else protocol, c), []) for c in (a, b))
        pairs = [(u, v) for u, v in zip(x, y) if 'error' not in u and 'error' not in v]
        return {p: benchlab.median([u[p] / v[p] for u, v in pairs]) for p in PERCENTILES} if pairs else None
    out = {}
    for protocol in ('udp', 'tcp'):
        for a, b in (('kernel', 'hvaccel'), ('kernel-polled', 'hvaccel'), ('hvaccel', 'bare'), ('kernel', 'bare'), ('kernel-polled', 'bare')):
            r = over(a, b, protocol)
            if r:
                out['%s: %s / %s' % (protocol, a, b)] = r
    return out


def main():
    p = benchlab.arguments(__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=7)
    p.add_argument('--seconds', type=int, default=1, help='length of one measurement')
    p.add_argument('--size', type=int, default=64, help='octets of a message')
    p.add_argument('--cases', default=','.join(CASES), help='which to measure')
    p.add_argument('--protocols', default='udp,tcp')
    p.add_argument('--quick', action='store_true', help='one round of a second: to see whether it works')
    args = p.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 1
    if args.rounds < 1 or not 1 <= args.seconds <= 600 or not 16 <= args.size <= 1400:
        benchlab.fail('rounds from 1, seconds from 1 to 600, size from 16 to 1400')
    wanted, protocols = args.cases.split(','), args.protocols.split(',')
    if not set(wanted) <= set(CASES) or not set(protocols) <= {'udp', 'tcp'}:
        benchlab.fail('cases are %s; protocols udp, tcp' % ', '.join(CASES))
    setup = benchlab.Setup(args, ['sockperf'] + (['xsk_pingpong'] if 'bare' in wanted else []))
    # neighbours in time are what is compared most closely
    todo = [t for t in (('udp', 'kernel'), ('tcp', 'kernel'), ('udp', 'kernel-polled'), ('udp', 'hvaccel'), ('udp', 'bare'), ('tcp', 'hvaccel'), ('tcp', 'kernel-polled'))
            if t[1] in wanted and (t[0] in protocols or t[1] == 'bare') and (t[1] != 'hvaccel' or setup.lib)]
    rounds = {t: [] for t in todo}
    with benchlab.Lab(setup) as lab:
        for n in range(args.rounds):
            for protocol, case in todo:
                r = bare(lab, args.seconds, args.size) if case == 'bare' else sockperf(lab, protocol, case, args.seconds, args.size)
                if 'error' in r:
                    print('round %d, %s over %s: %s' % (n + 1, CASES[case], protocol, r['error']), file=sys.stderr)
                rounds[protocol, case].append(r)
    medians = {}
    for t, rs in rounds.items():
        good = [r for r in rs if 'error' not in r]
        if good:
            medians[t] = {q: benchlab.median([r[q] for r in good]) for q in PERCENTILES}
    result = {'benchmark': 'latency', 'unit': 'us, half a round trip', 'machine': benchlab.machine(),
              'setting': {'rounds': args.rounds, 'seconds': args.seconds, 'size': args.size, 'cpus': setup.cpus, 'lab mode': args.mode, 'env': setup.extra},
              'cases': [{'protocol': pr, 'case': c, 'name': CASES[c], 'median': medians.get((pr, c)), 'rounds': rounds[pr, c]} for pr, c in todo],
              'ratios': ratios(rounds)}
    benchlab.write(args.out, result)

    print('half round trip, us, medians of %d rounds of %d s, %d octets' % (args.rounds, args.seconds, args.size))
    print('%-5s %-22s %9s %9s %9s  %s' % ('', '', *PERCENTILES, 'p50 of each round'))
    for pr, c in todo:
        m = medians.get((pr, c))
        each = ' '.join('-' if 'error' in r else '%.2f' % r['p50'] for r in rounds[pr, c])
        print('%-5s %-22s %s  %s' % (pr, CASES[c], ' '.join('%9.2f' % m[q] if m else '%9s' % 'failed' for q in PERCENTILES), each))
    if result['ratios']:
        print('\n%-36s %9s %9s %9s  %s' % ('ratio', *PERCENTILES, '(medians of the rounds)'))
        for name, r in result['ratios'].items():
            print('%-36s %s' % (name, ' '.join('%9.2f' % r[q] for q in PERCENTILES)))
    return 1 if any('error' in r for rs in rounds.values() for r in rs) else 0


sys.exit(main())
