"""A line between two network namespaces, of any rate and delay. Needs root, and the example program `link`."""

import ctypes
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile

from lab import WATARI, run, wait

NEAR, FAR = "10.77.0.1", "10.77.0.2"
#: Bits a second, and milliseconds there and back.
FAST = (10e9, 0)
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
#: TUN_F_CSUM, _TSO4, _TSO6, _USO4, _USO6
TUNSETOFFLOAD, OFFLOADS = 0x400454D0, 0x67
CLONE_NEWNET = 0x40000000


def tap_in(space, offloads):
    """A network card in a network namespace, of which whoever has the descriptor is the other end; whether that one cuts long frames."""
    libc, own = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{space}", os.O_RDONLY)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS if offloads else 0)
    finally:
        libc.setns(own, CLONE_NEWNET)
    os.close(own), os.close(there)
    return tap


class Line:
    """Two network namespaces, `near` and `far`, and a line between them that is as good as one likes.

    With `offloads` the line cuts what is sent into frames, as cards of 1 Gbit/s do; the computer carries more then.
    """

    def __init__(self, offloads=False):
        self.offloads = offloads
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.near, self.far = f"watari-near-{os.getpid()}", f"watari-far-{os.getpid()}"
        self.socket, self.process = socket.socket(socket.AF_UNIX), None

    def __enter__(self):
        try:
            self.lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def lay(self):
        taps = []
        for space, address in ((self.near, NEAR), (self.far, FAR)):
            run("ip", "netns", "add", space)
            taps.append(tap_in(space, self.offloads))
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "tap0")
            run("ip", "-n", space, "link", "set", "tap0", "up", "txqueuelen", "10000")
        path = self.folder / "link"
        self.process = subprocess.Popen([WATARI.parent / "examples/link", path], stdin=taps[0], stdout=taps[1])
        for tap in taps:
            os.close(tap)
        wait("the line", path.exists)
        self.socket.connect(str(path))
        self.answers = self.socket.makefile("r")

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()
        for space in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        shutil.rmtree(self.folder)

    def __call__(self, there=None, back=None):
        """Makes it like this from now on, each direction; what went over it so far."""
        self.socket.sendall(json.dumps({"there": there or {}, "back": back or {}}).encode() + b"\n")
        return json.loads(self.answers.readline())

    def be(self, quality):
        rate, round_trip = quality
        each = {"rate": rate, "delay_ms": round_trip / 2, "loss": 0, "open": True}
        self(each, each)

    def bytes(self):
        count = self()
        return count["there"]["bytes"] + count["back"]["bytes"]
