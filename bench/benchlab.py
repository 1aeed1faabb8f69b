"""What the measuring scripts share: a lab of their own, programs in it, and finding what was built. Python's standard library only."""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

VM, PEER = '10.77.0.2', '10.77.0.1'
PEER_MAC = '02:00:00:00:00:01'


def fail(text):
    sys.exit('%s: %s' % (os.path.basename(sys.argv[0]), text))


def arguments(text):
    """The options that all of them have."""
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument('--builddir', default='.', help='where the project was built')
    p.add_argument('--lib', help='libhvaccel.so (default: the one in the build directory); "none" measures the kernel alone')
    p.add_argument('--env', action='append', default=[], metavar='NAME=VALUE', help='environment of the accelerated programs; may be repeated')
    p.add_argument('--name', default='bench', help='name of the lab that is made for the run')
    p.add_argument('--mode', default='master', choices=['master', 'tc'], help='mode of the lab (see hvaccel-lab --help)')
    p.add_argument('--cpus', default='0,1', metavar='A,B', help='CPUs of client and server')
    p.add_argument('--out', help='write the results there, as JSON')
    return p


class Setup:
    """Paths and environment made of the options; complains before anything is started."""

    def __init__(self, args, programs):
        if os.geteuid():
            fail('needs root for network namespaces')
        self.build = os.path.abspath(args.builddir)
        self.lab = os.path.join(self.build, 'tools/hvaccel-lab')
        if not os.path.exists(self.lab):
            self.lab = shutil.which('hvaccel-lab') or fail('%s not found: build it, or say --builddir' % self.lab)
        self.programs = {}
        for name in programs:
            path = os.path.join(self.build, 'bench', name)
            self.programs[name] = path if os.path.exists(path) else shutil.which(name) or fail(
                '%s not found: %s' % (name, 'install sockperf' if name == 'sockperf' else 'make bench/' + name))
        self.lib = None
        if args.lib != 'none':
            lib = os.path.abspath(args.lib) if args.lib else os.path.join(self.build, '.libs/libhvaccel.so')
            if os.path.exists(lib):
                self.lib = lib
            elif args.lib:
                fail('%s not found' % args.lib)
            else:
                print('no %s: the kernel alone is measured' % lib, file=sys.stderr)
        self.extra = {}
        for e in args.env:
            if '=' not in e:
                fail("--env wants NAME=VALUE, not '%s'" % e)
            k, v = e.split('=', 1)
            self.extra[k] = v
        try:
            self.cpus = [int(c) for c in args.cpus.split(',')]
        except ValueError:
            self.cpus = []
        if len(self.cpus) != 2 or not set(self.cpus) <= os.sched_getaffinity(0):
            fail('--cpus wants two CPUs that may be used, not %s' % args.cpus)
        if self.cpus[0] == self.cpus[1]:
            print('both ends on one CPU: the figures are not comparable', file=sys.stderr)
        self.args = args


class Lab:
    """`with Lab(setup) as lab`: a lab that is gone afterwards whatever happens."""

    def __init__(self, setup, *options):
        self.setup = setup
        self.options = options
        self.scratch = None

    def run(self, *args):
        subprocess.run([self.setup.lab, '--name', self.setup.args.name, *args], check=True)

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.scratch = tempfile.mkdtemp(prefix='hvaccel-bench-')
        try:
            self.run('up', '--mode', self.setup.args.mode, *self.options)
        except subprocess.CalledProcessError:
            shutil.rmtree(self.scratch)
            fail('cannot make a lab')
        return self

    def __exit__(self, *_):
        self.run('down')
        shutil.rmtree(self.scratch)

    def summaries(self):
        """What the library said at the exit of the programs since the last call: the proof that it carried anything."""
        path, out = os.path.join(self.scratch, 'summary'), []
        if os.path.exists(path):
            with open(path) as f:
                for line in f:
                    try:
                        out.append(json.loads(line))
                    except ValueError:
                        out.append(line.strip())
            os.unlink(path)
        return out

    def popen(self, where, command, accelerated=False, cpu=None, **kw):
        env = dict(os.environ)
        for k in [k for k in env if k.startswith('HVACCEL_') or k == 'LD_PRELOAD']:
            del env[k]
        argv = list(command)
        if accelerated:
            # env(1) inside, so that only the measured program is preloaded and not the tools that start it
            extra = dict({'HVACCEL_SUMMARY': os.path.join(self.scratch, 'summary')}, **self.setup.extra)
            argv = ['env', 'LD_PRELOAD=' + self.setup.lib] + ['%s=%s' % kv for kv in extra.items()] + argv
        if cpu is not None:
            argv = ['taskset', '-c', str(cpu)] + argv
        return subprocess.Popen([self.setup.lab, '--name', self.setup.args.name, 'exec', where, '--'] + argv, env=env, **kw)


def wait_port(process, protocol, port, seconds=20):
    """Until a socket in the process's namespace waits at that port (a TCP port in TIME_WAIT is not one that listens)."""
    outer = os.readlink('/proc/self/ns/net')
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            fail('the server ended with status %d' % process.returncode)
        try:
            # the lab's start-up is a shell in the outer namespace: only what it becomes counts
            inside = os.readlink('/proc/%d/ns/net' % process.pid) != outer
            for family in ('', '6'):
                with open('/proc/%d/net/%s%s' % (process.pid, protocol, family)) as f:
                    sockets = [line.split() for line in f][1:]
                if inside and any(int(s[1].rsplit(':', 1)[1], 16) == port and (protocol == 'udp' or s[3] == '0A') for s in sockets):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    fail('no server on port %d after %d s' % (port, seconds))


def end(process):
    """Ask, then insist."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def read_steal():
    with open('/proc/stat') as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return v[7] if len(v) > 7 else 0, sum(v)


class Steal:
    """Share of CPU time that the hypervisor gave to others meanwhile: figures of a round with much of it say little."""

    def __init__(self):
        self.before = read_steal()

    def share(self):
        s, t = read_steal()
        return round((s - self.before[0]) / max(1, t - self.before[1]), 4)


def machine():
    model = 'unknown'
    with open('/proc/cpuinfo') as f:
        m = re.search(r'model name\s*:\s*(.*)', f.read())
        if m:
            model = m.group(1)
    return {'kernel': os.uname().release, 'arch': os.uname().machine, 'cpu': model, 'cpus': os.cpu_count(),
            'date': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}


def median(values):
    values = [v for v in values if v is not None]
    return round(statistics.median(values), 3) if values else None


def write(path, data):
    if path:
        with open(path + '.new', 'w') as f:
            json.dump(data, f, indent=1)
            f.write('\n')
        os.replace(path + '.new', path)
