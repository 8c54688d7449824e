"""Backends that close connections which were idle for 50 ms, asked at about that distance by GET and POST.

A request that meets a connection in the moment of its end must be answered all the same, and no backend may do one twice.
"""
import asyncio
import itertools
import random

import figures
from clients import ask, direct
from stage import CONTROL_PORT, POOL_PORT, manifest, metrics

IDLE_SECONDS = 0.05
SECONDS = 20
# All at once, so that as many connections are then idle for equally long.
BURST = 12
# Pauses between two bursts: around the moment in which the connections of the first end.
PAUSE_SECONDS = (IDLE_SECONDS - 0.004, IDLE_SECONDS + 0.002)
MANIFEST = manifest()


def run(stage):
    with stage.origins("--idle", IDLE_SECONDS), stage.proxy(MANIFEST):
        before = metrics()["weir_upstream_stale_total"]
        answers, twice = asyncio.run(bursts(stage.seed))
        yield from lines(answers, metrics()["weir_upstream_stale_total"] - before, twice)


async def bursts(seed):
    """Pairs of method and answer, and how many requests reached backends twice."""
    chance, clock = random.Random(seed), asyncio.get_running_loop().time
    identities, answers = itertools.count(), []
    end = clock() + SECONDS
    while clock() < end:
        methods = [chance.choice(("GET", "POST")) for _ in range(BURST)]
        asked = [ask(POOL_PORT, method, f"{next(identities)}") for method in methods]
        answers += zip(methods, await asyncio.gather(*asked))
        await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))
    report, _ = await direct(CONTROL_PORT, do="report")
    return answers, report["twice"]


def lines(answers, retried, twice):
    failed = [method for method, answer in answers if answer.status != 200]
    yield figures.line("stale.requests", len(answers), "requests")
    yield figures.line("stale.failed", len(failed), "requests")
    yield figures.line("stale.failed.post", failed.count("POST"), "requests")
    yield figures.line("stale.retried", retried, "requests")
    yield figures.line("stale.twice", twice, "requests")
