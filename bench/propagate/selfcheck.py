"""`propagate.py --check`: what can be wrong with the bench before anything runs."""
import os
import re
from types import SimpleNamespace

import figures
import objects
from machine import Refused
from peers import bench_certificate
from probe import Sample

HERE = os.path.dirname(os.path.abspath(__file__))


def check():
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    bench_certificate()
    swaps_are_read()
    definition = open(f"{HERE}/../../crds/loadbalancerpools.weir.dev.yaml").read()
    group, version = objects.GROUP_VERSION.split("/")
    for text in (f"group: {group}", f"plural: {objects.PLURAL}", f"name: {version}"):
        expect(text in definition, f"the definition of LoadBalancerPool does not say `{text}`")
    docs = open(figures.DOCS).read()
    expect(docs.count(figures.BEGIN) == 1 and docs.count(figures.END) == 1, "docs/benchmarks.md lacks its markers")
    print("propagate: check passed")
    return 0


def swaps_are_read():
    """Two requests before the change, one that fails, two of the new backend and one that goes back."""
    ms = 1_000_000
    samples = [
        Sample(0, 1 * ms, 200, "old"),
        Sample(2 * ms, 3 * ms, 200, "old"),
        Sample(4 * ms, 5 * ms, 502, "broken"),
        Sample(6 * ms, 7 * ms, 200, "new"),
        Sample(8 * ms, 9 * ms, 200, "new"),
        Sample(9 * ms, 10 * ms, 200, "old"),
    ]
    swap = figures.Swap(answered=2 * ms, watched=3 * ms, asked=[samples], old="old", new="new")
    told = (swap.first, swap.watched, swap.requests, swap.failed, swap.back)
    expect(told == (5.0, 1.0, 6, ["502 broken"], 1), f"samples are misread: {told}")
    swap.also(2 * ms, 8 * ms)
    expect(swap.first == 6.0, f"the last of several proxies is misread: {swap.first}")
    swap.also(2 * ms, 7 * ms)
    never = figures.Swap(answered=2 * ms, watched=3 * ms, asked=[samples[:2]], old="old", new="new")
    expect(never.failed == ["new never answered"], f"a swap that never came is misread: {never.failed}")
    expect(figures.percentile([3, 1, 2], 50) == 2 and figures.percentile(range(100), 99) == 98, "percentiles are wrong")
    cost = {"controller.cores": 0.1, "controller.memory": 20.0, "proxy.cores": 0.05, "churn": 50.0, "span": 2.0}
    options = SimpleNamespace(services=1000, endpoints=10, churn=50.0, proxies=1)
    lines = list(figures.lines({"": figures.Row([swap], cost), "edited": figures.Row([swap], cost)}, options))
    resumed = figures.Resume(seconds=0.5, cpu_seconds=1.0, bytes_each=2e6, changes=1000)
    many = SimpleNamespace(services=1000, endpoints=10, churn=50.0, proxies=100)
    lines += [*figures.start(many, resumed), *figures.resume(many, resumed), *figures.rotation(options, [2.0, 1.0], 0)]
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect("figure propagate.1000x10-churn50.edited.p99 6.00 ms" in lines, f"a figure is missing: {lines}")


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
