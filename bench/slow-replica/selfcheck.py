"""`slow_replica.py --check`: what can be wrong with the bench before anything runs."""
import re

from machine import Refused


def check(bench):
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    definition = open(f"{bench.REPOSITORY}/crds/loadbalancerpools.weir.dev.yaml").read()
    choices = re.findall(r"(?m)^( *)enum:\n((?:\1- \S+\n)+)", definition)
    known = [set(re.findall(r"- (\S+)", names)) for _, names in choices]
    expect(set(bench.ALGORITHMS) in known, "the definition of LoadBalancerPool has other algorithms")
    for algorithm in bench.ALGORITHMS:
        ports = [int(port) for port in re.findall(r"address: \S+, port: (\d+)", bench.manifest(algorithm))]
        expect(ports == [bench.SLOW_PORT, *bench.FAST_PORTS], f"{algorithm} has other backends: {ports}")
        expect(f"algorithm: {algorithm}" in bench.manifest(algorithm), f"{algorithm} is not in its own manifest")
    lines = list(bench.figures("PeakEwma", [True] * 199 + [False]))
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect("figure slow-replica.peak-ewma.success 99.50 %" in lines, f"a figure is missing: {lines}")
    expect("figure slow-replica.peak-ewma.requests 200 requests" in lines, f"a figure is missing: {lines}")
    print("slow-replica: check passed")
    return 0


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
