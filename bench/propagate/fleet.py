"""Controller and proxies: real ones, which serve requests, and light ones, which only follow."""
import http.client
import os
import select
import signal
import subprocess
import time

import cluster
import objects
from machine import Refused, Running

CONTROLLER_PORT, CONTROLLER_ADMIN, PROXY_ADMIN = 9901, 9902, 9903
# Each on a loopback address of its own. They serve, so that what is measured is not only a copy in memory.
REAL_MAX = 3
WAIT_SECONDS_MAX = 60


def real_addresses(proxies):
    return [f"127.0.0.{number + 1}" for number in range(min(proxies, REAL_MAX))]


class Fleet:
    """One controller and `proxies` of it, as processes."""

    def __init__(self, control, folder, options):
        binaries = options.binaries
        needed = ["weir-controller", "weir-proxy"] + (["examples/light-proxies"] if options.proxies > REAL_MAX else [])
        for name in needed:
            if not os.path.isfile(f"{binaries}/{name}"):
                raise Refused(f"There is no {binaries}/{name}: cargo build --release -p weir --bins --examples")
        self.folder, self.binaries, self.control = folder, binaries, control
        self.proxies = []
        self.light = None
        # Proxies first where there are many: they begin at once, as after an outage of the controller.
        if options.proxies > REAL_MAX:
            self.light = Light(options.proxies - REAL_MAX, f"{binaries}/examples/light-proxies", folder)
        self.controller = None if self.light else self.start_controller()
        for number, address in enumerate(real_addresses(options.proxies)):
            command = [
                f"{binaries}/weir-proxy", "--controller", f"http://127.0.0.1:{CONTROLLER_PORT}", "--workers", "1",
                "--bind", address, "--admin", f"127.0.0.1:{PROXY_ADMIN + number}", "--id", f"real-{number}",
            ]
            self.proxies.append(Running(f"weir-proxy {number}", command, None, f"{folder}/proxy-{number}.log"))
        if self.light:
            self.controller = self.start_controller()

    def start_controller(self):
        command = [
            f"{self.binaries}/weir-controller", "--kubeconfig", self.control.kubeconfig, "--namespace", objects.NAMESPACE,
            "--listen", f"127.0.0.1:{CONTROLLER_PORT}", "--admin", f"127.0.0.1:{CONTROLLER_ADMIN}",
        ]
        return Running("weir-controller", command, None, f"{self.folder}/controller.log")

    def kill_controller(self):
        os.kill(self.controller.process.pid, signal.SIGKILL)
        self.controller.stop()

    def all_ready(self):
        """From the controller's caches' sync until the last proxy is in step, in seconds."""
        wait_for_ready(CONTROLLER_ADMIN)
        synced = time.time_ns()
        for number in range(len(self.proxies)):
            wait_for_ready(PROXY_ADMIN + number)
        last = time.time_ns()
        if self.light:
            last = max(last, self.light.synced())
        return (last - synced) / 1e9

    def stop(self):
        for part in [*self.proxies, self.light, self.controller]:
            if part:
                part.stop()


def wait_for_ready(port):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.005)
    raise Refused(f"What answers on 127.0.0.1:{port} was not ready in {WAIT_SECONDS_MAX} s.")


class Light:
    """Proxies that only follow, in one process."""

    def __init__(self, count, program, folder):
        self.count = count
        self.begun = time.time_ns()
        command = [program, f"http://127.0.0.1:{CONTROLLER_PORT}", str(count), f"{objects.NAMESPACE}/{objects.NAME}", "all"]
        with open(f"{folder}/light.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.pending = b""
        self.told = []

    def synced(self):
        """When the last one came into step; in ns since 1970."""
        return int(self.next("synced")[1])

    def all_have(self, address, since):
        """When the last one had this backend and no other, `since` or after it; both in ns since 1970."""
        while (moment := int(self.next("all", f"{address}:{objects.BACKEND_PORT}")[2])) < since:
            pass
        return moment

    def received(self):
        """Bytes and messages that came to all of them so far."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return tuple(int(number) for number in self.next("received")[1:])

    def next(self, *begin):
        """The first line with this begin that was not read yet. Those before it are not read again."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            for index, line in enumerate(self.told):
                if line[: len(begin)] == list(begin):
                    del self.told[index]
                    return line
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Refused(f"The light proxies did not say `{' '.join(begin)}` in {WAIT_SECONDS_MAX} s.")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise Refused("The light proxies have ended.")
            *lines, self.pending = (self.pending + piece).split(b"\n")
            self.told += [line.decode().split() for line in lines]

    def cpu_seconds(self):
        return Running.cpu_seconds(self)

    def stop(self):
        self.process.kill()
        self.process.wait()
