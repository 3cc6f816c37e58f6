"""Chromium without a window, told what to do over a pipe (the DevTools protocol), and what its processes cost."""

import json
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import tempfile
import time

from lab import PLACE, inside_of

#: What Chromium does not need here, and what would have it talk to others.
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1400,1000",
             # Who leaves a page does not watch any more.
             "--disable-features=BackForwardCache"]
PROBE = pathlib.Path(__file__).parent / "screen-page/probe.js"
HERTZ = os.sysconf("SC_CLK_TCK")


def status(pid):
    """What the kernel says of a process: its parent, and the seconds that it worked; nothing of one that is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / HERTZ


def busy(pid):
    """Seconds that a process has worked."""
    found = status(pid)
    return found[1] if found else 0


def family(pid):
    """A process and all that it has started, with what these have."""
    parents = {int(entry): found[0] for entry in os.listdir("/proc") if entry.isdigit() and (found := status(entry))}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


class Browser:
    """One page of a browser of its own, in a network namespace; `localhost` leads it to `address` there."""

    def __init__(self, inside, address):
        self.profile = tempfile.mkdtemp(prefix="chromium-", dir=PLACE)
        (told, self.tell), (self.hear, says) = os.pipe(), os.pipe()
        command = [*inside_of(inside), "chromium", *ARGUMENTS, f"--user-data-dir={self.profile}", "--remote-debugging-pipe",
                   f"--host-resolver-rules=MAP localhost {address}", "about:blank"]
        # It reads from descriptor 3 and writes to 4.
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{told} 4>&{says}', "-", *command], pass_fds=(told, says),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(told), os.close(says)
        os.set_blocking(self.hear, False)
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.hear, selectors.EVENT_READ)
        self.rest, self.count, self.session, self.events = b"", 0, None, []

    def __enter__(self):
        try:
            page = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
            self.session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
            self("Page.enable")
            # As if its window were the one in front.
            self("Emulation.setFocusEmulationEnabled", enabled=True)
            self("Page.addScriptToEvaluateOnNewDocument", source=PROBE.read_text())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for pid in reversed(family(self.process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        os.close(self.tell), os.close(self.hear)
        shutil.rmtree(self.profile, ignore_errors=True)

    def __call__(self, method, **parameters):
        """Has it do something, and returns its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        sent, count = json.dumps(message).encode() + b"\0", 0
        while count < len(sent):
            count += os.write(self.tell, sent[count:])
        answer = self.next(lambda heard: heard.get("id") == self.count)
        if "error" in answer:
            raise SystemExit(f"Chromium: {method}: {answer['error']['message']}")
        return answer["result"]

    def next(self, is_it, limit=180):
        """The next message that is it; others are events."""
        end = time.monotonic() + limit
        while True:
            message, found, rest = self.rest.partition(b"\0")
            if found:
                self.rest, heard = rest, json.loads(message)
                if is_it(heard):
                    return heard
                self.events.append(heard)
            elif self.ready.select(end - time.monotonic()):
                data = os.read(self.hear, 1 << 20)
                if not data:
                    raise SystemExit("Chromium has ended")
                self.rest += data
            elif time.monotonic() >= end:
                raise SystemExit("Chromium does not answer")

    def go(self, url):
        """Follows an address, and waits until the page is loaded."""
        self.events.clear()
        self("Page.navigate", url=url)
        is_loaded = lambda heard: heard.get("method") == "Page.loadEventFired"
        if not any(map(is_loaded, self.events)):
            self.next(is_loaded)

    def evaluate(self, expression):
        """The value of an expression; of a promise what becomes of it."""
        said = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise SystemExit(f"in the page: {expression}: {said['exceptionDetails'].get('exception', {}).get('description')}")
        return said["result"].get("value")

    def press(self, letter, held):
        """Presses a letter's key, and lets go of it after so many seconds."""
        what = {"code": f"Key{letter.upper()}", "key": letter, "windowsVirtualKeyCode": ord(letter.upper())}
        self("Input.dispatchKeyEvent", type="keyDown", text=letter, **what)
        time.sleep(held)
        self("Input.dispatchKeyEvent", type="keyUp", **what)

    def busy(self):
        """Seconds that its processes have worked."""
        return sum(map(busy, family(self.process.pid)))
