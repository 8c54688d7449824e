"""How many requests go to a backend over a connection that is there already, under a steady load."""
import time

import figures
from load import parse_h2load, parse_wrk
from machine import Refused, Running
from stage import POOL_PORT, manifest, metrics

WARM_UP_SECONDS, SECONDS = 2, 6
# The generator goes on past the second look at the metrics, so that its end is not in the figure.
MARGIN_SECONDS = 2
CONNECTIONS, STREAMS = 64, 8
RUN_SECONDS = WARM_UP_SECONDS + SECONDS + MARGIN_SECONDS
URL = f"http://127.0.0.1:{POOL_PORT}/health"
H1 = (["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{RUN_SECONDS}s", URL], parse_wrk)
H2 = (["h2load", "-t1", f"-c{CONNECTIONS // STREAMS}", f"-m{STREAMS}", f"-D{RUN_SECONDS}", URL], parse_h2load)
MANIFESTS = {"HTTP": manifest(), "HTTP2": manifest(of_set="      protocol: HTTP2\n")}
KINDS = {"reuse.h1": (H1, "HTTP"), "reuse.h2": (H2, "HTTP"), "reuse.h1-to-h2": (H1, "HTTP2"), "reuse.h2-to-h2": (H2, "HTTP2")}


def run(stage):
    """Lines of figures, for each protocol of clients and backends."""
    for name, (generator, protocol) in KINDS.items():
        with stage.samples(), stage.proxy(MANIFESTS[protocol]):
            percent, row = steady(stage, *generator)
            yield figures.line(name, percent, "%", 3)
            yield figures.line(f"{name}.requests", row["requests"], "requests")


def steady(stage, command, parse):
    """The percentage between two looks at the metrics, and what the generator says."""
    log = f"{stage.folder}/generator.log"
    generator = Running(command[0], command, None, log)
    try:
        time.sleep(WARM_UP_SECONDS)
        before = metrics()
        time.sleep(SECONDS)
        after = metrics()
        generator.process.wait(RUN_SECONDS)
    finally:
        generator.stop()
    row = parse(open(log, errors="replace").read())
    if not row["requests"] or row["failed"]:
        raise Refused(f"{command[0]} had {row['requests']:.0f} answers, and {row['failed']:.0f} requests failed.")
    return figures.reused(before, after), row
