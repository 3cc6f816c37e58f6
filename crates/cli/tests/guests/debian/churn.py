#!/usr/bin/env python3
"""Work for a file system whose result can be checked: in the guest that does it, and on a snapshot of its disk.

churn.py work FOLDER SEED   transactions in two SQLite databases, files made, moved and removed, for ever. Prints
                            `COMMIT n.` once transaction n is durable, and between `CHECKING n.` and `CHECKED n.` a line
                            `WRONG …` for whatever the file system does not give back as it was written.
churn.py check FOLDER       checks once what a disk without power would hold, and prints `COUNTERS n n n`: the last
                            transaction in the databases and the one that the file `counter` names.

Runs with Debian's python3-minimal, which has no sqlite3 module: so the databases are used through `sqlite3`.
"""

import fcntl
import hashlib
import os
import random
import subprocess
import sys
import time

DATABASES = {"log.db": "WAL", "journal.db": "DELETE"}
CHECK_EVERY = 10
BUCKETS = 7
# Rows and files that are kept before older ones go.
ROWS, FILES = 300, 60
FOLDERS = ["a", "b", "b/c", "d"]
# tcdrain(3), as Linux has it: there is no module termios either.
TCSBRK, DRAIN = 0x5409, 1
FILLER = "printf('%0600d', n * 7919)"

SCHEMA = f"""
CREATE TABLE entries (n INTEGER PRIMARY KEY, amount INTEGER, filler TEXT);
CREATE TABLE totals (bucket INTEGER PRIMARY KEY, amount INTEGER, entries INTEGER);
CREATE TABLE counter (n INTEGER);
INSERT INTO totals SELECT value, 0, 0 FROM generate_series(0, {BUCKETS - 1});
INSERT INTO counter VALUES (0);
"""
# What must be so after each transaction: totals are those of the entries, entries have no gap and end at the counter.
INVARIANTS = f"""
PRAGMA integrity_check;
SELECT 'totals', count(*) FROM totals WHERE (amount, entries) IS NOT
  (SELECT coalesce(sum(amount), 0), count(*) FROM entries WHERE n % {BUCKETS} = bucket);
SELECT 'fillers', count(*) FROM entries WHERE filler != {FILLER};
SELECT 'gaps', coalesce(max(n) - min(n) + 1 - count(*), 0) FROM entries;
SELECT 'end', coalesce(max(n), 0) - (SELECT n FROM counter) FROM entries;
SELECT n FROM counter;
"""
HOLDS = ["ok", "totals|0", "fillers|0", "gaps|0", "end|0"]


