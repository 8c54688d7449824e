#!/usr/bin/env python3
"""What a proxy does with HTTP/1 messages that two readers may understand differently.

Starts COMMAND, which must listen on --port and forward to 127.0.0.1:19001-19004, sends it one ambiguous request at a
time over a raw socket and prints its answer and the exact bytes that arrived at the origin behind it.

usage: strictness.py --port 18190 -- COMMAND...
"""
import argparse
import socket
import subprocess
import sys
import threading
import time

ORIGIN_PORTS = (19001, 19002, 19003, 19004)
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def post(*lines, body=b"", version=b"1.1"):
    head = b"\r\n".join((b"POST / HTTP/" + version, b"Host: a", *lines))
    return head + b"\r\n\r\n" + body


def get(*lines, target=b"/"):
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", *lines)) + b"\r\n\r\n"


TE = b"Transfer-Encoding: "
CASES = {
    "nothing wrong": post(TE + b"chunked", body=CHUNKED),
    "Content-Length, then chunked": post(b"Content-Length: 4", TE + b"chunked", body=CHUNKED),
    "chunked, then Content-Length": post(TE + b"chunked", b"Content-Length: 4", body=CHUNKED),
    "two equal lengths": post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "length 5, 5": post(b"Content-Length: 5, 5", body=b"hello"),
    "two differing lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    "length +5": post(b"Content-Length: +5", body=b"hello"),
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: a\nX-A: b\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
    "bare CR in a value": get(b"Host: a", b"X-A: b\rc"),
    "obs-fold": get(b"Host: a", b"X-A: b\r\n c"),
    "space before colon": get(b"Host: a", b"X-A : b"),
    "chunked, identity": post(TE + b"chunked, identity", body=CHUNKED),
    "xchunked": post(TE + b"xchunked", body=CHUNKED),
    "gzip, chunked": post(TE + b"gzip, chunked", body=CHUNKED),
    "chunked twice": post(TE + b"chunked", TE + b"chunked", body=CHUNKED),
    "HTTP/1.0 chunked": post(TE + b"chunked", body=CHUNKED, version=b"1.0"),
    "no Host": get(b"X-A: b"),
    "two Hosts": get(b"Host: a", b"Host: b"),
    "Host a/b": get(b"Host: a/b"),
    "absolute form, other Host": get(b"Host: a", target=b"http://b/"),
    "bare LF after a chunk size": post(TE + b"chunked", body=b"5\nhello\r\n0\r\n\r\n"),
    "bare LF after a chunk extension": post(TE + b"chunked", body=b"5;x\nhello\r\n0\r\n\r\n"),
    "space after a chunk size": post(TE + b"chunked", body=b"5 \r\nhello\r\n0\r\n\r\n"),
    "HTTP/1.2": post(version=b"1.2"),
}


class Origin:
    """Answers each connection once and remembers what it was sent."""

    def __init__(self):
        self.received = []
        for port in ORIGIN_PORTS:
            listener = socket.create_server(("127.0.0.1", port))
            threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        request = read_until(connection, b"\r\n\r\n", 2)
        if b"\r\n\r\n" in request:
            # What follows a head is read until nothing more comes for a moment: this side must not guess the framing.
            request += read_until(connection, None, 0.2)
            self.received.append(request)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        connection.close()


def read_until(connection, end, seconds):
    """Reads until `end` was seen, the peer closed or nothing came for so many seconds."""
    connection.settimeout(seconds)
    data = b""
    try:
        while end is None or end not in data:
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
    except OSError:
        pass
    return data


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("command", nargs="+")
    arguments = arguments.parse_args()
    origin = Origin()
    proxy = subprocess.Popen(arguments.command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", arguments.port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or proxy.poll() is not None:
                    sys.exit(f"strictness: nothing listens on 127.0.0.1:{arguments.port}")
                time.sleep(0.05)
        for name, request in CASES.items():
            origin.received.clear()
            with socket.create_connection(("127.0.0.1", arguments.port)) as connection:
                connection.sendall(request)
                answer = read_until(connection, b"\r\n\r\n", 2)
            status = answer.split(b"\r\n")[0].decode("latin-1") or "no answer"
            forwarded = origin.received[0] if origin.received else "nothing"
            print(f"{name:32} {status:32} forwarded: {forwarded}", flush=True)
    finally:
        proxy.terminate()
        proxy.wait()


main()
