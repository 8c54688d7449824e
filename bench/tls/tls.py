#!/usr/bin/env python3
"""What TLS costs: full and resumed handshakes for each second of CPU, CPU per request, memory per idle connection.

Weir beside its peers as in bench/compare, whose peers, origins and loads these are: the proxy alone on core 1 with one
worker, the client on core 0, a fresh process for each measurement, in several rounds of which the median is printed. A
handshake is TLS 1.3 with X25519 and an ECDSA certificate, or resumed by a ticket, and carries one request with a small
answer, so that both sides see its end.

  cargo build --release -p weir
  bench/tls/tls.py                          about ten minutes
  bench/tls/tls.py --rounds 1 --seconds 1   a first look
  bench/tls/tls.py --check                  no load
"""
import argparse
import os
import socket
import ssl
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "../compare"))

import load
import machine
import peers
import selfcheck_tls as selfcheck
import trials

ROUNDS, SECONDS = 5, 4
# What is measured over kept connections, by the scenario of bench/compare.
REQUESTS = {"request.h1": "h1-tls", "request.h2": "h2-tls"}
HANDSHAKES = ("full", "resumed")
REQUEST = b"GET /0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="nginx,haproxy,envoy,weir", help="default: all of these that are there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each measurement")
    parser.add_argument("--weir", metavar="BINARY", default=f"{peers.REPOSITORY}/target/release/weir")
    parser.add_argument("--chroot", metavar="DIR", help="take NGINX and HAProxy from this debootstrap folder (needs root)")
    parser.add_argument("--check", action="store_true", help="check this program without putting load on anything")
    return parser.parse_args()


def client():
    """TLS 1.3 alone; the bench certificate is self-signed and not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def connection(context, port, session=None):
    """One handshake with one request: whether it was resumed, and a session to resume."""
    with socket.create_connection(("127.0.0.1", port), 5) as bare:
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(bare, server_hostname="localhost", session=session) as secured:
            secured.sendall(REQUEST)
            answer = secured.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise machine.Refused(f"a handshake's request was answered {answer[:40]!r}")
            return secured.session_reused, secured.session


def handshakes(kind, peer, running, seconds):
    """Handshakes for each second of the proxy's CPU, one after the other for so many seconds."""
    context = client()
    _, session = connection(context, peer.secure)
    session = session if kind == "resumed" else None
    count, before, end = 0, sum(running.cpu_seconds()), time.monotonic() + seconds
    while time.monotonic() < end:
        was_resumed, _ = connection(context, peer.secure, session)
        if was_resumed != (kind == "resumed"):
            raise machine.Refused(f"{peer.name}: a handshake that should be {kind} was not.")
        count += 1
    spent = sum(running.cpu_seconds()) - before
    if spent <= 0:
        raise machine.Refused(f"{peer.name} used no CPU that could be seen: measure for longer (--seconds).")
    return count / spent


def one(peer, step, options, run):
    """Starts a fresh process of the peer, takes one figure and ends it."""
    with trials.started(peer, run, lambda: load.serves(peer)) as running:
        if step in HANDSHAKES:
            return handshakes(step, peer, running, options.seconds)
        if step in REQUESTS:
            return load.measure(load.SCENARIOS[REQUESTS[step]], peer, running, options.seconds)["cpu"]
        return load.idle(peer, running, tls=True)["bytes"]


UNITS = {
    "full": ("handshakes/cpu-second", 0),
    "resumed": ("handshakes/cpu-second", 0),
    "request.h1": ("us/request", 2),
    "request.h2": ("us/request", 2),
    "idle": ("bytes/connection", 0),
}


def measure(options):
    with trials.stage("tls", peers.ALL, options) as (run, present):
        compared = [peer for peer in present if peer.secure]
        os.sched_setaffinity(0, {machine.LOAD_CORE})
        results = trials.values(compared, UNITS, options.rounds, lambda peer, step: one(peer, step, options, run))
    for line in trials.figures("tls", results, UNITS):
        print(line)
    return 0


def main():
    options = arguments()
    try:
        sys.exit(selfcheck.check(sys.modules[__name__]) if options.check else measure(options))
    except machine.Refused as why:
        sys.exit(f"tls: {why}")


if __name__ == "__main__":
    main()
