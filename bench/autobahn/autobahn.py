#!/usr/bin/env python3
"""Autobahn's WebSocket test suite against a server directly and through Weir: are the verdicts the same?

The server is `weir demo-backend`, which says everything back. What Autobahn finds wrong with it it finds wrong with it through a proxy too; what differs is the proxy's.

    python3 bench/autobahn/autobahn.py --wstest VENV/bin/wstest [--weir target/debug/weir] [--cases 1.* 2.*]

Autobahn 25.10.1 needs CPython 2.7:

    virtualenv==20.15.1 -p python2.7 VENV && VENV/bin/pip install autobahntestsuite==25.10.1
"""
import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

POOL = """apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: autobahn, namespace: default }}
spec:
  listeners:
    - {{ name: http, port: {listener}, protocol: HTTP }}
  rules:
    - backendSets: [{{ name: echo }}]
  backendSets:
    - name: echo
      static:
        backends: [{{ address: 127.0.0.1, port: {backend} }}]
"""

# Everything but 9.7 and 9.8 with many small messages of one socket, which measure time, and the larger of the 36 twins of
# compression in 12 and 13.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.*", "12.2.*", "13.1.*"]

# Seconds for a process to listen.
START_S = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port):
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nobody listens on port {port} after {START_S} s")


def run(wstest, weir, cases, folder):
    backend, listener, admin = free_port(), free_port(), free_port()
    (folder / "site").mkdir()
    (folder / "site/pool.yaml").write_text(POOL.format(listener=listener, backend=backend))
    servers = [("direct", backend), ("through", listener)]
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}"} for name, port in servers],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    processes = [
        # Not Autobahn's own echo: it refuses a Host with another port than its own.
        subprocess.Popen([weir, "demo-backend", "--listen", f"127.0.0.1:{backend}"], env=environment, **quiet),
        subprocess.Popen(
            [weir, "run", folder / "site", "--workers", "1", "--admin", f"127.0.0.1:{admin}"], env=environment, **quiet
        ),
    ]
    try:
        await_port(backend)
        await_port(listener)
        subprocess.run([wstest, "-m", "fuzzingclient", "-s", "spec.json"], check=True, **quiet)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return json.loads((folder / "reports/index.json").read_text())


def verdicts(report):
    return {case: (said["behavior"], said["behaviorClose"]) for case, said in report.items()}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--wstest", required=True, type=pathlib.Path)
    options.add_argument("--weir", default="target/debug/weir", type=pathlib.Path)
    options.add_argument("--cases", nargs="+", default=CASES)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(chosen.wstest.resolve(), chosen.weir.resolve(), chosen.cases, pathlib.Path(folder))
    direct, through = verdicts(report["direct"]), verdicts(report["through"])
    differ = sorted(case for case in direct | through if direct.get(case) != through.get(case))
    counts = {}
    for behaviour, _ in through.values():
        counts[behaviour] = counts.get(behaviour, 0) + 1
    print(f"{len(direct)} cases directly, {len(through)} through Weir: {counts}")
    for case in differ:
        print(f"{case}: {direct.get(case)} directly, {through.get(case)} through Weir")
    if differ or not direct:
        sys.exit("the verdicts differ" if differ else "no case was run")
    print("the verdicts are the same")


if __name__ == "__main__":
    main()
