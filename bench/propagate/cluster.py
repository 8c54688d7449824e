"""etcd and kube-apiserver, started for one run, and a client of the latter."""
import http.client
import json
import os
import socket
import ssl
import subprocess
import time

import network
from machine import Refused, Running

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.realpath(f"{HERE}/../..")
PORT, ETCD_PORT, TOKEN = 6443, 2379, "bench"
# At rest: less than this part of a core for so many seconds.
REST_CORES_MAX, REST_SECONDS, REST_SECONDS_MAX = 0.1, 2, 120
# Slow enough for a machine that also builds, and once for each run.
START_SECONDS_MAX = 60
MERGE = "application/merge-patch+json"


def programs():
    """Paths of etcd and kube-apiserver, by name; the first call on a machine may build them."""
    build = f"{REPOSITORY}/tests/kube/build"
    done = subprocess.run([build], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Refused(f"{build} has no control plane for us; what it said is above.")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


class Cluster:
    """A control plane in a folder, and its administrator's kubeconfig."""

    def __init__(self, folder, certificate, key):
        """Any certificate with its key: the API server signs tokens of service accounts with it, which nobody asks for."""
        self.folder = folder
        self.kubeconfig = f"{folder}/kubeconfig"
        self.authority = f"{folder}/certificates/apiserver.crt"
        self.running = []
        self.write("account.crt", certificate)
        self.write("account.key", key)
        self.write("tokens.csv", f'{TOKEN},bench,bench,"system:masters"\n')
        self.write("kubeconfig", self.kubeconfig_text())

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w") as file:
            file.write(text)

    def kubeconfig_text(self):
        server = {"server": f"https://{network.NODE}:{PORT}", "certificate-authority": self.authority}
        # JSON is YAML.
        return json.dumps({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": server}],
            "users": [{"name": "bench", "user": {"token": TOKEN}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "current-context": "bench",
        })

    def start(self):
        paths = programs()
        etcd = [
            paths["etcd"], f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{ETCD_PORT}", f"--advertise-client-urls=http://127.0.0.1:{ETCD_PORT}",
        ]
        server = [
            paths["kube-apiserver"], f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}", f"--secure-port={PORT}",
            f"--advertise-address={network.NODE}", f"--cert-dir={self.folder}/certificates",
            f"--token-auth-file={self.folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/account.crt",
            f"--service-account-signing-key-file={self.folder}/account.key",
            "--service-cluster-ip-range=10.96.0.0/16", "--profiling=false",
        ]
        for name, command in (("etcd", etcd), ("kube-apiserver", server)):
            self.running.append(Running(name, command, None, f"{self.folder}/{name}.log"))
        self.running[-1].wait_until(self.is_ready, START_SECONDS_MAX)

    def rest(self):
        """Waits until the API server has done what came of all that was made."""
        server, deadline = self.running[-1], time.monotonic() + REST_SECONDS_MAX
        while True:
            before = sum(server.cpu_seconds())
            time.sleep(REST_SECONDS)
            if sum(server.cpu_seconds()) - before < REST_CORES_MAX * REST_SECONDS:
                return
            if time.monotonic() > deadline:
                raise Refused(f"The API server was not at rest within {REST_SECONDS_MAX} s.")

    def is_ready(self):
        try:
            return self.client().call("GET", "/readyz", expected=(200, 500))[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def client(self):
        return Client(self.authority)

    def define(self, path, group_version, plural):
        """Creates the resource that a definition in YAML describes, and waits until it is served."""
        client = self.client()
        with open(path, "rb") as file:
            client.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", file.read(), "application/yaml", (201,))
        deadline = time.monotonic() + START_SECONDS_MAX
        # 404 until it is known, 429 while its storage is being made.
        while client.call("GET", f"/apis/{group_version}/{plural}", expected=(200, 404, 429))[0] != 200:
            if time.monotonic() > deadline:
                raise Refused(f"The API server does not serve {plural} of {path}.")
            time.sleep(0.05)

    def stop(self):
        while self.running:
            self.running.pop().stop()


class Client:
    """One connection to the API server. Not for several threads."""

    def __init__(self, authority):
        self.authority = authority
        self.connection = None

    def call(self, method, path, body=None, content="application/json", expected=(200, 201)):
        """Status, answer, and the moment in ns at which the answer was read."""
        data = None if body is None else json.dumps(body).encode()
        return self.send(method, path, data, content, expected)

    def send(self, method, path, data, content, expected):
        connection = self.connected()
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json", "Content-Type": content}
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        answer = response.read()
        answered = time.monotonic_ns()
        if response.status not in expected:
            raise Refused(f"The API server answered {method} {path} with {response.status}: {answer[:400].decode(errors='replace')}")
        return response.status, answer, answered

    def lines(self, path):
        """The lines of a watch, each with the moment in ns at which it was read."""
        connection = self.connected()
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"})
        response = connection.getresponse()
        while line := response.readline():
            yield time.monotonic_ns(), json.loads(line)

    def connected(self):
        if self.connection is None:
            context = ssl.create_default_context(cafile=self.authority)
            self.connection = http.client.HTTPSConnection(network.NODE, PORT, context=context, timeout=120)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection
