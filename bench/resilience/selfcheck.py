"""`resilience.py --check`: what can be wrong with the bench before any load runs."""
import asyncio
import os
import re
import socket
import tempfile

import breaker
import figures
import origins
import reuse
import stage
import stale
import storm
from clients import Answer, ask, direct, parse
from machine import Refused

DEFINITION = os.path.join(stage.HERE, "../../crds/loadbalancerpools.weir.dev.yaml")
# Of manifests, and not of the definition.
KUBERNETES_WORDS = {"apiVersion", "kind", "metadata", "name", "namespace", "spec"}


def check():
    """Refuses with a sentence where something does not hold; 0 otherwise."""
    manifests_use_what_is_defined()
    figures_are_right()
    experiments_print_their_figures()
    a_worker_is_kept_busy_by_refusing()
    asyncio.run(origins_do_as_they_are_told())
    page_is_rewritten()
    print("resilience: check passed")
    return 0


def manifests_use_what_is_defined():
    defined = set(re.findall(r"(?m)^ +([A-Za-z]+):", open(DEFINITION).read()))
    all_of_them = [*breaker.MANIFESTS.values(), *storm.MANIFESTS.values(), *reuse.MANIFESTS.values(), stale.MANIFEST]
    for text in all_of_them:
        used = set(re.findall(r"(?:^|[ {])([A-Za-z]+): ?", text, re.M)) - KUBERNETES_WORDS
        expect(len(used) >= 6, f"the fields of a manifest were not found: {used}")
        expect(used <= defined, f"the definition of LoadBalancerPool has no {', '.join(sorted(used - defined))}")
        ports = tuple(int(port) for port in re.findall(r"address: \S+, port: (\d+)", text))
        expect(ports == stage.ORIGIN_PORTS, f"a manifest has other backends: {ports}")
    modes = {name: " ".join(re.findall(r"attempts: \d+|percent: \d+", text)) for name, text in storm.MANIFESTS.items()}
    expect(list(modes.values()) == ["", "attempts: 10 percent: 100", "attempts: 0"], f"a storm retries otherwise: {modes}")
    expect(len(set(all_of_them)) == 6, "two experiments that should differ have one manifest")
    expect(len(set(stage.PORTS)) == len(stage.PORTS), "a port is used twice")


def figures_are_right():
    good = lambda answer: answer.status == 200
    # A request every 10 ms for 4 s: failed at first, good from 1.5 s on but for one at 2.2 s.
    answers = [Answer(n / 100, 0.01, 200 if n >= 150 and n != 220 else 500, b"") for n in range(400)]
    expect(figures.share(answers, good) == 62.25, "a share is wrong")
    expect(abs(figures.first_good(answers, 1.0, good) - 0.51) < 1e-9, "the first good answer is not found")
    expect(abs(figures.until_steady(answers, 1.0, good) - 0.5) < 1e-9, "the steady state is not found")
    expect(figures.until_steady(answers, 1.0, good, percent=100) > 1.2, "the bad one of 2.2 s was not seen")
    expect(figures.until_steady(answers[:200], 0.0, good) is None, "a run that never was steady counts as one")
    late = [answer._replace(status=500) if answer.sent > 3.5 else answer for answer in answers]
    expect(figures.until_steady(late, 1.0, good) is None, "a steady state that did not last counts")
    expect(figures.first_good(answers[:100], 0.0, good) is None, "a good answer was found where none is")
    ranks = [figures.percentile(range(1, 101), percent) for percent in (1, 50, 99, 100)]
    expect(ranks == [1, 50, 99, 100], "a percentile is wrong")
    retried = sorted([answer.sent for answer in answers] + [2 + n / 100 for n in range(50)])
    expect(figures.worst_window(retried, answers, 1) == 1.5, "the worst window is not found")
    text = "# TYPE x counter\nweir_upstream_reuses_total 9990\nweir_upstream_connects_total 20\nx{a=\"b\"} 1\n"
    after = figures.parse_metrics(text)
    expect(len(after) == 3 and after['x{a="b"}'] == 1, f"metrics are misread: {after}")
    before = {"weir_upstream_reuses_total": 0.0, "weir_upstream_connects_total": 10.0}
    expect(figures.reused(before, after) == 99.9, "the share of reuse is wrong")


