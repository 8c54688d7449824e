"""`sessions.py --check`: what can be wrong with the bench before any load runs."""
import re

from machine import Refused


def check(bench):
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    definition = open(f"{bench.REPOSITORY}/crds/loadbalancerpools.weir.dev.yaml").read()
    for field in ("sessionPersistence", "sessionName", "maxSessions", "idleTimeout"):
        expect(f" {field}:" in definition, f"the definition of LoadBalancerPool has no {field}")
    defined = open(f"{bench.REPOSITORY}/dataplane/src/metrics/table.rs").read()
    for metric in (bench.BEGUN, bench.ENTRIES):
        expect(f'"{metric.split("{")[0]}"' in defined, f"the proxy has no metric {metric}")
    script = open(f"{bench.HERE}/one_each.lua").read()
    header = re.search(r'\["([a-z-]+)"\] = prefix', script)
    named = re.search(r"type: Header, sessionName: ([a-z-]+),", bench.KINDS["sessions.proxy.table"])
    expect(header and named and header[1] == named[1], "the requests' header is not the one of the table's sessions")
    lines = [*bench.lines("sessions.proxy.table", 2_000_000, 1_000_000, 47e6)]
    lines += bench.lines("sessions.proxy.sealed", 2_000_000, 0, 1e5)
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect("figure sessions.proxy.table 47.0 bytes/session" in lines, f"a figure is missing: {lines}")
    expect("figure sessions.proxy.sealed 0.1 bytes/session" in lines, f"a figure is missing: {lines}")
    print("sessions: check passed")
    return 0


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
