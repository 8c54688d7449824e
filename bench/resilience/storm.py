"""Backends are out for three seconds, under a load of four fifths of what they can do: what retries make of it.

Each backend has one processor, and a request that is one too many takes it a fifth of the time of one that is served.
Five refused attempts for each that could be served are therefore all that it can do: the load that retries make of a
short outage can then keep it going for as long as clients ask (Bronson, Aghayev, Charapko and Zhu, "Metastable failures
in distributed systems", HotOS 2021).

Backends take turns: who refuses at once looks idle to algorithms that count requests, and would be given more of them.
"""
import asyncio

import figures
from stage import ORIGIN_PORTS, manifest, outage

SERVE_SECONDS, REFUSE_SECONDS, QUEUE_SECONDS, BACKLOG_SECONDS = 0.02, 0.004, 0.2, 1.0
# Requests a second, of all backends.
CAPACITY = len(ORIGIN_PORTS) / SERVE_SECONDS
RATE = 0.8 * CAPACITY
BEFORE_SECONDS, OUT_SECONDS, AFTER_SECONDS = 5, 3, 15
# The end of the run, by which all should be over.
LAST_SECONDS = 5
# Of the retry budget, by default.
WINDOW_SECONDS = 10
OUTAGE = {"status": 503, "after": 0.0}
GOOD_SECONDS_MAX = 1
IN_TURN = "  loadBalancing: { algorithm: RoundRobin }\n"
NO_BUDGET = "  retry: { attempts: 10 }\n  retryBudget: { percent: 100, minRetriesPerSecond: 10000 }\n"
MANIFESTS = {
    "retry-storm.budget-on": manifest(IN_TURN),
    "retry-storm.budget-off": manifest(IN_TURN + NO_BUDGET),
    "retry-storm.no-retries": manifest(IN_TURN + "  retry: { attempts: 0 }\n"),
}


def run(stage):
    """Lines of figures, for each way to retry."""
    for name, pool in MANIFESTS.items():
        worker = (SERVE_SECONDS, REFUSE_SECONDS, QUEUE_SECONDS, BACKLOG_SECONDS)
        with stage.origins("--worker", *worker), stage.proxy(pool):
            times = (BEFORE_SECONDS, OUT_SECONDS, AFTER_SECONDS)
            yield from lines(name, *asyncio.run(outage(RATE, times, OUTAGE, stage.seed)))


def lines(name, answers, arrivals, out_at, back_at):
    last = max(answer.sent for answer in answers)
    after = figures.within(answers, last - LAST_SECONDS, last)
    yield figures.line(f"{name}.requests", len(answers), "requests")
    yield figures.line(f"{name}.attempts", len(arrivals) / len(answers), "attempts/request", 2)
    for what, begin, end in (("outage", out_at, back_at), ("after", last - LAST_SECONDS, last)):
        attempts = sum(begin <= at < end for at in arrivals)
        ratio = attempts / max(1, len(figures.within(answers, begin, end)))
        yield figures.line(f"{name}.{what}.attempts", ratio, "attempts/request", 2)
    worst = figures.worst_window(arrivals, answers, WINDOW_SECONDS)
    yield figures.line(f"{name}.window.attempts", worst, "attempts/request", 2)
    yield figures.line(f"{name}.good", figures.share(answers, is_good), "%", 2)
    yield figures.line(f"{name}.after.good", figures.share(after, is_good), "%", 2)
    seconds = figures.until_steady(answers, back_at, is_good)
    if seconds is not None:
        yield figures.line(f"{name}.steady", seconds, "s", 3)


def is_good(answer):
    return answer.status == 200 and answer.took < GOOD_SECONDS_MAX
