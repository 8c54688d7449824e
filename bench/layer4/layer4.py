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
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../compare"))

import compare
import load
import machine
import peers
import selfcheck_layer4 as selfcheck

ROUNDS, SECONDS = 5, 4
# By the scenario of bench/compare, with the unit: what one request stands for.
STEPS = {"relay": ("h1-1m", "us/MB"), "small": ("h1", "us/answer"), "connection": ("h1-close", "us/connection")}
WEIR_PORT, PEER_PORTS = 18193, {"haproxy": 18194, "haproxy-splice": 18195, "envoy": 18196}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="haproxy,haproxy-splice,envoy,weir", help="default: all that are there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement")
    parser.add_argument("--weir", metavar="BINARY", default=f"{peers.REPOSITORY}/target/release/weir")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    return parser.parse_args()


def rendered(name, port, run, splice=""):
    """A configuration of conf/ with its port, as a file of the run."""
    text = open(f"{HERE}/conf/{name}").read()
    return run.write(name, text.replace("@PLAIN@", str(port)).replace("@SPLICE@", splice))


def haproxy(name, splice=""):
    def peer(run, _options):
        peers.require_program("haproxy", "apt-get install haproxy", None)
        port = PEER_PORTS[name]
        return peers.Peer(name, port, None, ["haproxy", "-db", "-f", rendered("haproxy.cfg", port, run, splice)])

    return peer


def envoy(run, _options):
    binary = shutil.which("envoy") or peers.envoy_binary()
    if not binary:
        raise peers.Absent("no envoy on the PATH and none in the cache: bench/compare/compare.py --install-envoy")
    command = [binary, "--use-dynamic-base-id", "--concurrency", "1", "-l", "off", "-c"]
    return peers.Peer("envoy", PEER_PORTS["envoy"], None, [*command, rendered("envoy.yaml", PEER_PORTS["envoy"], run)])


def weir(_run, options):
    if not os.path.exists(options.weir):
        raise peers.Absent(f"{options.weir} is not built: cargo build --release -p weir")
    serving = ["--workers", "1", "--admin", "127.0.0.1:0"]
    return peers.Peer("weir", WEIR_PORT, None, [options.weir, "run", f"{HERE}/pool", *serving])


ALL = {"haproxy": haproxy("haproxy"), "haproxy-splice": haproxy("haproxy-splice", "option splice-auto"), "envoy": envoy, "weir": weir}


def present(names, run, options):
    """Those of these peers that can be compared here; a line for each other one."""
    there = []
    for name in names:
        try:
            there.append(ALL[name](run, options))
        except peers.Absent as why:
            print(f"layer4: without {name}: {why}", file=sys.stderr)
    return there


def one(peer, step, options, run):
    """Starts a fresh process of the peer, takes one figure and ends it."""
    machine.require_free(peer.ports())
    running = machine.Running(peer.name, peer.command, machine.PROXY_CORE, f"{run.path}/{peer.name}.log")
    try:
        running.wait_until(lambda: machine.listens(peer.plain))
        row = load.measure(load.SCENARIOS[STEPS[step][0]], peer, running, options.seconds)
        if row["failed"]:
            raise machine.Refused(f"{peer.name} failed {row['failed']:.0f} requests of {step}.")
        return row["cpu"]
    finally:
        running.stop()


def figures(results):
    """`results`: by step and peer the values of all rounds."""
    for (step, peer), values in results.items():
        yield f"figure layer4.{step}.{peer} {statistics.median(values):.2f} {STEPS[step][1]}"


def measure(options):
    machine.require_two_cores()
    machine.raise_open_files()
    names = compare.known([name for name in options.peers.split(",") if name], ALL, "peer")
    results = {}
    with tempfile.TemporaryDirectory(prefix="weir-layer4-") as folder:
        run = peers.RunFolder(folder, None)
        compared = present(names, run, options)
        machine.require_free([*peers.ORIGIN_PORTS, *(peer.plain for peer in compared)])
        origin = machine.Running("the origin", peers.origin(run), machine.LOAD_CORE, f"{folder}/origin.log")
        try:
            origin.wait_until(lambda: machine.listens(peers.ORIGIN_PORTS[-1]))
            for number in range(options.rounds):
                for step in STEPS:
                    for peer in compared if number % 2 == 0 else reversed(compared):
                        value = one(peer, step, options, run)
                        results.setdefault((step, peer.name), []).append(value)
                        print(f"round {number + 1}  {step:10} {peer.name:14} {value:.6g}", file=sys.stderr, flush=True)
        finally:
            origin.stop()
    for line in figures(results):
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
