#!/usr/bin/env python3
"""Origins that fail, refuse, take their time and hang up as they are told, and remember what reached them.

One process, a port for each origin and one for whoever directs them: a JSON object in a line there, one in return.

  {"do": "fail", "status": 500, "after": 1.0}   answer all requests so from now on
  {"do": "serve"}                               answer 200 again
  {"do": "report"}                              arrivals (moments of the monotonic clock), and ids that came twice
"""
import argparse
import asyncio
import json
import re
import time

# An origin remembers no more; a bench that sends more would report too little, so it is refused.
ARRIVALS_MAX = 2_000_000
HEAD_BYTES_MAX = 16 << 10


class Worker:
    """One processor of an origin, as a model: a request that is served takes it for `serve` seconds.

    One that finds more than `queue` seconds of work is refused at once, which takes `refuse` seconds as well: work is
    done for it before anybody knows that it is one too many (Mogul and Ramakrishnan, "Eliminating receive livelock in
    an interrupt-driven kernel", 1997). Work that waits never exceeds `backlog` seconds. The clock is an argument.
    """

    def __init__(self, serve, refuse, queue, backlog):
        self.serve, self.refuse, self.queue, self.backlog = serve, refuse, queue, backlog
        self.free_at = 0.0

    def take(self, now):
        """When the request that came now is served; None where it is refused."""
        self.free_at = max(self.free_at, now)
        if self.free_at - now > self.queue:
            self.free_at = min(self.free_at + self.refuse, now + self.backlog)
            return None
        self.free_at += self.serve
        return self.free_at


class Conduct:
    """What all origins do now, and what came so far."""

    def __init__(self, idle=None):
        self.idle, self.failure = idle, None
        self.arrivals, self.ids = [], {}

    def arrived(self, now, identity):
        if len(self.arrivals) >= ARRIVALS_MAX:
            raise SystemExit(f"More than {ARRIVALS_MAX} requests came.")
        self.arrivals.append(now)
        if identity:
            self.ids[identity] = self.ids.get(identity, 0) + 1

    def told(self, order):
        """Does as the order says, and gives the answer to it."""
        if order["do"] == "fail":
            self.failure = (order["status"], order["after"])
        elif order["do"] == "serve":
            self.failure = None
        elif order["do"] == "report":
            return {"arrivals": self.arrivals, "twice": sum(count > 1 for count in self.ids.values())}
        else:
            return {"unknown": order["do"]}
        return {}


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection. A proxy sends one request after the other, so one at a time is all it knows."""

    def __init__(self, conduct, worker):
        self.conduct, self.worker = conduct, worker
        self.received, self.hang_up = b"", None

    def connection_made(self, transport):
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def connection_lost(self, _error):
        self.stay()

    def data_received(self, piece):
        self.received += piece
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            if len(head) > HEAD_BYTES_MAX:
                self.transport.abort()
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        length = int(length.group(1)) if length else 0
        if len(rest) < length:
            return
        self.received = rest[length:]
        identity = re.search(rb"(?i)\r\nx-bench-id: *(\S+)", head)
        self.stay()
        self.respond(identity and identity.group(1).decode("latin-1"))

    def respond(self, identity):
        now = time.monotonic()
        self.conduct.arrived(now, identity)
        if self.conduct.failure:
            status, after = self.conduct.failure
            self.loop.call_later(after, self.write, status)
        elif self.worker is None:
            self.write(200)
        else:
            served_at = self.worker.take(now)
            self.write(503) if served_at is None else self.loop.call_at(served_at, self.write, 200)

    def write(self, status):
        if self.transport.is_closing():
            return
        self.transport.write(f"HTTP/1.1 {status} -\r\nContent-Length: 6\r\n\r\norigin".encode())
        if self.conduct.idle:
            self.hang_up = self.loop.call_later(self.conduct.idle, self.transport.close)

    def stay(self):
        if self.hang_up:
            self.hang_up.cancel()
            self.hang_up = None


async def direct(conduct, reader, writer):
    """One order, and its answer."""
    try:
        line = await reader.readline()
        if line:
            writer.write(json.dumps(conduct.told(json.loads(line))).encode())
            await writer.drain()
    finally:
        writer.close()


async def listen(conduct, ports, control, worker):
    """Listens on all ports; gives the servers. `worker` makes the worker of one origin, or None."""
    loop = asyncio.get_running_loop()
    serving = []
    for port in ports:
        own = worker()
        serving.append(await loop.create_server(lambda own=own: Connection(conduct, own), "127.0.0.1", port, backlog=1024))
    serving.append(await asyncio.start_server(lambda *ends: direct(conduct, *ends), "127.0.0.1", control))
    return serving


async def serve(options):
    def worker():
        return Worker(*options.worker) if options.worker else None

    await listen(Conduct(options.idle), options.ports, options.control, worker)
    await asyncio.get_running_loop().create_future()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--idle", type=float, help="seconds after which an idle connection is closed; never")
    parser.add_argument("--worker", type=float, nargs=4, metavar="SECONDS", help="to serve, to refuse, queue, backlog")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
