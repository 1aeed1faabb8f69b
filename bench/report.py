#!/usr/bin/env python3
"""Make report.json and report.svg of what latency.py and failover.py wrote: one picture, complete in itself.

usage: report.py [--out PREFIX] [--title TEXT] FILE.json...

The picture shows latency and throughput over time with the VF's removal and return marked, and the table of half round trips and ratios.
Python's standard library only."""
import argparse
import json
import math
import sys
from xml.sax.saxutils import escape

# Colours that stay apart for colour-blind readers and in grey print.
COLOUR = {'kernel': '#b35806', 'hvaccel': '#1b5fa7'}
NAME = {'kernel': 'kernel', 'hvaccel': 'libhvaccel'}
CASE_NAME = {'kernel': 'kernel, blocking', 'kernel-polled': 'kernel, polled', 'hvaccel': 'libhvaccel', 'bare': 'bare AF_XDP loop'}
INK, FAINT, AWAY = '#222222', '#d9d9d9', '#f1e9dc'
WIDTH, LEFT, RIGHT = 1000, 76, 24


class Svg:
    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, s, size=12, anchor='start', weight='normal', fill=INK, extra=''):
        self.add('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" font-weight="%s" fill="%s"%s>%s</text>' % (
            x, y, size, anchor, weight, fill, ' ' + extra if extra else '', escape(s)))

    def line(self, x1, y1, x2, y2, stroke=INK, width=1.0, dash=None):
        self.add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"%s/>' % (
            x1, y1, x2, y2, stroke, width, ' stroke-dasharray="%s"' % dash if dash else ''))

    def rect(self, x, y, w, h, fill, opacity=1.0):
        self.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="%.2f"/>' % (x, y, w, h, fill, opacity))

    def path(self, points, stroke, width=1.2, opacity=1.0):
        """A line that is interrupted where a value is missing."""
        d, pen = [], False
        for x, y in points:
            if y is None:
                pen = False
                continue
            d.append('%s%.1f %.1f' % ('L' if pen else 'M', x, y))
            # a lone point is shown as a short dash
            if not pen:
                d.append('h0.6')
            pen = True
        if d:
            self.add('<path d="%s" fill="none" stroke="%s" stroke-width="%.1f" stroke-opacity="%.2f" stroke-linejoin="round" stroke-linecap="round"/>' % (
                ''.join(d), stroke, width, opacity))

    def document(self, height):
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica, Arial, sans-serif">\n'
                '<rect width="100%%" height="100%%" fill="white"/>\n%s\n</svg>\n' % (WIDTH, height, WIDTH, height, '\n'.join(self.parts)))


def nice_step(span, about):
    """1, 2 or 5 times a power of ten, so that about that many steps fit."""
    raw = span / max(1, about)
    power = 10 ** math.floor(math.log10(raw))
    for m in (1, 2, 5, 10):
        if raw <= m * power:
            return m * power
    return 10 * power


def format_us(v):
    if v >= 1e6:
        return '%g s' % (v / 1e6)
    return '%g ms' % (v / 1e3) if v >= 1e3 else '%g µs' % v


def coarser(series, bucket, seconds, combine, want=450):
    """Fewer points than pixels: neighbours combined. Returns (width of a bucket in s, values)."""
    factor = max(1, math.ceil(seconds * 1000 / bucket / want))
    out = []
    for i in range(0, len(series), factor):
        v = [x for x in series[i:i + factor] if x is not None]
        out.append(combine(v) if v else None)
    return bucket * factor / 1000, out


def middle(v):
    return sorted(v)[len(v) // 2]


def time_frame(svg, top, height, seconds, events):
    """Axes of time, the span without VF, and its marks. Returns the function from seconds to x."""
    width = WIDTH - LEFT - RIGHT

    def x(t):
        return LEFT + width * t / seconds

    removed = [e for e in events if e['what'] == 'removed']
    returned = [e for e in events if e['what'] == 'returned']
    for a in removed:
        after = [b['begin_ms'] for b in returned if b['begin_ms'] > a['begin_ms']]
        until = min(after) / 1000 if after else seconds
        svg.rect(x(a['begin_ms'] / 1000), top, x(until) - x(a['begin_ms'] / 1000), height, AWAY)
    step = nice_step(seconds, 10)
    for i in range(int(seconds / step + 1e-6) + 1):
        svg.line(x(i * step), top + height, x(i * step), top + height + 4)
        svg.text(x(i * step), top + height + 17, '%g' % (i * step), 11, 'middle')
    svg.text(LEFT + width / 2, top + height + 33, 'seconds', 11, 'middle')
    for e in removed + returned:
        t = e['begin_ms'] / 1000
        svg.line(x(t), top - 4, x(t), top + height, INK, 1.0, '4 3')
        label = 'VF ' + e['what']
        svg.rect(x(t) + 2, top + 3, 6.6 * len(label) + 6, 16, 'white', 0.8)
        svg.text(x(t) + 5, top + 15, label, 11, 'start', 'bold')
    return x


def frame_box(svg, top, height):
    svg.add('<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="none" stroke="%s"/>' % (LEFT, top, WIDTH - LEFT - RIGHT, height, INK))


def legend(svg, y, entries):
    x = WIDTH - RIGHT
    for text, colour, width, opacity in reversed(entries):
        x -= 6.2 * len(text)
        svg.text(x, y, text, 11)
        x -= 30
        svg.add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f" stroke-opacity="%.2f"/>' % (
            x, y - 4, x + 24, y - 4, colour, width, opacity))
        x -= 14


def how(setting):
    ms = setting['surprise_ms']
    return '' if ms is None else '; surprise removal, data path %d ms later' % ms


def within(stream, series, seconds):
    """Without the time after the last message, when the client only waited for stragglers."""
    return stream[series][:int(seconds * 1000 / stream['bucket_ms'])]


def latency_panel(svg, top, runs, protocol, setting):
    """Round trips on a logarithmic axis: median as a line, the worst of each moment as a faint one."""
    height = 210
    seconds = setting['seconds']
    values = [v for r in runs for k in ('p50_us', 'max_us') for v in r['stream'][k] if v]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
    high = max(high, low * 100)

    def y(v):
        return None if v is None else top + height - height * (math.log10(max(v, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))

    svg.text(LEFT, top - 26, 'Latency over time, %s: round trips of 64 octets, one in flight%s' % (protocol.upper(), how(setting)), 14, weight='bold')
    # the courses follow one timetable: the marks of the first stand for all
    x = time_frame(svg, top, height, seconds, runs[0]['events'])
    decade = low
    while decade <= high:
        svg.line(LEFT, y(decade), WIDTH - RIGHT, y(decade), FAINT)
        svg.text(LEFT - 8, y(decade) + 4, format_us(decade), 11, 'end')
        decade *= 10
    frame_box(svg, top, height)
    entries = []
    for r in runs:
        s, colour = r['stream'], COLOUR[r['case']]
        width, worst = coarser(within(s, 'max_us', seconds), s['bucket_ms'], seconds, max)
        svg.path([(x(min(seconds, (i + 0.5) * width)), y(v)) for i, v in enumerate(worst)], colour, 0.8, 0.35)
    for r in runs:
        s, colour = r['stream'], COLOUR[r['case']]
        width, mid = coarser(within(s, 'p50_us', seconds), s['bucket_ms'], seconds, middle)
        svg.path([(x(min(seconds, (i + 0.5) * width)), y(v)) for i, v in enumerate(mid)], colour, 1.8)
        entries += [(NAME[r['case']] + ': median', colour, 1.8, 1.0), ('worst', colour, 0.8, 0.45)]
    legend(svg, top - 6, entries)
    return height + 46


def throughput_panel(svg, top, runs, protocol, setting):
    height = 170
    seconds = setting['seconds']
    drawn, peak = [], 0.0
    for r in runs:
        s = r['stream']
        rate = [m * s['size'] * 8 / (s['bucket_ms'] / 1000) / 1e9 for m in within(s, 'messages', seconds)]
        width, v = coarser(rate, s['bucket_ms'], seconds, lambda a: sum(a) / len(a), 220)
        drawn.append((r, width, v))
        peak = max([peak] + v)
    step = nice_step(peak or 1, 4)
    high = step * math.ceil((peak or 1) / step + 1e-9)

    def y(v):
        return top + height - height * v / high

    size, window = runs[0]['stream']['size'], runs[0]['stream']['window']
    svg.text(LEFT, top - 26, 'Throughput over time, %s: %d messages of %d octets in flight, echoed%s' % (protocol.upper(), window, size, how(setting)), 14, weight='bold')
    # the courses follow one timetable: the marks of the first stand for all
    x = time_frame(svg, top, height, seconds, runs[0]['events'])
    for i in range(int(round(high / step)) + 1):
        svg.line(LEFT, y(i * step), WIDTH - RIGHT, y(i * step), FAINT)
        svg.text(LEFT - 8, y(i * step) + 4, '%g' % round(i * step, 6), 11, 'end')
    svg.text(20, top + height / 2, 'Gbit/s each way', 11, 'middle', extra='transform="rotate(-90 20 %.1f)"' % (top + height / 2))
    frame_box(svg, top, height)
    for r, width, v in drawn:
        svg.path([(x(min(seconds, (i + 0.5) * width)), y(a)) for i, a in enumerate(v)], COLOUR[r['case']], 1.6)
    legend(svg, top - 6, [(NAME[r['case']], COLOUR[r['case']], 1.6, 1.0) for r, _, _ in drawn])
    return height + 46


def table(svg, top, title, columns, widths, rows):
    """Rows of strings; the first column is left-aligned."""
    svg.text(LEFT, top, title, 14, weight='bold')
    y = top + 24
    edges = [LEFT]
    for w in widths:
        edges.append(edges[-1] + w)
    for i, c in enumerate(columns):
        svg.text(edges[i] if not i else edges[i + 1], y, c, 11, 'end' if i else 'start', 'bold')
    svg.line(LEFT, y + 6, edges[-1], y + 6)
    for row in rows:
        y += 20
        ours = 'libhvaccel' in row[0]
        for i, c in enumerate(row):
            svg.text(edges[i] if not i else edges[i + 1], y, c, 12, 'end' if i else 'start', 'bold' if ours else 'normal')
    svg.line(LEFT, y + 8, edges[-1], y + 8, FAINT)
    return y + 8 - top


def latency_tables(svg, top, latency):
    found = {(c['protocol'], c['case']): c['median'] for c in latency['cases'] if c['median']}
    y = top
    rows = []
    for protocol in ('udp', 'tcp'):
        for case in ('kernel', 'kernel-polled', 'hvaccel', 'bare'):
            m = found.get((protocol, case))
            if not m:
                continue
            row = ['%s   %s' % (protocol.upper(), CASE_NAME[case])] + ['%.2f' % m[p] for p in ('p50', 'p99', 'p99.9')]
            ours = found.get((protocol, 'hvaccel'))
            for p in ('p50', 'p99', 'p99.9'):
                row.append('%.2f×' % (m[p] / ours[p]) if ours else '–')
            rows.append(row)
    s = latency['setting']
    title = 'Half a round trip in µs, sockperf ping-pong of %d octets, medians of %d rounds of %d s; ratio: to libhvaccel' % (s['size'], s['rounds'], s['seconds'])
    y += table(svg, y, title, ['', 'p50', 'p99', 'p99.9', 'p50 ratio', 'p99 ratio', 'p99.9 ratio'], [230, 80, 80, 80, 110, 110, 110], rows) + 38
    return y - top


def failover_table(svg, top, runs):
    rows = []
    for r in runs:
        s = r['stream']
        t = s.get('rtt_us', {})
        rows.append(['%s   %s, %s in flight%s' % (s['protocol'].upper(), NAME[r['case']], 'one' if r['kind'] == 'latency' else 'many', r['how']), str(s['sent']), str(s['lost']),
                     str(s['duplicated']), 'yes' if s['broken'] or s['corrupt'] else 'no', '%.1f' % t.get('p50', 0), '%.1f' % t.get('p99', 0), '%.2f' % (s['longest_stall_us'] / 1e3)])
    return table(svg, top, 'Removal and return as the program saw them', ['', 'messages', 'lost', 'twice', 'broken', 'p50 µs', 'p99 µs', 'longest silence ms'],
                 [250, 90, 60, 60, 70, 80, 80, 130], rows) + 38


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('files', nargs='+', help='what latency.py and failover.py wrote')
    p.add_argument('--out', default='report', metavar='PREFIX', help='write PREFIX.json and PREFIX.svg')
    p.add_argument('--title', default='libhvaccel: a socket program while its VF comes and goes')
    args = p.parse_args()
    latency, failover = None, []
    for name in args.files:
        try:
            with open(name) as f:
                data = json.load(f)
            kind = data['benchmark']
        except (OSError, ValueError, KeyError, TypeError) as e:
            sys.exit('report.py: %s is no result of latency.py or failover.py: %s' % (name, e))
        if kind == 'latency':
            latency = data
        else:
            failover.append(data)
    runs = [dict(r, how='' if f['setting']['surprise_ms'] is None else ', surprise') for f in failover for r in f['runs']
            if 'error' not in r and r['stream']['received']]
    machine = (latency or failover[0])['machine']

    svg = Svg()
    y = 40
    svg.text(LEFT, y, args.title, 20, weight='bold')
    y += 22
    svg.text(LEFT, y, 'Linux %s, %s, %d CPUs; both ends pinned; the VF is modelled by softvf in network namespaces. %s' % (
        machine['kernel'], machine['cpu'], machine['cpus'], machine['date']), 11, fill='#555555')
    y += 52
    for data in failover:
        good = [r for r in data['runs'] if 'error' not in r and r['stream']['received']]
        for kind, draw in (('latency', latency_panel), ('throughput', throughput_panel)):
            for protocol in ('tcp', 'udp'):
                group = sorted((r for r in good if r['kind'] == kind and r['protocol'] == protocol), key=lambda r: list(COLOUR).index(r['case']))
                if group:
                    y += draw(svg, y, group, protocol, data['setting']) + 44
    if latency:
        y += latency_tables(svg, y, latency)
    if runs:
        y += failover_table(svg, y, runs)
    with open(args.out + '.svg', 'w') as f:
        f.write(svg.document(int(y)))

    short = []
    for data in failover:
        for r in data['runs']:
            brief = {k: v for k, v in r.items() if k != 'stream'}
            if 'stream' in r:
                brief.update({k: v for k, v in r['stream'].items() if k not in ('messages', 'p50_us', 'p99_us', 'max_us')})
            short.append(dict(brief, setting=data['setting']))
    with open(args.out + '.json', 'w') as f:
        json.dump({'machine': machine, 'latency': latency and {k: latency[k] for k in ('unit', 'setting', 'cases', 'ratios')}, 'failover': short}, f, indent=1)
        f.write('\n')


main()
