"""From rows of all rounds to figures, ratios, a table and the page in docs/."""
import datetime
import os
import platform
import statistics

from load import IDLE, SCENARIOS
from machine import Refused

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/benchmarks.md")
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
UNITS = {"cpu": "us/request", "user": "us/request", "rate": "requests/s", "p50": "ms", "p99": "ms", "failed": "requests"}


class Results:
    """Values by (scenario, peer, what), one for each round."""

    def __init__(self):
        self.values = {}

    def add(self, scenario, peer, row):
        for what, value in row.items():
            if value is not None:
                self.values.setdefault((scenario, peer, what), []).append(value)

    def of(self, scenario, peer, what):
        return self.values.get((scenario, peer, what), [])

    def median(self, scenario, peer, what):
        values = self.of(scenario, peer, what)
        return statistics.median(values) if values else None

    def ratio(self, scenario, peer, other, what):
        """Median over the rounds of the ratio within a round: what drifts from round to round cancels out."""
        pairs = list(zip(self.of(scenario, peer, what), self.of(scenario, other, what)))
        pairs = [(ours, theirs) for ours, theirs in pairs if theirs]
        return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None


def figures(results, scenarios, peers):
    """Lines `figure NAME VALUE UNIT` for all that was measured."""
    for scenario in scenarios:
        for peer in peers:
            if scenario == IDLE:
                yield from idle_figures(results, peer)
                continue
            for what, unit in UNITS.items():
                value = results.median(scenario, peer, what)
                if value is not None:
                    yield f"figure {scenario}.{peer}.{what} {value:.{digits(unit)}f} {unit}"
        for name, value in ratios(results, scenario, peers):
            yield f"figure {name} {value:.2f} x"


def idle_figures(results, peer):
    for what in ("plain", "tls"):
        value = results.median(IDLE, peer, what)
        if value is not None:
            yield f"figure idle.{peer}.{what} {value:.0f} bytes/connection"
    rest = results.median(IDLE, peer, "rest")
    if rest is not None:
        yield f"figure idle.{peer}.rest {rest / 1e6:.1f} MB"


def digits(unit):
    return {"us/request": 2, "ms": 2}.get(unit, 0)


def ratios(results, scenario, peers):
    if "weir" not in peers:
        return
    for other in peers:
        if other == "weir":
            continue
        for what, suffix in (("plain", ".plain"), ("tls", ".tls")) if scenario == IDLE else (("cpu", ""),):
            value = results.ratio(scenario, "weir", other, what)
            if value is not None:
                yield f"{scenario}.weir.over_{other}{suffix}", value


def table(results, scenarios, peers):
    """Markdown: median (lowest to highest) of all rounds, a scenario in each row."""
    lines = ["| | " + " | ".join(peers) + " |", "|---|" + "---|" * len(peers)]
    for scenario in scenarios:
        if scenario == IDLE:
            lines.append(row("bytes per idle plain connection", results, IDLE, peers, "plain", 0))
            lines.append(row("bytes per idle TLS connection", results, IDLE, peers, "tls", 0))
            lines.append(row("memory at rest, MB", results, IDLE, peers, "rest", 1, scale=1e-6))
        else:
            lines.append(row(SCENARIOS[scenario].title, results, scenario, peers, "cpu", 1))
    return "\n".join(lines)


def row(title, results, scenario, peers, what, places, scale=1.0):
    cells = []
    for peer in peers:
        values = [value * scale for value in results.of(scenario, peer, what)]
        if not values:
            cells.append("")
            continue
        spread = f" ({min(values):.{places}f} to {max(values):.{places}f})" if len(values) > 1 else ""
        mark = " !" if results.median(scenario, peer, "failed") else ""
        cells.append(f"{statistics.median(values):.{places}f}{spread}{mark}")
    return f"| {title} | " + " | ".join(cells) + " |"


def as_json(results, versions, arguments):
    rows = [
        {"scenario": scenario, "peer": peer, "what": what, "rounds": values, "median": statistics.median(values)}
        for (scenario, peer, what), values in results.values.items()
    ]
    return {"machine": machine(), "versions": versions, "arguments": arguments, "results": rows}


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def write_docs(results, scenarios, peers, versions, rounds, seconds):
    """Rewrites the part of docs/benchmarks.md between the markers."""
    text = open(DOCS).read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise Refused(f"docs/benchmarks.md must hold the markers {BEGIN} and {END} once each.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    today = datetime.date.today().isoformat()
    told = "; ".join(f"{peer} {version}" for peer, version in versions.items())
    intro = f"Measured on {today}: {machine()}. {rounds} rounds of {seconds} s. {told}."
    ratio_lines = [f"- `{name}` {value:.2f}" for scenario in scenarios for name, value in ratios(results, scenario, peers)]
    parts = [intro, table(results, scenarios, peers), "\n".join(ratio_lines)]
    with open(DOCS, "w") as file:
        file.write(before + BEGIN + "\n" + "\n\n".join(part for part in parts if part) + "\n" + END + after)
