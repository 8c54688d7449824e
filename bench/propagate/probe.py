"""Asks the proxy all the while, in a process of its own, and notes who answered when."""
import socket
import time

from objects import HOST, LISTENER_PORT

# Every millisecond; where there are many proxies the probes would else take what the machine has.
POLL_NS, POLL_OF_MANY_NS, TAIL_NS = 1_000_000, 5_000_000, 200_000_000
WAIT_SECONDS_MAX = 15
REQUEST_SECONDS_MAX = 5


class Sample:
    """One request: when it was sent and answered in ns, its status (0: none), and who answered or what broke."""

    def __init__(self, sent, answered, status, name):
        self.sent, self.answered, self.status, self.name = sent, answered, status, name


class Probe:
    """One kept connection to the proxy at an address."""

    def __init__(self, address, host=HOST):
        self.address = address
        self.request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self.socket, self.received = None, b""

    def ask(self):
        sent = time.monotonic_ns()
        try:
            if self.socket is None:
                self.socket = socket.create_connection((self.address, LISTENER_PORT), REQUEST_SECONDS_MAX)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sent = time.monotonic_ns()
            self.socket.sendall(self.request)
            status, body = self.answer()
            return Sample(sent, time.monotonic_ns(), status, body.strip().decode(errors="replace"))
        except (OSError, ValueError, IndexError) as why:
            self.close()
            return Sample(sent, time.monotonic_ns(), 0, f"{type(why).__name__}: {why}")

    def answer(self):
        while b"\r\n\r\n" not in self.received:
            self.read()
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(fields[b"content-length"]) if b"content-length" in fields else 0
        while len(self.received) < length:
            self.read()
        body, self.received = self.received[:length], self.received[length:]
        if fields.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split(b" ", 2)[1]), body

    def read(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise OSError("closed")
        self.received += piece

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket, self.received = None, b""


def serve(address, poll_ns, pipe):
    """For each name that comes: asks every so many ns over a fresh connection until that backend answers and a while longer, then sends
    all samples. The first thing sent says that the asking has begun."""
    while (awaited := pipe.recv()) is not None:
        probe, samples = Probe(address), []
        due = time.monotonic_ns()
        end = due + WAIT_SECONDS_MAX * 10**9
        seen = False
        while time.monotonic_ns() < end:
            sample = probe.ask()
            samples.append(sample)
            if len(samples) == 1:
                pipe.send("asking")
            if not seen and sample.status == 200 and sample.name == awaited:
                seen, end = True, sample.answered + TAIL_NS
            due += poll_ns
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            else:
                due = time.monotonic_ns()
        probe.close()
        pipe.send(samples)


def watch(cluster, path, pipe):
    """A bare watch for reference: sends the moment at which each change was read, and the address in it."""
    for read, event in cluster.client().lines(path):
        if event["type"] in ("ADDED", "MODIFIED"):
            pipe.send((read, event["object"]["endpoints"][0]["addresses"][0]))