def experiments_print_their_figures():
    """Of made-up answers; every figure of the tables must be among them."""
    answers = [Answer(n / 100, 0.05, 200, b"origin" if n < 100 or n >= 300 else b"fallback") for n in range(800)]
    lines = [line for name in breaker.MANIFESTS for line in breaker.lines(name, answers, [1.5, 3.5], 1.0, 3.0)]
    lines += [line for name in storm.MANIFESTS for line in storm.lines(name, answers, [0.5, 1.5, 1.6, 7.0], 1.0, 2.0)]
    lines += [figures.line(name, 99.99, "%", 3) for name in reuse.KINDS]
    lines += stale.lines([("GET", answers[0]), ("POST", answers[0]._replace(status=502))], 1, 0)
    for line in lines:
        expect(re.fullmatch(r"figure [a-z0-9_.-]+ -?[0-9.]+ \S+", line), f"not a figure line: {line}")
    for line in (
        "figure breaker.on.reached 1 requests",
        "figure breaker.on.in-time 100.00 %",
        "figure breaker.on.late.reached 1 requests",
        "figure breaker.on.late.in-time 100.00 %",
        "figure breaker.on.p99 50 ms",
        "figure breaker.on.first-good 0.050 s",
        "figure breaker.on.steady 0.000 s",
        "figure retry-storm.budget-on.outage.attempts 0.02 attempts/request",
        "figure retry-storm.no-retries.after.good 100.00 %",
        "figure stale.failed 1 requests",
        "figure stale.failed.post 1 requests",
    ):
        expect(line in lines, f"missing: {line}; there is: {lines}")
    table = figures.tables(lines)
    expect("| - |" not in table and " - " not in table, f"a figure of a table is not printed by any experiment: {table}")
    expect("| - |" in figures.tables(lines[:5]), "a figure that is missing does not show")


def a_worker_is_kept_busy_by_refusing():
    worker = origins.Worker(serve=0.02, refuse=0.004, queue=0.2, backlog=1.0)
    served = [worker.take(0.0) for _ in range(20)]
    expect(sum(at is not None for at in served) == 11, f"a queue of 0.2 s took {served}")
    expect(abs(served[10] - 0.22) < 1e-9, "the last of the queue is not served after those before it")
    for _ in range(1000):
        worker.take(0.0)
    expect(worker.free_at == 1.0, "work waits without a limit, or refusing takes none")
    expect(worker.take(0.7) is None and worker.take(0.9) is not None, "work that was done is not over")


async def origins_do_as_they_are_told():
    """Over real sockets, on ports of the system's choice; a request or two each."""
    conduct = origins.Conduct(idle=0.001)
    port, control = free_ports(2)
    serving = await origins.listen(conduct, [port], control, lambda: None)
    try:
        expect((await ask(port, "POST", "a"))[2:] == (200, b"origin"), "an origin does not serve")
        await direct(control, do="fail", status=500, after=0.05)
        failed = await ask(port, "GET", "a")
        expect(failed.status == 500 and failed.took >= 0.05, f"an origin that is to fail late does not: {failed}")
        await direct(control, do="serve")
        expect((await ask(port)).status == 200, "an origin does not recover")
        report, _ = await direct(control, do="report")
        expect(len(report["arrivals"]) == 3 and report["twice"] == 1, f"an origin counts wrong: {report}")
        expect("unknown" in (await direct(control, do="nothing"))[0], "an order that is none was accepted")
    finally:
        for server in serving:
            server.close()
    expect((await ask(control)).status == 0, "an answer came from where nobody listens")
    expect(parse(b"HTTP/1.1 503 X\r\nA: b\r\n\r\nbody") == (503, b"body"), "a response is misread")
    expect(parse(b"HTTP/1.1 200 OK\r\n") == (0, b""), "half a response counts as one")


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def page_is_rewritten():
    docs = open(figures.DOCS).read()
    expect(docs.count(figures.BEGIN) == 1 and docs.count(figures.END) == 1, "docs/benchmarks.md lacks its markers")
    with tempfile.NamedTemporaryFile("w", suffix=".md") as page:
        page.write(f"before {figures.BEGIN} old {figures.END} after")
        page.flush()
        figures.write_docs(["figure breaker.on.reached 12 requests"], page.name)
        text = open(page.name).read()
    expect(text.startswith("before ") and text.endswith(" after"), "what is around the results is not left alone")
    expect("12 requests" in text and " old " not in text, "the results are not rewritten")


def expect(holds, otherwise):
    if not holds:
        raise Refused(f"check failed: {otherwise}.")
