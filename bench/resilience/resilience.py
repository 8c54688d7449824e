#!/usr/bin/env python3
"""What circuits, the retry budget and kept connections do: for the backends, and for those who ask.

Each experiment starts its origins and one proxy with one worker, and nothing but the settings it is about.

  cargo build --release -p weir
  bench/resilience/resilience.py                          all of it: three minutes
  bench/resilience/resilience.py --experiments breaker    one of breaker, storm, reuse, stale
  bench/resilience/resilience.py --check                  no load: what needs no build

What the figures mean, and what they do not: docs/benchmarks.md.
"""
import argparse
import os
import shutil
import sys
import tempfile

# How processes are started and ended, and how generators are read, is the same as in the comparison.
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../compare"))

import breaker
import figures
import reuse
import selfcheck
import stale
import storm
from machine import Refused, raise_open_files, require_free
from stage import PORTS, Stage

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
EXPERIMENTS = {"breaker": breaker, "storm": storm, "reuse": reuse, "stale": stale}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS), help="separated by commas; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binaries", metavar="FOLDER", default=f"{REPOSITORY}/target/release")
    parser.add_argument("--write-docs", action="store_true", help="rewrite the results in docs/benchmarks.md; all experiments")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    options = parser.parse_args()
    options.experiments = options.experiments.split(",")
    if any(name not in EXPERIMENTS for name in options.experiments):
        parser.error(f"--experiments are some of {','.join(EXPERIMENTS)}")
    if options.write_docs and set(options.experiments) != set(EXPERIMENTS):
        parser.error("--write-docs writes the results of all experiments")
    return options


def require(options):
    """Refuses where something is missing or in the way."""
    weir = f"{options.binaries}/weir"
    if not os.path.isfile(weir):
        raise Refused(f"There is no {weir}: cargo build --release -p weir")
    for program in ("wrk", "h2load") if "reuse" in options.experiments else ():
        if not shutil.which(program):
            raise Refused(f"{program} is not installed: apt-get install wrk nghttp2-client")
    require_free(PORTS)
    return weir


def main():
    options = arguments()
    try:
        if options.check:
            sys.exit(selfcheck.check())
        weir, printed = require(options), []
        raise_open_files()
        for name in options.experiments:
            with tempfile.TemporaryDirectory(prefix="weir-resilience-") as folder:
                for line in EXPERIMENTS[name].run(Stage(weir, folder, options.seed)):
                    print(line, flush=True)
                    printed.append(line)
        if options.write_docs:
            figures.write_docs(printed)
    except Refused as why:
        sys.exit(f"resilience: {why}")


if __name__ == "__main__":
    main()
