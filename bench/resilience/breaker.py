"""All backends of a set fail for ten seconds: what a circuit spares them, and what it spares the clients.

A failing backend answers 500 after a second. With a circuit, the fallback answers in its place.
"""
import asyncio

import figures
from stage import manifest, outage

RATE = 100
BEFORE_SECONDS, FAIL_SECONDS, AFTER_SECONDS = 4, 10, 8
FAILURE = {"status": 500, "after": 1.0}
IN_TIME_SECONDS = 0.1
# The end of the failure, by which a circuit has long opened.
LATE_SECONDS = 5
# A window and a reset that are short beside the ten seconds, so that the circuit's work is seen in them.
CIRCUIT = """  circuitBreaker:
    failurePercent: 50
    minRequests: 20
    window: 2s
    resetTimeout: 1s
    halfOpenRequests: 3
    fallback: { response: { status: 200, contentType: text/plain, body: fallback } }
"""
MANIFESTS = {"breaker.on": manifest(CIRCUIT), "breaker.off": manifest()}


def run(stage):
    """Lines of figures, with the circuit and without."""
    for name, pool in MANIFESTS.items():
        with stage.origins(), stage.proxy(pool):
            times = (BEFORE_SECONDS, FAIL_SECONDS, AFTER_SECONDS)
            yield from lines(name, *asyncio.run(outage(RATE, times, FAILURE, stage.seed)))


def lines(name, answers, arrivals, failed_at, recovered_at):
    during = figures.within(answers, failed_at, recovered_at)
    yield figures.line(f"{name}.requests", len(during), "requests")
    yield figures.line(f"{name}.reached", sum(failed_at <= at < recovered_at for at in arrivals), "requests")
    yield figures.line(f"{name}.in-time", figures.share(during, is_in_time), "%", 2)
    late_at = recovered_at - LATE_SECONDS
    late = figures.within(answers, late_at, recovered_at)
    yield figures.line(f"{name}.late.reached", sum(late_at <= at < recovered_at for at in arrivals), "requests")
    yield figures.line(f"{name}.late.in-time", figures.share(late, is_in_time), "%", 2)
    yield figures.line(f"{name}.p99", 1000 * figures.percentile([answer.took for answer in during], 99), "ms")
    for what, judged in (("first-good", figures.first_good), ("steady", figures.until_steady)):
        seconds = judged(answers, recovered_at, is_good)
        if seconds is not None:
            yield figures.line(f"{name}.{what}", seconds, "s", 3)


def is_in_time(answer):
    """By whomever: the fallback counts."""
    return answer.status == 200 and answer.took < IN_TIME_SECONDS


def is_good(answer):
    """By a backend."""
    return answer.status == 200 and answer.body == b"origin"
