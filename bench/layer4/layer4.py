#!/usr/bin/env python3
"""What passing bytes on costs: CPU per relayed megabyte, per small answer, per connection, beside the peers' TCP modes.

The origins and loads are those of bench/compare, which ask HTTP of the origins through proxies that know nothing of it: the
proxy alone on core 1 with one worker, the client on core 0, a fresh process for each measurement, in several rounds of which
the median is printed.

  cargo build --release -p weir
  bench/layer4/layer4.py                          four minutes
  bench/layer4/layer4.py --rounds 1 --seconds 1   a first look
  bench/layer4/layer4.py --check                  no load
"""
import argparse
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../compare"))

import load
import machine
import peers
import selfcheck_layer4 as selfcheck
import trials

ROUNDS, SECONDS = 5, 4
# By the scenario of bench/compare, with the unit: what one request stands for.
SCENARIOS = {"relay": "h1-1m", "small": "h1", "connection": "h1-close"}
UNITS = {"relay": ("us/MB", 2), "small": ("us/answer", 2), "connection": ("us/connection", 2)}
WEIR_PORT, PEER_PORTS = 18193, {"haproxy": 18194, "haproxy-splice": 18195, "envoy": 18196}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="haproxy,haproxy-splice,envoy,weir", help="default: all that are there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement")
    parser.add_argument("--weir", metavar="BINARY", default=f"{peers.REPOSITORY}/target/release/weir")
    parser.add_argument("--chroot", metavar="DIR", help="take NGINX and HAProxy from this debootstrap folder (needs root)")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    return parser.parse_args()


def rendered(conf, peer, run, splice=""):
    """A configuration of conf/ with the peer's port, as a file of the run that is the peer's own."""
    text = open(f"{HERE}/conf/{conf}").read()
    text = text.replace("@PLAIN@", str(PEER_PORTS[peer])).replace("@SPLICE@", splice)
    return run.write(f"{peer}-{conf}", text)


def haproxy(name, splice=""):
    def peer(run, options):
        peers.require_program("haproxy", "apt-get install haproxy", options.chroot)
        command = ["haproxy", "-db", "-f", rendered("haproxy.cfg", name, run, splice)]
        return peers.Peer(name, PEER_PORTS[name], None, peers.inside(options.chroot) + command)

    return peer


def envoy(run, _options):
    binary = shutil.which("envoy") or peers.envoy_binary()
    if not binary:
        raise peers.Absent("no envoy on the PATH and none in the cache: bench/compare/compare.py --install-envoy")
    command = [binary, "--use-dynamic-base-id", "--concurrency", "1", "-l", "off", "-c"]
    return peers.Peer("envoy", PEER_PORTS["envoy"], None, [*command, rendered("envoy.yaml", "envoy", run)])


def weir(_run, options):
    if not os.path.exists(options.weir):
        raise peers.Absent(f"{options.weir} is not built: cargo build --release -p weir")
    serving = ["--workers", "1", "--admin", "127.0.0.1:0"]
    return peers.Peer("weir", WEIR_PORT, None, [options.weir, "run", f"{HERE}/pool", *serving])


ALL = {"haproxy": haproxy("haproxy"), "haproxy-splice": haproxy("haproxy-splice", "option splice-auto"), "envoy": envoy, "weir": weir}


def one(peer, step, options, run):
    """Starts a fresh process of the peer, takes one figure and ends it."""
    with trials.started(peer, run, lambda: machine.listens(peer.plain)) as running:
        row = load.measure(load.SCENARIOS[SCENARIOS[step]], peer, running, options.seconds)
    if row["failed"]:
        raise machine.Refused(f"{peer.name} failed {row['failed']:.0f} requests of {step}.")
    return row["cpu"]


def measure(options):
    with trials.stage("layer4", ALL, options) as (run, compared):
        results = trials.values(compared, UNITS, options.rounds, lambda peer, step: one(peer, step, options, run))
    for line in trials.figures("layer4", results, UNITS):
        print(line)
    return 0


def main():
    options = arguments()
    try:
        sys.exit(selfcheck.check(sys.modules[__name__]) if options.check else measure(options))
    except machine.Refused as why:
        sys.exit(f"layer4: {why}")


if __name__ == "__main__":
    main()
