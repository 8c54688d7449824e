"""`compare.py --check`: what can be wrong with the comparison before any load runs."""
import re
import shutil
import subprocess
import tempfile

import load
import peers
import report
from machine import Refused

WRK = """Running 4s test @ http://127.0.0.1:18104/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.87ms  130.06us   4.58ms   89.65%
    Req/Sec    74.91k     2.57k   77.92k    85.00%
  Latency Distribution
     50%  842.00us
     75%    0.91ms
     90%    0.99ms
     99%    1.32ms
  298216 requests in 4.00s, 361.94MB read
  Socket errors: connect 0, read 1, write 0, timeout 0
  Non-2xx or 3xx responses: 2
Requests/sec:  74531.85
Transfer/sec:     90.46MB
"""
H2LOAD = """finished in 4.00s, 41210.25 req/s, 43.11MB/s
requests: 164841 total, 165353 started, 164841 done, 164841 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 164840 2xx, 0 3xx, 0 4xx, 1 5xx
"""


def check():
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    expect(load.parse_wrk(WRK) == {"requests": 298216, "rate": 74531.85, "failed": 3, "p50": 0.842, "p99": 1.32}, "wrk's output is misread")
    read = load.parse_h2load(H2LOAD)
    expect((read["requests"], read["rate"], read["failed"]) == (164841, 41210.25, 1), "h2load's output is misread")
    listened = tuple(int(port) for port in re.findall(r"(?m)^ {6}port: (\d+)$", pool()))
    expect(listened == peers.WEIR_PORTS, f"bench/pool listens on {listened}, compare.py looks on {peers.WEIR_PORTS}")
    origins = tuple(int(port) for port in re.findall(r"(?m)^ {12}port: (\d+)$", pool()))
    expect(origins == peers.ORIGIN_PORTS, f"bench/pool forwards to {origins}, the origins are {peers.ORIGIN_PORTS}")
    figures_are_well_formed()
    docs = open(report.DOCS).read()
    expect(docs.count(report.BEGIN) == 1 and docs.count(report.END) == 1, "docs/benchmarks.md lacks its markers")
    configurations_are_accepted()
    print("compare: check passed")
    return 0


def figures_are_well_formed():
    results = report.Results()
    for peer, cpu in (("spike", 10.0), ("weir", 11.0)):
        results.add("h1", peer, {"cpu": cpu, "user": 2.0, "rate": 9e4, "failed": 0, "p50": 0.5, "p99": None})
        results.add("idle", peer, {"plain": 800.0, "rest": 4e6})
    lines = list(report.figures(results, ["h1", "idle"], ["spike", "weir"]))
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect("figure h1.weir.over_spike 1.10 x" in lines, f"the ratio is missing: {lines}")


def configurations_are_accepted():
    """NGINX and HAProxy read theirs, where they are installed; .ci/run installs both."""
    with tempfile.TemporaryDirectory(prefix="weir-compare-") as folder:
        run = peers.RunFolder(folder, None)
        tests = {
            "nginx": [["nginx", "-t", "-q", "-c", run.render(name, 18101, 18201)] for name in ("nginx.conf", "origin.conf")],
            "haproxy": [["haproxy", "-c", "-q", "-f", run.render("haproxy.cfg", 18102, 18202)]],
        }
        for program, commands in tests.items():
            if not shutil.which(program):
                print(f"compare: {program} is not installed; its configuration was not checked")
                continue
            for command in commands:
                done = subprocess.run(command, capture_output=True, text=True)
                expect(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")


def pool():
    return open(f"{peers.BENCH}/pool/pool.yaml").read()


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
