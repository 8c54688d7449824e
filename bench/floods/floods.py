#!/usr/bin/env python3
"""What others notice while somebody floods the proxy, or is slow on purpose, and what it takes in memory.

Requests come at 200 a second, each over a connection of its own: first with nothing else, then under each flood. Printed
are their p99, how many were not answered 200, and how much the proxy grew.

  cargo build --release -p weir
  bench/floods/floods.py                  two minutes
  bench/floods/floods.py --floods reset   one of them
  bench/floods/floods.py --check          no load
"""
import argparse
import asyncio
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "../compare"), os.path.join(HERE, "../resilience")]

import figures
import selfcheck
from clients import open_loop
from machine import Refused, raise_open_files, require_free
from stage import POOL_PORT, PORTS, Stage, manifest, metrics

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
RATE, SECONDS, SEED = 200, 8, 1
CONNECTIONS = 4
SLOW_CONNECTIONS = 1_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CUT = 'weir_http2_connections_cut_total{excess="%s"}'


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def head(method):
    fields = ((b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
    return b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)


GET, POST = head(b"GET"), head(b"POST")


def rapid_reset(nth):
    return frame(1, 5, 2 * nth + 1, GET) + frame(3, 0, 2 * nth + 1, b"\0\0\0\x08")


def made_reset(nth):
    return frame(1, 4, 2 * nth + 1, POST) + frame(8, 0, 2 * nth + 1, b"\x7f\xff\xff\xff")


def continuation(nth):
    return frame(9, 0, 1) if nth else frame(1, 0, 1, GET)


FLOODS = {
    "reset": rapid_reset,
    "made-reset": made_reset,
    "ping": lambda _: frame(6, 0, 0, bytes(8)),
    "settings": lambda _: frame(4, 0, 0),
    "window": lambda _: frame(8, 0, 0, b"\0\0\0\1"),
    "continuation": continuation,
}
SLOW = {
    "slow-head": b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
    "slow-body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    "slow-reader": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 200,
}


async def flood(piece):
    """The same over and over; a new connection for one that is ended."""
    while True:
        writer = reading = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", POOL_PORT)
            reading = asyncio.create_task(reader.read(-1))
            writer.write(PREFACE + frame(4, 0, 0))
            nth = 0
            while not reading.done():
                writer.write(b"".join(piece(n) for n in range(nth, nth + 100)))
                nth += 100
                await writer.drain()
                await asyncio.sleep(0)
        except OSError:
            await asyncio.sleep(0.001)
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if writer is not None:
                writer.close()


async def slow(begin, drips):
    """One client that sends a byte a second, or reads nothing."""
    while True:
        writer = None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", POOL_PORT, limit=1)
            writer.write(begin)
            while not writer.is_closing():
                await asyncio.sleep(1)
                if drips:
                    writer.write(b"x")
                    await writer.drain()
        except OSError:
            await asyncio.sleep(0.1)
        finally:
            if writer is not None:
                writer.close()


def attackers(name):
    if name in FLOODS:
        return [flood(FLOODS[name]) for _ in range(CONNECTIONS)]
    return [slow(SLOW[name], name != "slow-reader") for _ in range(SLOW_CONNECTIONS)] if name in SLOW else []


async def attack(name):
    await asyncio.gather(*attackers(name))


async def under(name, proxy):
    """Answers of the others, and bytes that the proxy grew by at most. The attackers are a process of their own."""
    most = before = proxy.pss_bytes()
    attacker = subprocess.Popen([sys.executable, __file__, "--attack", name]) if name != "quiet" else None
    try:
        load = asyncio.create_task(open_loop(POOL_PORT, RATE, SECONDS, SEED))
        while not load.done():
            await asyncio.wait([load], timeout=1)
            most = max(most, proxy.pss_bytes())
        return await load, most - before
    finally:
        if attacker is not None:
            attacker.kill()
            attacker.wait()


def lines(name, answers, grown):
    took = sorted(answer.took for answer in answers)
    yield figures.line(f"flood.{name}.p99", 1e3 * took[int(0.99 * (len(took) - 1))], "ms", 2)
    yield figures.line(f"flood.{name}.failed", sum(answer.status != 200 for answer in answers), "requests")
    yield figures.line(f"flood.{name}.requests", len(answers), "requests")
    yield figures.line(f"flood.{name}.grown", grown / 1e6, "MB", 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["quiet", *FLOODS, *SLOW]
    parser.add_argument("--floods", default=",".join(everything), help="some of them, with commas between")
    parser.add_argument("--attack", choices=everything, help=argparse.SUPPRESS)
    parser.add_argument("--binaries", metavar="FOLDER", default=f"{REPOSITORY}/target/release")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    options = parser.parse_args()
    options.floods = options.floods.split(",")
    unknown = set(options.floods) - set(everything)
    if unknown:
        parser.error(f"there is no flood {', '.join(sorted(unknown))}: use {', '.join(everything)}")
    return options


def main():
    options = arguments()
    try:
        if options.attack:
            raise_open_files()
            asyncio.run(attack(options.attack))
        if options.check:
            sys.exit(selfcheck.check(sys.modules[__name__]))
        weir = f"{options.binaries}/weir"
        if not os.path.isfile(weir):
            raise Refused(f"There is no {weir}: cargo build --release -p weir")
        require_free(PORTS)
        raise_open_files()
        for name in options.floods:
            with tempfile.TemporaryDirectory(prefix="weir-floods-") as folder:
                stage = Stage(weir, folder, SEED)
                with stage.samples(), stage.proxy(manifest()) as proxy:
                    for line in lines(name, *asyncio.run(under(name, proxy))):
                        print(line, flush=True)
                    for excess in ("resets", "control_frames"):
                        cut = metrics().get(CUT % excess, 0)
                        if cut:
                            print(figures.line(f"flood.{name}.cut.{excess.replace('_', '-')}", cut, "connections"), flush=True)
    except Refused as why:
        sys.exit(f"floods: {why}")


if __name__ == "__main__":
    main()