class Database:
    """A process of `sqlite3` that is told one statement after the other."""

    def __init__(self, path):
        self.process = subprocess.Popen(["sqlite3", "-batch", path], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __call__(self, statements):
        """The lines it answers."""
        self.process.stdin.write(f"{statements}\n.print done\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) != "done\n":
            if not line:
                raise OSError(f"sqlite3 ended: {lines}")
            lines.append(line.strip())
        return lines

    def change(self, statements):
        answer = self(statements)
        if answer:
            raise OSError(f"sqlite3: {answer}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def transaction(n, amount):
    statements = ["BEGIN IMMEDIATE;",
                  f"INSERT INTO entries SELECT n, {amount}, {FILLER} FROM (SELECT {n} AS n);",
                  f"UPDATE totals SET amount = amount + {amount}, entries = entries + 1 WHERE bucket = {n % BUCKETS};"]
    if n % 50 == 0:
        old = f"FROM entries WHERE n < {n - ROWS} AND n % {BUCKETS} = bucket"
        statements += [f"UPDATE totals SET amount = amount - (SELECT coalesce(sum(amount), 0) {old}), "
                       f"entries = entries - (SELECT count(*) {old});",
                       f"DELETE FROM entries WHERE n < {n - ROWS};"]
    return "\n".join(statements + [f"UPDATE counter SET n = {n};", "COMMIT;"])


def check_database(path):
    """The last transaction in it, and what is wrong."""
    database = Database(path)
    *found, last = database(INVARIANTS)
    database.close()
    return last, [] if found == HOLDS else [f"{os.path.basename(path)}: {found}"]


def content(name):
    """What a file must hold follows from its name, KIND-NUMBER-SIZE."""
    _, number, size = os.path.basename(name).split("-")
    return hashlib.shake_128(number.encode()).digest(int(size))


def put(path, data, durable=True):
    """Replaces a file as a whole; durably with its name."""
    folder = os.path.dirname(path)
    with open(f"{folder}/unfinished", "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.rename(f"{folder}/unfinished", path)
    if durable:
        sync_folder(folder)


def sync_folder(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def listed(folder):
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


def check_files(names):
    """Those that do not hold what they must."""
    wrong = []
    for name in sorted(names):
        with open(name, "rb") as file:
            found = file.read()
        if found != content(name):
            wrong.append(f"{name}: {len(found)} bytes, not what was written")
    return wrong


class Files:
    """Files in folders, all of them remembered."""

    def __init__(self, root, chance):
        self.root, self.chance, self.names, self.nameless = root, chance, set(), []
        for folder in FOLDERS:
            os.makedirs(f"{root}/{folder}", exist_ok=True)

    def hold_nameless(self, n):
        """A file that is removed and goes on to exist for as long as it is open: an orphan, should the power fail."""
        name = f"{self.root}/nameless-{n}-9000"
        put(name, content(name))
        self.nameless = [*self.nameless[-2:], (name, open(name, "rb"))]
        os.remove(name)

    def wrong(self):
        """What is not as it was written."""
        wrong = [] if listed(self.root) == self.names else ["the folders do not list what is in them"]
        for name, file in self.nameless:
            file.seek(0)
            if file.read() != content(name):
                wrong.append(f"{name}, which is open, does not hold what was written")
        return wrong + check_files(self.names)

    def step(self, n):
        chance = self.chance
        if n % 5 == 1:
            self.hold_nameless(n)
        place = f"{self.root}/{chance.choice(FOLDERS)}"
        kind = chance.choice(["kept", "loose"])
        name = f"{place}/{kind}-{n}-{chance.choice([0, 100, 4096, chance.randrange(60000)])}"
        put(name, content(name), kind == "kept")
        self.names.add(name)
        moved = chance.choice(sorted(self.names))
        target = f"{self.root}/{chance.choice(FOLDERS)}/{os.path.basename(moved)}"
        os.rename(moved, target)
        self.names = self.names - {moved} | {target}
        while len(self.names) > chance.choice([FILES // 2, FILES, FILES]):
            gone = chance.choice(sorted(self.names))
            os.remove(gone)
            self.names.remove(gone)
        nested = f"{self.root}/nested-{n}/deep/er"
        os.makedirs(nested)
        for step in range(3):
            os.rmdir(nested)
            nested = os.path.dirname(nested)


def say(line):
    """Prints, and waits until it is on the line, so that whoever listens is at most one line behind."""
    print(line, flush=True)
    fcntl.ioctl(1, TCSBRK, DRAIN)


def check_live(n, folder, files):
    say(f"CHECKING {n}.")
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    wrong = files.wrong()
    for name in DATABASES:
        last, problems = check_database(f"{folder}/{name}")
        wrong += problems if int(last) == n else problems + [f"{name} is at {last}"]
    kernel = subprocess.run(["dmesg"], text=True, capture_output=True, check=True).stdout.splitlines()
    signs = ["EXT4-fs error", "EXT4-fs warning", "JBD2:", "I/O error", "Call Trace"]
    wrong += [line for line in kernel if any(sign in line for sign in signs)]
    for problem in wrong:
        say(f"WRONG at {n}: {problem}")
    say(f"CHECKED {n}.")


def work(folder, seed):
    chance = random.Random(seed)
    os.makedirs(folder)
    files = Files(f"{folder}/files", chance)
    databases = []
    for name, mode in DATABASES.items():
        databases.append(Database(f"{folder}/{name}"))
        databases[-1](f"PRAGMA journal_mode = {mode}; PRAGMA wal_autocheckpoint = 60;")
        databases[-1].change(f"PRAGMA synchronous = FULL; BEGIN; {SCHEMA} COMMIT;")
    os.sync()
    n = 0
    while True:
        n += 1
        for database in databases:
            database.change(transaction(n, chance.randrange(-1000, 1000)))
        put(f"{folder}/counter", str(n).encode())
        files.step(n)
        say(f"COMMIT {n}.")
        if n % CHECK_EVERY == 0:
            check_live(n, folder, files)
        time.sleep(0.01)


def check(folder):
    counters, wrong = [], []
    for name in DATABASES:
        last, problems = check_database(f"{folder}/{name}")
        counters.append(last)
        wrong += problems
    with open(f"{folder}/counter") as file:
        counters.append(file.read())
    wrong += check_files(name for name in listed(f"{folder}/files") if os.path.basename(name).startswith("kept-"))
    print("\n".join(wrong + [f"COUNTERS {' '.join(counters)}"]))
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(sys.argv[2])
    try:
        work(sys.argv[2], int(sys.argv[3]))
    except Exception as error:
        say(f"WRONG: {error!r}")
        raise
