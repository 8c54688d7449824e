"""A network of its own, so that endpoints have addresses that the API server accepts and every port is free."""
import os
import shutil
import subprocess
import sys

from machine import Refused

INSIDE = "WEIR_PROPAGATE_INSIDE"
NODE, ONE, OTHER = "10.77.0.1", "10.77.0.10", "10.77.0.11"
# Endpoints of services that nobody asks for: nothing listens there, and nothing leaves the machine.
FILL_PREFIX = "10.78"
ADVICE = "it needs root (or user namespaces) and the Debian packages util-linux and iproute2"


def enter():
    """Starts this program again in a network namespace with nothing but a loopback interface; returns inside."""
    if os.environ.get(INSIDE):
        addresses()
        return
    for program in ("unshare", "ip"):
        if not shutil.which(program):
            raise Refused(f"There is no `{program}` to make a network namespace with: {ADVICE}.")
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--net", *rights, sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


def addresses():
    commands = [["link", "set", "lo", "up"], *(["address", "add", f"{each}/32", "dev", "lo"] for each in (NODE, ONE, OTHER))]
    for command in commands:
        done = subprocess.run(["ip", *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(f"`ip {' '.join(command)}` failed ({done.stderr.strip()}): {ADVICE}.")


def fill_address(index):
    """The address of the endpoint of this number, 0 to 65,535."""
    return f"{FILL_PREFIX}.{index // 256}.{index % 256}"
