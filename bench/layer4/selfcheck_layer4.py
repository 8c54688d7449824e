"""`layer4.py --check`: what can be wrong with the bench before any load runs."""
import os
import re

import load
import peers
import trials
from machine import Refused


def check(bench):
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    expect(set(bench.SCENARIOS) == set(bench.UNITS), "a step has no unit, or no load")
    for scenario in bench.SCENARIOS.values():
        expect(not load.SCENARIOS[scenario].tls, f"{scenario} of bench/compare is over TLS")
    known = bench.arguments().peers.split(",")
    expect(set(known) <= set(bench.ALL), f"not all of {known} are peers")
    origins = [f"port: {port}" for port in peers.ORIGIN_PORTS]
    pool = open(f"{bench.HERE}/pool/pool.yaml").read()
    expect(f"port: {bench.WEIR_PORT}, protocol: TCP" in pool, "bench/layer4/pool listens elsewhere")
    expect(all(origin in pool for origin in origins), "bench/layer4/pool has other origins")
    for name in os.listdir(f"{bench.HERE}/conf"):
        text = open(f"{bench.HERE}/conf/{name}").read()
        expect("@PLAIN@" in text, f"conf/{name} has no place for its port")
        expect(all(str(port) in text for port in peers.ORIGIN_PORTS), f"conf/{name} has other origins")
    results = {(step, "weir"): [3.0, 1.0, 2.0] for step in bench.UNITS}
    lines = list(trials.figures("layer4", results, bench.UNITS))
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect(lines[0] == "figure layer4.relay.weir 2.00 us/MB", f"the median is not right: {lines[0]}")
    print("layer4: check passed")
    return 0


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
