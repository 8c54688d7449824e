"""From samples to figures and the page in docs/."""
import datetime
import glob
import math
import os
import platform
import time

from machine import Refused

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/benchmarks.md")
BEGIN, END = "<!-- propagate:begin -->", "<!-- propagate:end -->"
HEAD = [
    "| | p50 ms | p99 ms | bare watch p50 / p99 ms | swaps | failed of requests | controller cores | controller MB | on |",
    "|---|---|---|---|---|---|---|---|---|",
]
LAST_WORDS_CHARACTERS = 400


class Swap:
    """One change of the backend: times in ms from the API server's answer to the last proxy, and what became of requests.

    `asked` holds the samples of each proxy that serves."""

    def __init__(self, answered, watched, asked, old, new):
        self.first = float("-inf")
        self.watched = (watched - answered) / 1e6
        self.requests, self.failed, self.back = 0, [], 0
        for samples in asked:
            firsts = [sample for sample in samples if sample.status == 200 and sample.name == new]
            # Never answered counts as the longest wait, and as failed.
            first = firsts[0].answered if firsts else max(sample.answered for sample in samples)
            self.also(answered, first)
            self.requests += len(samples)
            self.failed += [f"{sample.status} {sample.name}" for sample in samples if sample.status != 200]
            if not firsts:
                self.failed.append(f"{new} never answered")
            # Answers of the old backend to requests that were sent after the new one's first answer.
            self.back += sum(1 for sample in samples if sample.name == old and firsts and sample.sent > first)

    def also(self, answered, had):
        """Proxies that had it at this moment, at the last."""
        self.first = max(self.first, (had - answered) / 1e6)


class Resume:
    """Proxies that came into step: seconds to the last one, what that cost the controller, bytes to each, and changes that
    they had missed."""

    def __init__(self, seconds, cpu_seconds, bytes_each, changes):
        self.seconds, self.cpu_seconds, self.bytes_each, self.changes = seconds, cpu_seconds, bytes_each, changes


class Cost:
    """What controller and proxy used, and changes of other services, since this was made."""

    def __init__(self, weir, changes):
        self.weir, self.changes = weir, changes
        self.began, self.before = time.monotonic(), self.now()

    def now(self):
        weir = self.weir
        seconds = [sum(process.cpu_seconds()) for process in (weir.controller, weir.proxies[0])]
        return seconds + [self.changes.value] + list(weir.light.received() if weir.light else (0, 0))

    def since(self):
        span = time.monotonic() - self.began
        controller, proxy, *counts = (after - before for before, after in zip(self.before, self.now()))
        changes, received, messages = counts
        memory = self.weir.controller.pss_bytes() / 1e6
        cost = {
            "controller.cores": controller / span, "controller.memory": memory, "proxy.cores": proxy / span,
            "churn": changes / span, "span": span,
        }
        if self.weir.light:
            cost["bytes"] = received / self.weir.light.count / span
            cost["messages"] = messages / self.weir.light.count / span
        return cost


class Row:
    """All swaps of one state of the cluster."""

    def __init__(self, swaps, cost):
        self.cost = cost
        self.span = cost["span"]
        self.count = len(swaps)
        self.firsts = [swap.first for swap in swaps]
        self.watched = [swap.watched for swap in swaps]
        self.requests = sum(swap.requests for swap in swaps)
        self.failed = [reason for swap in swaps for reason in swap.failed]
        self.back = sum(swap.back for swap in swaps)


def percentile(values, part):
    """By nearest rank."""
    values = sorted(values)
    return values[max(0, math.ceil(part / 100 * len(values)) - 1)]


def world(options):
    """The state of the cluster, as a part of a figure's name."""
    followed = f"-proxies{options.proxies}" if options.proxies > 1 else ""
    if not options.services:
        return f"one{followed}"
    churned = f"-churn{options.churn:g}" if options.churn else ""
    return f"{options.services}x{options.endpoints}{churned}{followed}"


def title(options, state):
    text = "1 service" if not options.services else f"{options.services:,} services x {options.endpoints} endpoints"
    churned = f", {options.churn:g} changes/s" if options.churn else ""
    followed = f", to the last of {options.proxies} proxies" if options.proxies > 1 else ""
    return f"{text}{churned}{followed}{', after a route change' if state else ''}"


