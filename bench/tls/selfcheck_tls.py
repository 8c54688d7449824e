"""`tls.py --check`: what can be wrong with the bench before any load runs."""
import re

import load
import peers
import trials
from machine import Refused


def check(bench):
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    for scenario in bench.REQUESTS.values():
        expect(load.SCENARIOS[scenario].tls, f"{scenario} of bench/compare is not over TLS")
    known = bench.arguments().peers.split(",")
    expect(set(known) <= set(peers.ALL), f"not all of {known} are peers")
    expect({*bench.HANDSHAKES, *bench.REQUESTS} < set(bench.UNITS), "a step has no unit")
    results = {(step, "weir"): [3.0, 1.0, 2.0] for step in bench.UNITS}
    lines = list(trials.figures("tls", results, bench.UNITS))
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect(lines[0] == "figure tls.full.weir 2 handshakes/cpu-second", f"the median is not right: {lines[0]}")
    expect(bench.client().minimum_version.name == "TLSv1_3", "the client would speak an older version")
    print("tls: check passed")
    return 0


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
