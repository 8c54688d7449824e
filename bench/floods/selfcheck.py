"""`floods.py --check`: what can be wrong with the bench before any load runs."""
import re

from clients import Answer
from machine import Refused


def check(bench):
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    defined = open(f"{bench.REPOSITORY}/dataplane/src/metrics/table.rs").read()
    expect(f'"{bench.CUT.split("{")[0]}"' in defined, "the proxy has no metric of connections that were cut")
    for name, piece in bench.FLOODS.items():
        for nth in range(3):
            expect(whole(piece(nth)), f"{name} is not made of whole frames")
    answers = [Answer(0, took / 1e3, 200, b"") for took in range(1, 101)] + [Answer(0, 0.2, 0, b"")]
    lines = list(bench.lines("quiet", answers, 5e6))
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    expect(lines[0] == "figure flood.quiet.p99 100.00 ms", f"the p99 is not right: {lines[0]}")
    expect(lines[1].startswith("figure flood.quiet.failed 1"), f"failures are not counted: {lines[1]}")
    print("floods: check passed")
    return 0


def whole(bytes_):
    while bytes_:
        length = int.from_bytes(bytes_[:3], "big")
        if len(bytes_) < 9 + length:
            return False
        bytes_ = bytes_[9 + length :]
    return True


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
