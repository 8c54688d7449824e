"""What every experiment is played on: origins, a proxy before them, and the ports of both."""
import asyncio
import contextlib
import os
import sys
import urllib.request

from clients import direct, open_loop
from figures import parse_metrics
from machine import Running, listens

HERE = os.path.dirname(os.path.abspath(__file__))
POOL_PORT, CONTROL_PORT, ADMIN_PORT = 18192, 19048, 19049
ORIGIN_PORTS = (19031, 19032, 19033)
PORTS = (POOL_PORT, CONTROL_PORT, ADMIN_PORT, *ORIGIN_PORTS)
SCRAPE_SECONDS_MAX = 5


class Stage:
    """The built command, and a folder for manifests and logs. Whatever is started here ends with its `with`."""

    def __init__(self, weir, folder, seed):
        self.weir, self.folder, self.seed = weir, folder, seed

    @contextlib.contextmanager
    def origins(self, *flags):
        """Origins that can be told to fail."""
        ports = [str(port) for port in ORIGIN_PORTS]
        command = [sys.executable, f"{HERE}/origins.py", "--control", str(CONTROL_PORT), "--ports", *ports]
        with self.running("the origins", [*command, *map(str, flags)], (CONTROL_PORT, *ORIGIN_PORTS)):
            yield

    @contextlib.contextmanager
    def samples(self):
        """Weir's own sample backends, which speak HTTP/1.1 and HTTP/2 and never hang up."""
        listen = [flag for port in ORIGIN_PORTS for flag in ("--listen", f"127.0.0.1:{port}")]
        with self.running("the sample backends", [self.weir, "demo-backend", *listen], ORIGIN_PORTS):
            yield

    @contextlib.contextmanager
    def proxy(self, manifest):
        """One worker, with nothing but this manifest; gives the process."""
        pool = f"{self.folder}/pool"
        os.makedirs(pool, exist_ok=True)
        with open(f"{pool}/pool.yaml", "w") as file:
            file.write(manifest)
        command = [self.weir, "run", pool, "--workers", "1", "--admin", f"127.0.0.1:{ADMIN_PORT}"]
        with self.running("weir", command, (POOL_PORT, ADMIN_PORT)) as process:
            yield process

    @contextlib.contextmanager
    def running(self, name, command, ports):
        process = Running(name, command, None, f"{self.folder}/{name.replace(' ', '-')}.log")
        try:
            process.wait_until(lambda: all(listens(port) for port in ports))
            yield process
        finally:
            process.stop()


async def outage(rate, seconds, failure, seed):
    """Open-loop load at so many requests a second, before, while and after all origins fail in this way, each for so many
    seconds: the answers, the arrivals at the origins, and when these began to fail and served again."""
    before, out, after = seconds
    load = asyncio.create_task(open_loop(POOL_PORT, rate, before + out + after, seed))
    await asyncio.sleep(before)
    _, failed_at = await direct(CONTROL_PORT, do="fail", **failure)
    await asyncio.sleep(out)
    _, back_at = await direct(CONTROL_PORT, do="serve")
    answers = await load
    report, _ = await direct(CONTROL_PORT, do="report")
    return answers, report["arrivals"], failed_at, back_at


def metrics():
    """The proxy's metrics now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/metrics", timeout=SCRAPE_SECONDS_MAX) as scrape:
        return parse_metrics(scrape.read().decode())


def manifest(settings="", of_set=""):
    """A pool over the origins with these settings of the pool and of its one set, and all else at its default."""
    backends = "".join(f"          - {{ address: 127.0.0.1, port: {port} }}\n" for port in ORIGIN_PORTS)
    return f"""apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: {{ name: resilience, namespace: default }}
spec:
  listeners: [{{ name: http, port: {POOL_PORT}, protocol: HTTP }}]
  rules: [{{ backendSets: [{{ name: origins }}] }}]
{settings}  backendSets:
    - name: origins
{of_set}      static:
        backends:
{backends}"""
