"""Where peers are measured side by side: one origin for all, a fresh process for each measurement, rounds that alternate."""
import statistics
import sys
import tempfile
from contextlib import contextmanager

import machine
import peers


def known(names, of, what):
    """The names of a list with commas, or a refusal of the first that is none of these."""
    names = [name for name in names.split(",") if name]
    for name in names:
        if name not in of:
            raise machine.Refused(f"There is no {what} {name!r}. There are: {', '.join(of)}.")
    return names


def present(makers, run, options):
    """The peers of `options.peers` that this machine has; a line for each that it has not."""
    found = []
    for name in known(options.peers, makers, "peer"):
        try:
            found.append(makers[name](run, options))
        except peers.Absent as why:
            print(f"skipped {name}: {why}", file=sys.stderr, flush=True)
    return found


@contextmanager
def stage(bench, makers, options):
    """The run's folder and the peers that are there, with the origins serving meanwhile."""
    machine.require_two_cores()
    machine.raise_open_files()
    with tempfile.TemporaryDirectory(prefix=f"weir-{bench}-") as folder:
        run = peers.RunFolder(folder, options.chroot)
        compared = present(makers, run, options)
        machine.require_free([*peers.ORIGIN_PORTS, *(port for peer in compared for port in peer.ports())])
        origin = machine.Running("the origin", peers.origin(run), machine.LOAD_CORE, f"{folder}/origin.log")
        try:
            origin.wait_until(lambda: machine.listens(peers.ORIGIN_PORTS[-1]))
            yield run, compared
        finally:
            origin.stop()


@contextmanager
def started(peer, run, is_ready):
    """A fresh process of the peer, for one measurement."""
    machine.require_free(peer.ports())
    running = machine.Running(peer.name, peer.command, machine.PROXY_CORE, f"{run.path}/{peer.name}.log")
    try:
        running.wait_until(is_ready)
        yield running
    finally:
        running.stop()


def in_turn(compared, number):
    """Every other round backwards, so that nobody always runs on the machine another has warmed."""
    return compared if number % 2 == 0 else reversed(compared)


def values(compared, steps, rounds, take):
    """`take(peer, step)` for each, round by round: by step and peer the values of all rounds."""
    results = {}
    for number in range(rounds):
        for step in steps:
            for peer in in_turn(compared, number):
                value = take(peer, step)
                results.setdefault((step, peer.name), []).append(value)
                print(f"round {number + 1}  {step:10} {peer.name:14} {value:.6g}", file=sys.stderr, flush=True)
    return results


def figures(bench, results, units):
    """Lines `figure NAME VALUE UNIT` with the medians; `units` are a unit and its decimal places by step."""
    for (step, peer), taken in results.items():
        unit, places = units[step]
        yield f"figure {bench}.{step}.{peer} {statistics.median(taken):.{places}f} {unit}"
