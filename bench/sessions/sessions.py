#!/usr/bin/env python3
"""What a session costs the proxy in memory: one that its client keeps in a sealed cookie, and one in the table.

Every request is a session of its own, until there are a million. What the process has grown by then, once its allocator
has given back what it does not need, is divided by their number.

  cargo build --release -p weir
  bench/sessions/sessions.py            two minutes
  bench/sessions/sessions.py --check    no load

The table by itself, without a proxy around it: cargo bench -p lb-core --bench sessions
"""
import argparse
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "../compare"), os.path.join(HERE, "../resilience")]

import figures
import selfcheck
from load import generate, parse_wrk
from machine import Refused, raise_open_files, require_free
from stage import POOL_PORT, PORTS, Stage, manifest, metrics

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
SESSIONS = 1_000_000
LAP_SECONDS, LAPS_MAX = 5, 60
WARM_UP_SECONDS = 5
# More than the ten seconds after which the allocator gives memory back.
SETTLE_SECONDS = 12
BEGUN, ENTRIES = 'weir_sessions_total{result="new"}', "weir_session_table_entries"
KINDS = {
    "sessions.proxy.sealed": manifest("  sessionPersistence: { type: Cookie }\n"),
    "sessions.proxy.table": manifest(
        f"  sessionPersistence: {{ type: Header, sessionName: x-session, maxSessions: {SESSIONS}, idleTimeout: 1h }}\n"
    ),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="of each kind; the table has room for a million")
    parser.add_argument("--binaries", metavar="FOLDER", default=f"{REPOSITORY}/target/release")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    options = parser.parse_args()
    if options.sessions <= 0:
        parser.error("--sessions is above 0")
    return options


def measure(stage, pool, wanted):
    """Sessions that began, those that the table has in the end, and bytes that the proxy grew by."""
    with stage.samples(), stage.proxy(pool) as proxy:
        # The same load without the header, so that connections and buffers are there before.
        lap(WARM_UP_SECONDS)
        time.sleep(SETTLE_SECONDS)
        before, rest = metrics()[BEGUN], proxy.pss_bytes()
        for _ in range(LAPS_MAX):
            lap(LAP_SECONDS, "named")
            now = metrics()
            begun = now[BEGUN] - before
            if begun >= wanted:
                break
        else:
            raise Refused(f"Only {begun:.0f} sessions of {wanted} began in {LAPS_MAX * LAP_SECONDS} s.")
        time.sleep(SETTLE_SECONDS)
        return begun, now[ENTRIES], proxy.pss_bytes() - rest


def lap(seconds, *named):
    """A load of requests, each a session of its own."""
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", f"{HERE}/one_each.lua"]
    said = generate([*command, f"http://127.0.0.1:{POOL_PORT}/health", "--", *named])
    row = parse_wrk(said)
    if not row["requests"] or row["failed"]:
        raise Refused(f"wrk had {row['requests']:.0f} answers, and {row['failed']:.0f} failed: {said.strip()[-300:]}")


def lines(name, begun, entries, grown):
    """For each session that began, or where they are kept in a table, for each that it has."""
    yield figures.line(name, grown / (entries or begun), "bytes/session", 1)
    yield figures.line(f"{name}.begun", begun, "sessions")
    yield figures.line(f"{name}.kept", entries, "sessions")


def main():
    options = arguments()
    try:
        if options.check:
            sys.exit(selfcheck.check(sys.modules[__name__]))
        weir = f"{options.binaries}/weir"
        if not os.path.isfile(weir):
            raise Refused(f"There is no {weir}: cargo build --release -p weir")
        if not shutil.which("wrk"):
            raise Refused("wrk is not installed: apt-get install wrk")
        require_free(PORTS)
        raise_open_files()
        for name, pool in KINDS.items():
            with tempfile.TemporaryDirectory(prefix="weir-sessions-") as folder:
                for line in lines(name, *measure(Stage(weir, folder, 1), pool, options.sessions)):
                    print(line, flush=True)
    except Refused as why:
        sys.exit(f"sessions: {why}")


if __name__ == "__main__":
    main()
