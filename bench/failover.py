#!/usr/bin/env python3
"""What a program notices while the VF is taken away and given back: messages lost, the longest silence, latency and throughput over time.

An echo client in the VM (bench/stream.c, an ordinary socket program) runs against its server on the peer; meanwhile the lab removes the VF
and returns it. One message in flight shows latency, many show throughput. The kernel runs the same course for comparison: its traffic moves
between VF and synthetic NIC below it, as with netvsc."""
import itertools
import json
import subprocess
import sys
import time

import benchlab

PORT = itertools.count(7800)   # another for each course: TIME_WAIT of the last one must not be in the way
KINDS = {'latency': ['-w', '1', '-l', '64'], 'throughput': ['-w', '32', '-l', '1400']}


def course(setup, lab, case, protocol, kind, args):
    accelerated = case == 'hvaccel'
    stream = setup.programs['stream']
    common = ['-p', str(next(PORT))] + (['-n'] if args.nonblocked else [])
    server = lab.popen('peer', [stream, 'server', protocol, '-t', str(args.seconds + 40)] + common, accelerated, setup.cpus[1], stdout=subprocess.PIPE, text=True)
    events = []
    try:
        if 'READY' not in server.stdout.readline():
            return {'error': 'the server does not start'}
        steal = benchlab.Steal()
        client = lab.popen('vm', [stream, 'client', protocol, '-a', benchlab.PEER, '-t', str(args.seconds), '-T', str(args.timeout), '-b', str(args.bucket)]
                           + KINDS[kind] + common, accelerated, setup.cpus[0], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            start = time.monotonic()
            for at, what, command in sorted([
                    (args.remove_at, 'removed', ['vf-remove'] + (['--surprise', str(args.surprise)] if args.surprise is not None else [])),
                    (args.add_at, 'returned', ['vf-add'])]):
                time.sleep(max(0, start + at - time.monotonic()))
                begin = time.monotonic_ns()
                lab.run(*command)
                events.append({'what': what, 'begin_ns': begin, 'end_ns': time.monotonic_ns()})
            out, err = client.communicate(timeout=args.seconds + 60)
        except BaseException:
            client.kill()
            raise
        share = steal.share()
    finally:
        benchlab.end(server)
    try:
        r = json.loads(out)
    except ValueError:
        return {'error': 'the client says (status %d): %s' % (client.returncode, (err or out).strip()[-500:])}
    for e in events:
        e['begin_ms'] = round((e.pop('begin_ns') - r['start_ns']) / 1e6, 3)
        e['end_ms'] = round((e.pop('end_ns') - r['start_ns']) / 1e6, 3)
    return dict({'events': events, 'steal': share, 'stream': r}, **({'summaries': lab.summaries()} if accelerated else {}))


def main():
    p = benchlab.arguments(__doc__.split('\n')[0])
    p.add_argument('--protocols', default='tcp,udp')
    p.add_argument('--kinds', default='latency,throughput')
    p.add_argument('--cases', default='kernel,hvaccel')
    p.add_argument('--seconds', type=int, default=9, help='length of a course')
    p.add_argument('--remove-at', type=float, default=2, metavar='S', help='when the VF is taken away')
    p.add_argument('--add-at', type=float, default=4, metavar='S', help='when it is given back')
    p.add_argument('--surprise', type=int, metavar='MS', help='the VF vanishes unannounced, the data path follows MS later (default: orderly removal)')
    p.add_argument('--nonblocked', action='store_true', help='both programs poll instead of waiting')
    p.add_argument('--timeout', type=int, default=20, metavar='MS', help='UDP: when an answer is given up')
    p.add_argument('--bucket', type=int, default=10, metavar='MS', help='resolution of the time series')
    p.add_argument('--quick', action='store_true', help='a course of three seconds')
    args = p.parse_args()
    if args.quick:
        args.seconds, args.remove_at, args.add_at = 3, 1, 2
    if not 0 < args.remove_at < args.add_at < args.seconds <= 600:
        benchlab.fail('--remove-at must come before --add-at, and both within --seconds (at most 600)')
    lists = {}
    for name, allowed in (('protocols', ('tcp', 'udp')), ('kinds', KINDS), ('cases', ('kernel', 'hvaccel'))):
        lists[name] = getattr(args, name).split(',')
        if not set(lists[name]) <= set(allowed):
            benchlab.fail('--%s: %s' % (name, ', '.join(allowed)))
    setup = benchlab.Setup(args, ['stream'])
    runs, failed = [], False
    with benchlab.Lab(setup) as lab:
        for kind in lists['kinds']:
            for protocol in lists['protocols']:
                for case in lists['cases']:
                    if case == 'hvaccel' and not setup.lib:
                        continue
                    lab.run('vf-add')
                    r = dict({'case': case, 'protocol': protocol, 'kind': kind}, **course(setup, lab, case, protocol, kind, args))
                    runs.append(r)
                    if 'error' in r:
                        failed = True
                        print('%s over %s, %s: %s' % (case, protocol, kind, r['error']), file=sys.stderr)
    benchlab.write(args.out, {'benchmark': 'failover', 'machine': benchlab.machine(),
                              'setting': {'seconds': args.seconds, 'remove_at_s': args.remove_at, 'add_at_s': args.add_at, 'surprise_ms': args.surprise,
                                          'nonblocked': args.nonblocked, 'cpus': setup.cpus, 'lab mode': args.mode, 'env': setup.extra},
                              'runs': runs})
    print('%-8s %-8s %-10s %9s %6s %5s %6s %9s %9s %12s' % ('case', 'protocol', 'kind', 'messages', 'lost', 'twice', 'broken', 'p50 us', 'p99 us', 'silence ms'))
    for r in runs:
        if 'error' in r:
            print('%-8s %-8s %-10s failed' % (r['case'], r['protocol'], r['kind']))
            continue
        s = r['stream']
        t = s.get('rtt_us', {'p50': 0, 'p99': 0})
        print('%-8s %-8s %-10s %9d %6d %5d %6s %9.1f %9.1f %12.2f' % (r['case'], r['protocol'], r['kind'], s['sent'], s['lost'], s['duplicated'],
              'yes' if s['broken'] or s['corrupt'] else 'no', t['p50'], t['p99'], s['longest_stall_us'] / 1e3))
        failed |= bool(s['broken'] or s['corrupt'] or s['duplicated'])
    return 1 if failed else 0


sys.exit(main())
