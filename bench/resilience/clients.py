"""Who asks: at moments that do not depend on the answers, each request over a connection of its own."""
import asyncio
import json
import random
import time
from typing import NamedTuple

# Far past everything that is waited for here: nobody waits for what is lost.
ANSWER_SECONDS_MAX = 20
REPORT_SECONDS_MAX = 10


class Answer(NamedTuple):
    """What became of a request. Times are of the monotonic clock, in seconds."""

    sent: float
    took: float
    # 0: there was none.
    status: int
    body: bytes


async def ask(port, method="GET", identity=None):
    """One request; never fails."""
    writer, sent = None, time.monotonic()
    head = f"{method} / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
    head += f"X-Bench-Id: {identity}\r\n" if identity else ""
    head += "Content-Length: 4\r\n\r\nbody" if method == "POST" else "\r\n"
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode())
            status, body = parse(await reader.read())
    except (OSError, TimeoutError):
        status, body = 0, b""
    finally:
        if writer is not None:
            writer.close()
    return Answer(sent, time.monotonic() - sent, status, body)


def parse(received):
    """Status and body of a whole response; 0 for what is none."""
    head, found, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    is_response = found and words[0] == b"HTTP/1.1" and len(words) > 1 and words[1].isdigit()
    return (int(words[1]), body) if is_response else (0, b"")


async def open_loop(port, rate, seconds, seed):
    """Requests at moments of a Poisson process; the answers, in the order in which they were asked for."""
    chance = random.Random(seed)
    clock = asyncio.get_running_loop().time
    at, tasks = clock(), []
    end = at + seconds
    while at < end:
        await asyncio.sleep(max(0, at - clock()))
        tasks.append(asyncio.create_task(ask(port)))
        at += chance.expovariate(rate)
    return list(await asyncio.gather(*tasks))


async def direct(control, **order):
    """Gives the origins an order; their answer, and when it had come."""
    async with asyncio.timeout(REPORT_SECONDS_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", control)
        try:
            writer.write(json.dumps(order).encode() + b"\n")
            told = json.loads(await reader.read())
        finally:
            writer.close()
    return told, time.monotonic()
