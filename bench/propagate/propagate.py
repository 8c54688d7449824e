#!/usr/bin/env python3
"""From the API server's answer to a change of an EndpointSlice to the first answer of the new backend.

A real kube-apiserver over etcd, a real weir-controller that watches it, a real weir-proxy that follows the controller,
and two origins. One service has one endpoint, which is swapped again and again while a prober asks the proxy. With
more proxies, three of them serve and are asked, and the others follow as these do, in one process; the time is then that
of the last of all. All of it is started here, in a network namespace of its own, and ended again.

  cargo build --release -p weir --bins --examples
  bench/propagate/propagate.py                                             one service: a minute
  bench/propagate/propagate.py --services 1000 --endpoints 10 --churn 50   in a full cluster: three minutes
  bench/propagate/propagate.py --services 1000 --churn 50 --proxies 100    to the last of many proxies: four minutes
  bench/propagate/propagate.py --check                                     no load: what needs neither cluster nor build

What the figures mean, and what they do not: docs/benchmarks.md.
"""
import argparse
import http.client
import multiprocessing
import os
import random
import sys
import tempfile
import time

# How processes are started and ended is the same as in the comparison.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../compare"))

import cluster
import figures
import fleet
import network
import objects
import probe
import rotation
import selfcheck
from machine import Refused, Running, listens
from peers import bench_certificate

SWAPS, WARM_UP_SWAPS = 100, 2
# A thousand services one by one, also for unoptimized programs on a busy machine.
SETTLE_SECONDS_MAX = 400
CHURN_SETTLE_SECONDS = 2
# The controller is gone for this long, where there are light proxies to count what it then sends.
AWAY_SECONDS = 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=SWAPS, help="before the route change, and as many after it")
    parser.add_argument("--services", type=int, default=0, help="other services, each with a LoadBalancerPool")
    parser.add_argument("--endpoints", type=int, default=10, help="of each other service")
    parser.add_argument("--churn", type=float, default=0, help="changes of other EndpointSlices a second")
    parser.add_argument("--proxies", type=int, default=1, help="that follow the controller; 3 of them serve, if so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binaries", metavar="FOLDER", default=f"{cluster.REPOSITORY}/target/release")
    parser.add_argument("--write-docs", action="store_true", help="rewrite this run's rows in docs/benchmarks.md")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    options = parser.parse_args()
    if options.churn and not options.services:
        parser.error("--churn changes other services: give --services too")
    if not 1 <= options.proxies <= 1000:
        parser.error("--proxies may be 1 to 1,000")
    # Half of the made-up addresses are spare, for the changes.
    if options.services * options.endpoints > 32_768 or not 1 <= options.endpoints <= 1000:
        parser.error("the other services may have 32,768 endpoints together, and 1 to 1,000 each")
    return options


def origins(folder):
    """Two backends that say who they are: their address is the body of every answer."""
    servers = "".join(
        f'server {{ listen {address}:{objects.BACKEND_PORT}; location / {{ return 200 "{address}\\n"; }} }}\n'
        for address in (network.ONE, network.OTHER)
    )
    configuration = f"""user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
access_log off; keepalive_requests 1000000; client_body_temp_path {folder}; proxy_temp_path {folder};
fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
{servers}}}
"""
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(configuration)
    return Running("the origins", ["nginx", "-c", f"{folder}/nginx.conf"], None, f"{folder}/nginx.log")


def wait_for(what, holds):
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise Refused(f"After {SETTLE_SECONDS_MAX} s still not so: {what}.")
        time.sleep(0.05)


def settle(options):
    """Waits until every proxy serves everything that was made; for how many seconds."""
    began = time.monotonic()
    for address in fleet.real_addresses(options.proxies):
        measured = probe.Probe(address)
        wait_for("the measured service is served", lambda: measured.ask().name == network.ONE)
        measured.close()
        for number in range(options.services):
            name, host = objects.other(number)
            asked = probe.Probe(address, host)
            # Nothing listens on its endpoints: served is what has a route, whatever comes of it.
            wait_for(f"{name} is served", lambda: asked.ask().status not in (0, 404))
            asked.close()
    return time.monotonic() - began


class Bench:
    """What measures, beside what is measured."""

    def __init__(self, control, weir, options):
        self.control, self.weir, self.options = control, weir, options
        self.client = control.client()
        self.chance = random.Random(options.seed)
        self.at, self.next = network.ONE, network.OTHER
        self.processes = []
        poll_ns = probe.POLL_OF_MANY_NS if weir.light else probe.POLL_NS
        self.asking = [self.begin(probe.serve, address, poll_ns) for address in fleet.real_addresses(options.proxies)]
        self.watching = self.begin(probe.watch, control, f"{objects.SLICES}?watch=1&fieldSelector=metadata.name%3D{objects.NAME}")
        self.stop_churn, self.changes = multiprocessing.Event(), multiprocessing.Value("l", 0)

    def begin(self, work, *arguments):
        here, there = multiprocessing.Pipe()
        process = multiprocessing.Process(target=work, args=(*arguments, there), daemon=True)
        process.start()
        self.processes.append(process)
        return here

    def churn(self):
        process = multiprocessing.Process(
            target=objects.churn, args=(self.control, self.options, self.stop_churn, self.changes), daemon=True
        )
        process.start()
        self.processes.append(process)
        time.sleep(CHURN_SETTLE_SECONDS)

    def swaps(self):
        """Swaps the backend many times; a row of figures."""
        for _ in range(WARM_UP_SWAPS):
            self.swap()
        cost = figures.Cost(self.weir, self.changes)
        return figures.Row([self.swap() for _ in range(self.options.swaps)], cost.since())

    def swap(self):
        for asking in self.asking:
            asking.send(self.next)
        for asking in self.asking:
            asking.recv()
        # So that the change falls on any moment between two requests.
        time.sleep(0.01 + self.chance.random() * 0.01)
        sent, answered = objects.swap(self.client, self.next)
        samples = [[sample for sample in asking.recv() if sample.answered >= sent] for asking in self.asking]
        swap = figures.Swap(answered, self.watched(), samples, self.at, self.next)
        if self.weir.light:
            since_1970 = time.time_ns() - time.monotonic_ns()
            swap.also(answered, self.weir.light.all_have(self.next, sent + since_1970) - since_1970)
        self.at, self.next = self.next, self.at
        return swap

    def away(self):
        """The controller dies while endpoints change, and another process takes up what it left."""
        changed, light = self.changes.value, self.weir.light
        self.weir.kill_controller()
        time.sleep(AWAY_SECONDS)
        before = light.received()
        self.weir.controller = self.weir.start_controller()
        ready = self.weir.all_ready()
        received = [after - before for before, after in zip(before, light.received())]
        cpu = sum(self.weir.controller.cpu_seconds())
        return figures.Resume(ready, cpu, received[0] / light.count, self.changes.value - changed)

    def watched(self):
        """When the bare watch saw the new address."""
        while self.watching.poll(probe.WAIT_SECONDS_MAX):
            read, address = self.watching.recv()
            if address == self.next:
                return read
        raise Refused("The bare watch of the API server saw no change.")

    def stop(self):
        self.stop_churn.set()
        for process in self.processes:
            process.terminate()
            process.join()


def measure(options, folder):
    """Rows by their name."""
    control = cluster.Cluster(folder, *bench_certificate())
    running = [control]
    try:
        origin = origins(folder)
        running.append(origin)
        origin.wait_until(lambda: listens(objects.BACKEND_PORT, network.OTHER))
        control.start()
        control.define(f"{cluster.REPOSITORY}/crds/loadbalancerpools.weir.dev.yaml", objects.GROUP_VERSION, objects.PLURAL)
        if options.proxies > fleet.REAL_MAX:
            return measure_many(control, running, options, folder)
        weir = fleet.Fleet(control, folder, options)
        running.append(weir)
        make(control, options)
        print(f"figure propagate.{figures.world(options)}.settled {settle(options):.1f} s", flush=True)
        rows = measure_swaps(control, weir, running, options)[0]
        tell(figures.rotation(options, *rotation.measure(control, fleet.real_addresses(1)[0], folder)))
        return rows
    except (Refused, OSError, http.client.HTTPException) as why:
        raise Refused(f"{type(why).__name__}: {why}\n{figures.last_words(folder)}") from why
    finally:
        for part in reversed(running):
            part.stop()


def make(control, options):
    objects.make(control.client(), objects.NAME, objects.HOST, [network.ONE])
    objects.make_others(control, options)


def measure_many(control, running, options, folder):
    """The same with many proxies, which all begin at once, and all go on without the controller for a while."""
    make(control, options)
    weir = fleet.Fleet(control, folder, options)
    running.append(weir)
    ready = weir.all_ready()
    start = figures.Resume(ready, sum(weir.controller.cpu_seconds()), weir.light.received()[0] / weir.light.count, 0)
    tell(figures.start(options, start))
    settle(options)
    weir.light.all_have(network.ONE, 0)
    rows, bench = measure_swaps(control, weir, running, options)
    if options.churn:
        tell(figures.resume(options, bench.away()))
    return rows


def tell(lines):
    for line in lines:
        print(line, flush=True)


def measure_swaps(control, weir, running, options):
    # The status of a thousand new pools is work for the API server that does not belong to a change.
    control.rest()
    bench = Bench(control, weir, options)
    running.append(bench)
    if options.churn:
        bench.churn()
    fresh = bench.swaps()
    # Over the swaps' own connection: the API server closes one that nobody uses.
    objects.edit_a_route(bench.client, options)
    return {"": fresh, "edited": bench.swaps()}, bench


def main():
    options = arguments()
    try:
        if options.check:
            sys.exit(selfcheck.check())
        network.enter()
        with tempfile.TemporaryDirectory(prefix="weir-propagate-") as folder:
            rows = measure(options, folder)
        sys.exit(figures.tell(rows, options))
    except Refused as why:
        sys.exit(f"propagate: {why}")


if __name__ == "__main__":
    main()
