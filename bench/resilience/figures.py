"""From answers and arrivals to figures, and the tables in docs/."""
import datetime
import math
import os
import re

from machine import Refused
from report import machine

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/benchmarks.md")
BEGIN, END = "<!-- resilience:begin -->", "<!-- resilience:end -->"
# Requests over which "99 % of the answers are good" is judged, as seconds.
STEADY_SECONDS = 1.0
# Of the moments at which a window could begin, every so many is tried.
WINDOW_STEP = 10


def line(name, value, unit, places=0):
    return f"figure {name} {value:.{places}f} {unit}"


def share(answers, is_good):
    """Percent of the answers that are good; of none, none."""
    return 100 * sum(map(is_good, answers)) / len(answers) if answers else 0.0


def percentile(values, percent):
    """Nearest rank. `values` are not empty."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def within(answers, begin, end):
    """Those that were asked for from `begin` until before `end`."""
    return [answer for answer in answers if begin <= answer.sent < end]


def first_good(answers, since, is_good):
    """Seconds from `since` to the first good answer to a request of after it; None without one."""
    ended = [answer.sent + answer.took for answer in answers if answer.sent >= since and is_good(answer)]
    return min(ended) - since if ended else None


def until_steady(answers, since, is_good, percent=99):
    """Seconds from `since` until `percent` of the requests of the next second, and of each second after, are answered well.

    None where that was not reached, or not held to the end.
    """
    asked = sorted(answer for answer in answers if answer.sent >= since)
    if not asked or asked[-1].sent - since < STEADY_SECONDS:
        return None
    steady, last = None, asked[-1].sent - STEADY_SECONDS
    for begin in [since, *(answer.sent for answer in asked)]:
        if begin > last:
            break
        if share(within(asked, begin, begin + STEADY_SECONDS), is_good) < percent:
            steady = None
        elif steady is None:
            steady = begin - since
    return steady


def worst_window(arrivals, answers, seconds):
    """Most attempts for each request that was sent, over all windows of so many seconds that lie within the load."""
    begins = [answer.sent for answer in answers]
    last = max(begins) - seconds
    windows = [(begin, begin + seconds) for begin in begins if begin <= last]
    ratios = [
        sum(begin <= at < end for at in arrivals) / len(within(answers, begin, end)) for begin, end in windows[::WINDOW_STEP]
    ]
    return max(ratios, default=0.0)


def reused(before, after):
    """Percent of the requests to backends that went over a kept connection, between two looks at the metrics."""
    reuses, connects = (
        after[name] - before[name] for name in ("weir_upstream_reuses_total", "weir_upstream_connects_total")
    )
    if reuses + connects <= 0:
        raise Refused("No request reached a backend between two looks at the metrics.")
    return 100 * reuses / (reuses + connects)


def parse_metrics(text):
    """Metrics by name, and labels where they have some: `http_requests_total{protocol="http1"}`."""
    found = re.findall(r"(?m)^([a-z0-9_]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", text)
    return {name: float(value) for name, value in found}


# Tables of the page: a title for each column, and rows of a title and a figure for each column.
BREAKER_ROWS = (
    ("requests sent while the backends failed", "requests"),
    ("of these reached a backend", "reached"),
    ("of these answered within 100 ms", "in-time"),
    ("in the last five seconds, reached a backend", "late.reached"),
    ("in the last five seconds, answered within 100 ms", "late.in-time"),
    ("p99 of all answers while the backends failed", "p99"),
    ("from recovery to the first good answer", "first-good"),
    ("from recovery until 99 % are good", "steady"),
)
STORM_ROWS = (
    ("attempts per request, whole run", "attempts"),
    ("while the backends are out", "outage.attempts"),
    ("in the worst ten seconds", "window.attempts"),
    ("in the last five seconds", "after.attempts"),
    ("answered well, whole run", "good"),
    ("in the last five seconds", "after.good"),
    ("from the end of the outage until 99 % are good", "steady"),
)
OTHER_ROWS = (
    ("HTTP/1.1 clients, HTTP/1.1 backends: over a kept connection", "reuse.h1"),
    ("HTTP/2 clients, HTTP/1.1 backends", "reuse.h2"),
    ("HTTP/1.1 clients, HTTP/2 backends", "reuse.h1-to-h2"),
    ("HTTP/2 clients, HTTP/2 backends", "reuse.h2-to-h2"),
    ("backends hang up after 50 ms: requests", "stale.requests"),
    ("of these failed", "stale.failed"),
    ("of these sent again on a new connection", "stale.retried"),
    ("of these that a backend got twice", "stale.twice"),
)
TABLES = (
    ("A set fails for ten seconds", ("with a circuit", "without"), BREAKER_ROWS, ("breaker.on.{}", "breaker.off.{}")),
    (
        "Backends are out for three seconds",
        ("budget (the default)", "no budget", "no retries"),
        STORM_ROWS,
        tuple(f"retry-storm.{mode}.{{}}" for mode in ("budget-on", "budget-off", "no-retries")),
    ),
    ("Connections to backends", ("",), OTHER_ROWS, ("{}",)),
)


def tables(lines):
    """Markdown of all figures; a dash for one that is missing."""
    values = {name: f"{value} {unit}" for _, name, value, unit in (text.split(" ") for text in lines)}
    parts = []
    for title, columns, rows, patterns in TABLES:
        part = [f"| {title} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for row, what in rows:
            cells = [values.get(pattern.format(what), "-") for pattern in patterns]
            part.append(f"| {row} | " + " | ".join(cells) + " |")
        parts.append("\n".join(part))
    return "\n\n".join(parts)


def write_docs(lines, path=DOCS):
    """Rewrites the part of docs/benchmarks.md between the markers."""
    text = open(path).read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise Refused(f"docs/benchmarks.md must hold the markers {BEGIN} and {END} once each.")
    before, rest = text.split(BEGIN)
    intro = f"Measured on {datetime.date.today().isoformat()}: {machine()}."
    with open(path, "w") as file:
        file.write(f"{before}{BEGIN}\n{intro}\n\n{tables(lines)}\n{END}{rest.split(END)[1]}")
