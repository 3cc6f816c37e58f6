"""Guests that show what they are told to, and the pages that show them: Watari's own, and noVNC's through websockify."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from browser import Browser, busy, family
from lab import PLACE, Watari, inside_of, run, wait
from line import FAST, NEAR, Line

HERE = pathlib.Path(__file__).resolve().parent
NOVNC = "@novnc/novnc@1.7.0"
MEMORY = "32M"


def build_guest(folder):
    """The disk that `screen-guest` boots from."""
    boot, guest, image = (folder / name for name in ("boot.o", "guest.o", "guest.img"))
    source = HERE / "screen-guest"
    run("as", "--32", "-I", source, "-o", boot, source / "boot.S")
    run("gcc", "-m32", "-march=i386", "-mgeneral-regs-only", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pie",
        "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-c", "-o", guest, source / "guest.c")
    run("ld", "-m", "elf_i386", "-N", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image, boot, guest)
    # What boot.S loads, with itself.
    if image.stat().st_size > 65 * 512:
        raise SystemExit("the guest has become too large")
    os.truncate(image, 4 << 20)
    return image


def novnc():
    """Where noVNC is; fetched when it is needed first."""
    folder = PLACE / "novnc"
    if not (folder / "node_modules/@novnc/novnc").exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--no-audit", "--no-fund", "--prefix", folder, NOVNC)
    return folder / "node_modules/@novnc/novnc"


def end(process):
    """Ends a process that we started, and those that it did."""
    for pid in reversed(family(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


class Guest(threading.Thread):
    """A guest that runs. Keeps each character that it tells on its serial line, with when that came, to about a millisecond."""

    def __init__(self, qemu_pid, serial, log):
        super().__init__(daemon=True)
        self.qemu_pid, self.serial, self.log = qemu_pid, str(serial), log
        self.told, self.over = [], False
        self.start()
        self.tell("k", "K")

    def run(self):
        with open(self.log, "rb", buffering=0) as file:
            while not self.over:
                data, now = file.read(1 << 16), time.time() * 1e3
                self.told += [(chr(byte), now) for byte in data]
                time.sleep(0.001)

    def close(self):
        self.over = True

    def tell(self, what, answer):
        """Tells it what to show, and waits until it answers. Returns from where on it has told since."""
        place = len(self.told)
        with socket.socket(socket.AF_UNIX) as serial:
            serial.connect(self.serial)
            serial.sendall(f"{what}\n".encode())
            self.hears(place, answer)
        return place

    def hears(self, place, what):
        """Waits until it tells something, and returns when it did."""
        said = lambda: next((when for character, when in self.told[place:] if character == what), None)
        return wait(f"{what} of the guest", said)

    def pictures(self):
        """When each picture of the film that runs was drawn, in milliseconds since 1970."""
        told = self.told[:]
        began = max(place for place, (character, _) in enumerate(told) if character == "F")
        return [when for character, when in told[began:] if character == "."]


class Page:
    """A page that shows a guest, and the process that serves it, with those that it has started."""

    def __init__(self, url, guest, server):
        self.url, self.guest, self.server = url, guest, server

    def show(self, browser):
        """Opens it, and waits until it shows the guest. When that was."""
        browser.go(self.url)
        first = browser.evaluate("probe.first")
        time.sleep(1)
        return first

    def leave(self, browser):
        """Nobody looks any more."""
        browser.go("about:blank")
        time.sleep(0.5)

    def busy(self, browser):
        """Seconds that what shows it has worked, each part."""
        server = sum(busy(pid) for pid in family(self.server) if pid != self.guest.qemu_pid)
        return {"server": server, "browser": browser.busy(), "QEMU": busy(self.guest.qemu_pid)}


class Stage:
    """The same guest in Watari and in plain QEMU, and pages of them, at the near end of a line; at its far end a relay serves them.

    `pages` are Watari's, noVNC's of plain QEMU, of a plain QEMU whose VNC may be lossy, and of Watari's own QEMU.
    """

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(tempfile.mkdtemp())
            stack.callback(shutil.rmtree, self.folder)
            self.line = stack.enter_context(Line())
            self.line.be(FAST)
            self.image = build_guest(self.folder)
            self.begin(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def begin(self, stack):
        self.watari = watari = stack.enter_context(Watari(inside=self.line.near))
        watari("create", "m", "--image", self.image, "--memory", MEMORY)
        watari("start", "m")
        instance = watari.machine("m")["instance"]
        ours = stack.enter_context(contextlib.closing(Guest(instance["qemu_pid"], instance["serial"], watari.serial("m"))))
        plain = stack.enter_context(contextlib.closing(self.plain(stack, instance["accelerator"])))
        self.daemon = watari("up")["pid"]
        url = watari("screen", "m")["url"].replace("127.0.0.1", "localhost")
        self.ports = [int(url.split("/")[2].split(":")[1])]
        web = self.folder / "web"
        web.mkdir()
        shutil.copy(HERE / "screen-page/novnc.html", web)
        (web / "novnc").symlink_to(novnc())
        self.pages = {
            "Watari": Page(url, ours, self.daemon),
            "noVNC": self.vnc(stack, plain, self.folder / "vnc"),
            "lossy noVNC": self.vnc(stack, plain, self.folder / "lossy"),
            "noVNC of Watari's QEMU": self.vnc(stack, ours, instance["vnc"]),
        }
        relay = [sys.executable, HERE / "relay.py", NEAR, *self.ports]
        self.relay = self.start(stack, relay, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.relay.stdout.readline()

    def plain(self, stack, accelerator):
        """The guest in plain QEMU, with what of the machine it can tell."""
        serial, log = self.folder / "serial", self.folder / "serial.log"
        process = self.start(
            stack, ["qemu-system-x86_64", "-nodefaults", "-machine", "pc-q35-8.2", "-accel", accelerator, "-cpu", "qemu64", "-m", MEMORY,
                    "-display", "none", "-device", "VGA,vgamem_mb=16", "-drive", f"file={self.image},format=raw,if=virtio,snapshot=on",
                    "-chardev", f"socket,id=serial,path={serial},server=on,wait=off,logfile={log}", "-serial", "chardev:serial",
                    "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
                    "-vnc", f"unix:{self.folder}/vnc", "-vnc", f"unix:{self.folder}/lossy,lossy=on"])
        wait("plain QEMU", log.exists)
        return Guest(process.pid, serial, log)

    def vnc(self, stack, guest, socket):
        """noVNC's page of a VNC server."""
        port = self.ports[0] + len(self.ports)
        self.ports.append(port)
        command = ["websockify", "--web", self.folder / "web", f"127.0.0.1:{port}", f"--unix-target={socket}"]
        process = self.start(stack, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return Page(f"http://localhost:{port}/novnc.html", guest, process.pid)

    def start(self, stack, command, **options):
        """Starts a program at the near end."""
        command = [*inside_of(self.line.near), *map(str, command)]
        process = subprocess.Popen(command, start_new_session=True, **{"stdin": subprocess.DEVNULL, **options})
        stack.callback(end, process)
        return process

    def carried(self):
        """How many bytes the relay has carried, both ways."""
        self.relay.stdin.write("\n")
        self.relay.stdin.flush()
        return sum(map(int, self.relay.stdout.readline().split()))

    def screenshot(self, guest):
        """What QEMU says that a guest shows, as a PNG picture."""
        picture = self.folder / "screenshot.png"
        if guest is self.pages["Watari"].guest:
            self.watari("screenshot", "m", picture)
            return picture.read_bytes()
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as file:
            monitor.connect(f"{self.folder}/qmp")
            for command in ({"execute": "qmp_capabilities"}, {"execute": "screendump", "arguments": {"filename": str(picture), "format": "png"}}):
                file.write(json.dumps(command) + "\n")
                file.flush()
                while "return" not in json.loads(file.readline()):
                    pass
        return picture.read_bytes()

    def near(self):
        """A browser on the guests' computer."""
        return Browser(self.line.near, "127.0.0.1")

    def far(self, quality):
        """A browser at the other end of the line."""
        self.line.be(quality)
        return Browser(self.line.far, NEAR)