def lines(rows, options):
    """Lines `figure NAME VALUE UNIT` for all that was measured."""
    for state, row in rows.items():
        name = f"propagate.{world(options)}{'.' + state if state else ''}"
        for what, values in (("", row.firsts), (".watch", row.watched)):
            yield f"figure {name}{what}.p50 {percentile(values, 50):.2f} ms"
            yield f"figure {name}{what}.p99 {percentile(values, 99):.2f} ms"
        yield f"figure {name}.swaps {row.count} swaps"
        yield f"figure {name}.requests {row.requests} requests"
        yield f"figure {name}.failed {len(row.failed)} requests"
        yield f"figure {name}.back {row.back} requests"
        yield f"figure {name}.controller.cores {row.cost['controller.cores']:.3f} cores"
        yield f"figure {name}.controller.memory {row.cost['controller.memory']:.1f} MB"
        yield f"figure {name}.proxy.cores {row.cost['proxy.cores']:.3f} cores"
        if options.churn:
            yield f"figure {name}.churn {row.cost['churn']:.1f} changes/s"
        if "bytes" in row.cost:
            # The measured service changes too.
            changes = row.cost["churn"] + row.count / row.span
            yield f"figure {name}.bytes {row.cost['bytes'] / changes:.0f} bytes/change"
            yield f"figure {name}.messages {row.cost['messages'] / changes:.2f} messages/change"


def start(options, start):
    """Lines for many proxies that begin at once."""
    name = f"propagate.{world(options)}.start"
    yield f"figure {name}.ready {start.seconds:.2f} s"
    yield f"figure {name}.controller.cpu {start.cpu_seconds:.2f} s"
    yield f"figure {name}.bytes {start.bytes_each / 1e3:.0f} kB/proxy"


def rotation(options, took, failed):
    """Lines for a certificate that is renewed: milliseconds each time, and handshakes that failed."""
    name = f"propagate.{world(options)}.certificate"
    yield f"figure {name}.p50 {percentile(took, 50):.2f} ms"
    yield f"figure {name}.p99 {percentile(took, 99):.2f} ms"
    yield f"figure {name}.rotations {len(took)} rotations"
    yield f"figure {name}.failed {failed} handshakes"


def resume(options, away):
    """Lines for a controller that takes up what another one left."""
    name = f"propagate.{world(options)}.resume"
    yield f"figure {name}.ready {away.seconds:.2f} s"
    yield f"figure {name}.controller.cpu {away.cpu_seconds:.2f} s"
    yield f"figure {name}.bytes {away.bytes_each / 1e3:.0f} kB/proxy"
    yield f"figure {name}.missed {away.changes} changes"


def table_row(label, row):
    watch = f"{percentile(row.watched, 50):.1f} / {percentile(row.watched, 99):.1f}"
    cells = [
        f"{percentile(row.firsts, 50):.1f}", f"{percentile(row.firsts, 99):.1f}", watch, f"{row.count}",
        f"{len(row.failed)} of {row.requests:,}", f"{row.cost['controller.cores']:.2f}", f"{row.cost['controller.memory']:.0f}",
        datetime.date.today().isoformat(),
    ]
    return f"| {label} | " + " | ".join(cells) + " |"


def tell(rows, options):
    """Prints and writes what was asked for; the exit code."""
    for line in lines(rows, options):
        print(line)
    if options.write_docs:
        write_docs({title(options, state): table_row(title(options, state), row) for state, row in rows.items()})
    failed = [reason for row in rows.values() for reason in row.failed]
    for reason in sorted(set(failed)):
        print(f"propagate: {failed.count(reason)} requests failed: {reason}")
    return 1 if failed else 0


def write_docs(ours):
    """Puts rows into the table in docs/benchmarks.md, each in the place of the one with the same title."""
    text = open(DOCS).read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise Refused(f"docs/benchmarks.md must hold the markers {BEGIN} and {END} once each.")
    before, rest = text.split(BEGIN)
    there, after = rest.split(END)
    rows = {line.split(" | ")[0][2:]: line for line in there.splitlines() if line.startswith("| ") and line not in HEAD}
    rows.update(ours)
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    intro = f"The last run's machine: {model}, {os.cpu_count()} cores, Linux {platform.release()}."
    with open(DOCS, "w") as file:
        file.write(before + BEGIN + "\n" + "\n".join([intro, "", *HEAD, *rows.values()]) + "\n" + END + after)


def last_words(folder):
    """The end of each log, for a run that did not come to figures."""
    told = []
    for log in sorted(glob.glob(f"{folder}/*.log")):
        said = open(log, errors="replace").read()[-LAST_WORDS_CHARACTERS:].strip()
        if said:
            told.append(f"--- {os.path.basename(log)}\n{said}")
    return "\n".join(told)
