"""Processes, processors, memory and ports of the machine the comparison runs on."""
import os
import re
import resource
import signal
import socket
import subprocess
import time

PROXY_CORE = 1
LOAD_CORE = 0  # the generator and the origins
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 2


class Refused(Exception):
    """The comparison cannot run; the text is a sentence for the person who asked."""


def require_two_cores():
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise Refused("The proxy needs core 1 and the generator core 0; this process may not use both.")


def raise_open_files():
    """Allows this process and its children as many open files as the hard limit does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_free(ports):
    """Refuses when something listens on one of the ports, saying which; waits a moment for one that is just closing."""
    for port in ports:
        deadline = time.monotonic() + 3
        while listens(port):
            if time.monotonic() > deadline:
                raise Refused(f"Port 127.0.0.1:{port} is taken. End what listens there, then start again.")
            time.sleep(0.05)


def listens(port, address="127.0.0.1"):
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False


def pinned(core):
    return lambda: os.sched_setaffinity(0, {core})


class Running:
    """A process of ours and the children it starts, in a group of its own; on one core, or (`None`) on any."""

    def __init__(self, name, command, core, log):
        self.name = name
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, start_new_session=True, preexec_fn=None if core is None else pinned(core), stdout=output, stderr=output
            )

    def wait_until(self, ready, seconds=START_SECONDS_MAX):
        """Waits until `ready()`; refuses with the end of the log when the process ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = open(self.log, errors="replace").read()[-600:].strip()
                raise Refused(f"{self.name} did not begin to serve. Its last words: {said or '(none)'}")
            time.sleep(0.05)

    def stop(self):
        """SIGTERM, and SIGKILL for the group where that was not enough."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def cpu_seconds(self):
        """User and system time of the process and its children so far."""
        user = system = 0
        for pid in tree(self.process.pid):
            try:
                fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            user += int(fields[11])
            system += int(fields[12])
        return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND

    def pss_bytes(self):
        """Proportional set size: memory of its own plus its share of what is shared. Kernel memory is not in it."""
        total = 0
        for pid in tree(self.process.pid):
            try:
                total += int(re.search(r"Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read()).group(1))
            except (OSError, AttributeError):
                continue
        return total * 1024


def tree(pid):
    """The process and all its descendants."""
    found = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in open(f"/proc/{pid}/task/{thread}/children").read().split():
                found += tree(int(child))
    except OSError:
        pass
    return found
