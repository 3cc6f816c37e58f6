"""What the benchmarks share: a Watari home of their own, plain QEMU beside it, and numbers."""

import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A long run is better done with a copy, which nobody builds anew.
WATARI = pathlib.Path(os.environ.get("WATARI", ROOT / "target/release/watari"))
# On the disk that a home is on, not on tmpfs.
PLACE = pathlib.Path(os.environ.get("WATARI_BENCH", ROOT / "target/bench"))


def wait(what, answer, limit=180):
    """Asks again and again until there is an answer."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = answer()
        if found:
            return found
        time.sleep(0.02)
    raise SystemExit(f"waited in vain for {what}")


def last_number(path, word):
    """The last complete `WORD n` in a file."""
    try:
        text = pathlib.Path(path).read_bytes()[-65536:]
    except FileNotFoundError:
        return None
    found = re.findall(word.encode() + rb" ?(\d+).*\n", text)
    return int(found[-1]) if found else None


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values):
    return statistics.median(values)


def pss_kib(pid):
    """Proportional memory of a process: what it has alone, and its share of what it shares."""
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options).stdout


def inside_of(space):
    """What to put before a command that is to run in a network namespace."""
    return ["ip", "netns", "exec", space] if space else []


class Watari:
    """A home in a temporary folder, with its daemon, which may be in a network namespace."""

    def __init__(self, keep=False, inside=None):
        self.program = [*inside_of(inside), WATARI]
        PLACE.mkdir(parents=True, exist_ok=True)
        self.home, self.keep = pathlib.Path(tempfile.mkdtemp(prefix="h", dir=PLACE)), keep

    def __enter__(self):
        self("up")
        return self

    def __exit__(self, *_):
        subprocess.run([*self.program, "down", "--machines", "--json"], env=self.env(), capture_output=True)
        if not self.keep:
            shutil.rmtree(self.home, ignore_errors=True)

    def env(self):
        return dict(os.environ, WATARI_HOME=str(self.home))

    def __call__(self, *arguments):
        done = subprocess.run([*self.program, *map(str, arguments), "--json"], env=self.env(), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"watari {arguments}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def serial(self, name):
        return self.home / "machines" / name / "serial.log"

    def machine(self, name):
        return next(m for m in self("list")["machines"] if m["name"] == name)


class Qemu:
    """Plain QEMU with the same kernel, memory and devices that matter; `drive` says what its disk is."""

    def __init__(self, folder, boot, memory, drive, append, *more, inside=None):
        self.folder = pathlib.Path(folder)
        self.log = self.folder / "serial.log"
        qmp = self.folder / "qmp"
        self.process = subprocess.Popen(
            [*inside_of(inside), "qemu-system-x86_64", *more, "-nodefaults", "-machine", "pc-q35-8.2", "-accel", "tcg", "-cpu", "qemu64",
             "-m", memory, "-display", "none", "-device", "VGA", "-serial", "chardev:serial",
             "-chardev", f"socket,id=serial,path={self.folder}/serial,server=on,wait=off,logfile={self.log}",
             "-qmp", f"unix:{qmp},server=on,wait=off", "-kernel", str(boot / "kernel"), "-initrd", str(boot / "initrd"),
             "-append", append, "-drive", f"{drive},if=none,id=d0,discard=unmap",
             "-object", "iothread,id=io0", "-device", "virtio-blk-pci,drive=d0,iothread=io0", "-device", "virtio-rng-pci", "-netdev", "user,id=n0",
             "-device", "virtio-net-pci,netdev=n0"],
            stdin=subprocess.DEVNULL, start_new_session=True)
        self.socket = socket.socket(socket.AF_UNIX)
        wait("QEMU's monitor", lambda: self.connect(qmp))
        self.file = self.socket.makefile("rwb")
        self.events = []
        self.file.readline()
        self("qmp_capabilities")

    def connect(self, path):
        try:
            self.socket.connect(str(path))
            return True
        except OSError:
            return False

    def __call__(self, command, **arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise SystemExit(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait_for(self, event, limit, **data):
        """Waits for an event, which may have come already."""
        self.socket.settimeout(limit)
        is_it = lambda e: e["event"] == event and all(e["data"].get(key) == value for key, value in data.items())
        while not any(map(is_it, self.events)):
            answer = json.loads(self.file.readline())
            if answer.get("event") == "MIGRATION" and answer["data"]["status"] == "failed":
                raise SystemExit("migration failed")
            self.events.append(answer)
        self.socket.settimeout(None)

    def time_of(self, event):
        """When it came last, in milliseconds."""
        self("query-status")
        stamp = next(e["timestamp"] for e in reversed(self.events) if e["event"] == event)
        return stamp["seconds"] * 1e3 + stamp["microseconds"] / 1e3

    def type(self, text):
        """Types into the serial console."""
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.folder / "serial"))
            console.sendall(text.encode())
            # QEMU takes it in its own time.
            time.sleep(1)

    def hmp(self, line):
        return self("human-monitor-command", command_line=line)

    def held_ms(self, work):
        """How long the guest was held while `work` ran, and how long that took."""
        self("query-status")
        self.events.clear()
        began = time.monotonic()
        work()
        total = (time.monotonic() - began) * 1e3
        self("query-status")
        stamp = lambda e: e["timestamp"]["seconds"] * 1e3 + e["timestamp"]["microseconds"] / 1e3
        held, since = 0, None
        for event in self.events:
            if event["event"] == "STOP":
                since = stamp(event)
            elif event["event"] == "RESUME" and since is not None:
                held, since = held + stamp(event) - since, None
        return held, total

    def migrate_to(self, path):
        """A whole migration into a file, whatever the capabilities say."""
        self("migrate", uri=f"file:{path}")
        def over():
            status = self("query-migrate").get("status")
            if status == "failed":
                raise SystemExit("migration failed")
            return status == "completed"
        wait("the migration", over)

    def close(self):
        self.process.kill()
        self.process.wait()


class Table:
    """Rows of what was measured, what it is compared with, and the bound."""

    def __init__(self):
        self.rows = []

    def add(self, what, ours, theirs="", ratio=None, bound="", holds=None):
        shown = "" if ratio is None else f"{ratio:.3g} ×"
        verdict = "" if holds is None else ("holds" if holds else "**misses**")
        self.rows.append((what, ours, theirs, shown, bound, verdict))
        print(f"  {what}: {ours} {theirs and '| ' + theirs} {shown and '| ' + shown} {bound and '| ' + bound} {verdict}",
              file=sys.stderr, flush=True)

    @classmethod
    def run(cls, parts, chosen, *options):
        """Measures the chosen parts, or all, and prints them."""
        table = cls()
        for part in chosen or parts:
            print(f"{part}: {parts[part].__doc__}", file=sys.stderr)
            parts[part](table, *options)
        cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
        version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
        print(f"{os.cpu_count()} × {cpu}, Linux {os.uname().release}, {version}\n")
        table.print()

    def print(self):
        print("| what | Watari | beside it | ratio | bound | |\n| --- | --- | --- | --- | --- | --- |")
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


def mib(n):
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"
