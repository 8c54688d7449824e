#!/usr/bin/env python3
"""What one slow backend of ten costs, for each algorithm: the share of requests that are answered in time.

Nine sample backends answer at once, one after a second, which is also the time-out of requests. Health checks are off, so
that nothing but the choice of a backend keeps requests away from it. Requests are sent at a fixed rate, whatever becomes
of those before: clients that wait for an answer would send less while they hang on the slow one, and hide it.

  cargo build --release -p weir
  bench/slow-replica/slow_replica.py           all seven algorithms: two minutes
  bench/slow-replica/slow_replica.py --check   no load: what needs no build

What the figures mean, and what they do not: docs/benchmarks.md.
"""
import argparse
import asyncio
import os
import random
import sys
import tempfile
import time

# How processes are started and ended is the same as in the comparison.
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../compare"))

import selfcheck
from machine import Refused, Running, listens, require_free

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
POOL_PORT, SLOW_PORT = 18191, 19011
FAST_PORTS = range(19012, 19021)
# Of the slow backend and of requests. The client looks too: the proxy's deadlines are met up to 200 ms late, so it still
# gives a 200 to most of these.
TIMEOUT_SECONDS = 1
ALGORITHMS = ("LeastRequest", "RoundRobin", "Random", "LeastConnections", "LeastResponseTime", "PeakEwma", "ConsistentHash")
KEYS = 1000
# Far past the time-out: nobody waits for what is lost.
ANSWER_SECONDS_MAX = 5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15, help="for each algorithm")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binaries", metavar="FOLDER", default=f"{REPOSITORY}/target/release")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    options = parser.parse_args()
    options.algorithms = options.algorithms.split(",")
    unknown = [name for name in options.algorithms if name not in ALGORITHMS]
    if unknown or options.rate <= 0 or options.seconds <= 0:
        parser.error(f"--rate and --seconds are above 0, --algorithms some of {','.join(ALGORITHMS)}")
    return options


def manifest(algorithm):
    """The pool: ten backends, and everything but the algorithm and the time-out at its default."""
    key = ", consistentHash: { key: Header, name: x-key }" if algorithm == "ConsistentHash" else ""
    backends = "".join(f"          - {{ address: 127.0.0.1, port: {port} }}\n" for port in (SLOW_PORT, *FAST_PORTS))
    return f"""apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: slow-replica, namespace: default }}
spec:
  timeouts: {{ request: {TIMEOUT_SECONDS}s }}
  listeners: [{{ name: http, port: {POOL_PORT}, protocol: HTTP }}]
  rules: [{{ backendSets: [{{ name: ten }}] }}]
  loadBalancing: {{ algorithm: {algorithm}{key} }}
  backendSets:
    - name: ten
      static:
        backends:
{backends}"""


def figure_name(algorithm):
    """PeakEwma is `peak-ewma` in a figure's name."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in algorithm).lstrip("-")


def figures(algorithm, answered):
    """Lines `figure NAME VALUE UNIT`, of whether each request was answered."""
    name = f"slow-replica.{figure_name(algorithm)}"
    yield f"figure {name}.success {100 * sum(answered) / len(answered):.2f} %"
    yield f"figure {name}.requests {len(answered)} requests"


async def ask(key):
    """Whether a request over a connection of its own is answered 200 in time."""
    writer, sent = None, time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", POOL_PORT)
            writer.write(f"GET / HTTP/1.1\r\nHost: bench\r\nX-Key: {key}\r\nConnection: close\r\n\r\n".encode())
            is_good = (await reader.read()).startswith(b"HTTP/1.1 200 ")
            return is_good and time.monotonic() - sent < TIMEOUT_SECONDS
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def send(options):
    """Requests at moments of a Poisson process; for each, whether it was answered."""
    chance = random.Random(options.seed)
    clock = asyncio.get_running_loop().time
    at, end, tasks = clock(), clock() + options.seconds, []
    while at < end:
        await asyncio.sleep(max(0, at - clock()))
        tasks.append(asyncio.create_task(ask(chance.randrange(KEYS))))
        at += chance.expovariate(options.rate)
    return list(await asyncio.gather(*tasks))


def backends(weir, folder):
    """Ten backends in two processes, once all of them listen."""
    listens_on = [flag for port in FAST_PORTS for flag in ("--listen", f"127.0.0.1:{port}")]
    fast = Running("the fast backends", [weir, "demo-backend", *listens_on], None, f"{folder}/fast.log")
    slow_command = [weir, "demo-backend", "--listen", f"127.0.0.1:{SLOW_PORT}", "--delay", f"{TIMEOUT_SECONDS}s"]
    slow = Running("the slow backend", slow_command, None, f"{folder}/slow.log")
    return [fast, slow]


def measure(algorithm, weir, folder, options):
    """One algorithm, in a proxy of its own."""
    pool = f"{folder}/{algorithm}"
    os.mkdir(pool)
    with open(f"{pool}/pool.yaml", "w") as file:
        file.write(manifest(algorithm))
    command = [weir, "run", pool, "--workers", "1", "--admin", "127.0.0.1:0"]
    proxy = Running("weir", command, None, f"{folder}/{algorithm}.log")
    try:
        proxy.wait_until(lambda: listens(POOL_PORT))
        return asyncio.run(send(options))
    finally:
        proxy.stop()


def main():
    options = arguments()
    try:
        if options.check:
            sys.exit(selfcheck.check(sys.modules[__name__]))
        weir = f"{options.binaries}/weir"
        if not os.path.isfile(weir):
            raise Refused(f"There is no {weir}: cargo build --release -p weir")
        require_free([POOL_PORT, SLOW_PORT, *FAST_PORTS])
        with tempfile.TemporaryDirectory(prefix="weir-slow-replica-") as folder:
            running = backends(weir, folder)
            try:
                for process, ports in zip(running, (FAST_PORTS, [SLOW_PORT])):
                    process.wait_until(lambda: all(listens(port) for port in ports))
                for algorithm in options.algorithms:
                    for line in figures(algorithm, measure(algorithm, weir, folder, options)):
                        print(line, flush=True)
            finally:
                for process in running:
                    process.stop()
    except Refused as why:
        sys.exit(f"slow-replica: {why}")


if __name__ == "__main__":
    main()
