"""What is asked of a proxy, and reading what the generators say about it."""
import re
import socket
import ssl
import subprocess
import time

from machine import LOAD_CORE, Refused, pinned

IDLE_PLAIN, IDLE_TLS = 8000, 4000
SETTLE_SECONDS = 1
WARM_UP_SECONDS = 1


class Scenario:
    """One kind of load: a generator, its connections, the port and the answer it asks for."""

    def __init__(self, title, generator, answer, tls=False, connections=64, close=False):
        self.title, self.generator, self.answer = title, generator, answer
        self.tls, self.connections, self.close = tls, connections, close

    def command(self, peer, seconds):
        scheme, port = ("https", peer.secure) if self.tls else ("http", peer.plain)
        url = f"{scheme}://127.0.0.1:{port}/{self.answer}"
        if self.generator == "h2load":
            return ["h2load", "-t1", f"-c{self.connections}", "-m32", f"-D{seconds}", url]
        close = ["-H", "Connection: close"] if self.close else []
        return ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--latency", *close, url]


SCENARIOS = {
    "h1": Scenario("HTTP/1.1, 1 KB, keep-alive", "wrk", "1k"),
    "h1-tls": Scenario("the same over TLS 1.3", "wrk", "1k", tls=True),
    "h2-tls": Scenario("HTTP/2 over TLS, 16 x 32 streams", "h2load", "1k", tls=True, connections=16),
    "h1-1m": Scenario("1 MB body", "wrk", "1m", connections=16),
    "h1-1m-tls": Scenario("1 MB body over TLS", "wrk", "1m", tls=True, connections=16),
    "h1-close": Scenario("connection per request", "wrk", "1k", close=True),
    "tls-handshakes": Scenario("full TLS 1.3 handshake + request (P-256)", "wrk", "1k", tls=True, close=True),
}
# Not a load but a wait: see `idle`.
IDLE = "idle"


def measure(scenario, peer, running, seconds):
    """Warms up, measures, and gives a row: requests, rate, CPU per request, latency, failures."""
    generate(scenario.command(peer, WARM_UP_SECONDS))
    before = running.cpu_seconds()
    said = generate(scenario.command(peer, seconds))
    after = running.cpu_seconds()
    row = parse_h2load(said) if scenario.generator == "h2load" else parse_wrk(said)
    if not row["requests"]:
        raise Refused(f"{peer.name} answered no request. The generator said: {said.strip()[-600:]}")
    user, system = after[0] - before[0], after[1] - before[1]
    row["cpu"] = (user + system) / row["requests"] * 1e6
    row["user"] = user / row["requests"] * 1e6
    row["core_percent"] = (user + system) / seconds * 100
    return row


def generate(command):
    done = subprocess.run(command, preexec_fn=pinned(LOAD_CORE), capture_output=True, text=True)
    return done.stdout + done.stderr


def parse_wrk(said):
    failed = number(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed += sum(int(count) for count in errors.groups()) if errors else 0
    return {
        "requests": number(r"(\d+) requests in", said),
        "rate": number(r"Requests/sec:\s+([\d.]+)", said),
        "failed": failed,
        "p50": milliseconds(r"50%\s+([\d.]+)(us|ms|s)", said),
        "p99": milliseconds(r"99%\s+([\d.]+)(us|ms|s)", said),
    }


def parse_h2load(said):
    """h2load prints least, most, mean and deviation of latencies and no percentiles, so there are none here."""
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    succeeded, *failed = (int(count) for count in counts.groups()) if counts else (0, 0)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    refused = sum(int(count) for count in codes.groups()[1:]) if codes else 0
    return {
        "requests": succeeded,
        "rate": number(r"finished in [\d.]+\w+, ([\d.]+) req/s", said),
        "failed": sum(failed) + refused,
        "p50": None,
        "p99": None,
    }


def number(pattern, text):
    found = re.search(pattern, text)
    return float(found.group(1)) if found else 0


def milliseconds(pattern, text):
    found = re.search(pattern, text)
    return float(found.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[found.group(2)] if found else None


def idle(peer, running, tls):
    """Bytes of the proxy's own memory for each idle connection that has served one request, and memory before."""
    count = IDLE_TLS if tls else IDLE_PLAIN
    rest = running.pss_bytes()
    held = []
    try:
        for _ in range(count):
            held.append(one_request(peer.secure if tls else peer.plain, tls))
    except OSError as error:
        raise Refused(f"{peer.name} held {len(held)} idle connections of {count}, then: {error}") from error
    else:
        time.sleep(SETTLE_SECONDS)
        return {"bytes": (running.pss_bytes() - rest) / count, "rest": rest}
    finally:
        for connection in held:
            connection.close()


def one_request(port, tls):
    connection = socket.create_connection(("127.0.0.1", port), 5)
    # Else the request waits for the acknowledgement of what ends the handshake, which comes 40 ms later.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        connection = client_tls().wrap_socket(connection)
    connection.sendall(b"GET /0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("it closed the connection while answering")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"it answered {answer.splitlines()[0].decode('latin-1')}")
    return connection


def client_tls(made=[]):
    """One client configuration for all connections; the bench certificate is self-signed and not checked."""
    if not made:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        made.append(context)
    return made[0]


def serves(peer):
    """Whether the proxy answers 200 on all its ports."""
    try:
        for port in peer.ports():
            one_request(port, port == peer.secure).close()
    except OSError:
        return False
    return True
