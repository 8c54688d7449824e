"""A certificate that is renewed: from the API server's answer to the PATCH of its Secret until a handshake shows it."""
import base64
import socket
import ssl
import subprocess
import time

import network
import objects
from cluster import MERGE
from machine import Refused

NAME, HOST, PORT, ROTATIONS = "rotated", "rotated.test", 8443, 100
SECRETS = f"/api/v1/namespaces/{objects.NAMESPACE}/secrets"
WAIT_SECONDS_MAX = 15
# Between two rotations, so that each is a change of its own.
APART_SECONDS = 0.2


def pairs(folder):
    """Two certificates of one name, each in DER and as the Secret's data."""
    made = []
    for number in (1, 2):
        key, certificate = f"{folder}/rotated-{number}.key", f"{folder}/rotated-{number}.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={number}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        text = {"tls.crt": open(certificate).read(), "tls.key": open(key).read()}
        data = {name: base64.b64encode(value.encode()).decode() for name, value in text.items()}
        made.append((ssl.PEM_cert_to_DER_cert(text["tls.crt"]), data))
    return made


def make(client, data):
    """The Secret and a pool whose only listener ends TLS with it."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "type": "kubernetes.io/tls", "data": data}
    client.call("POST", SECRETS, secret)
    pool = objects.pool(NAME, HOST)
    tls = {"certificateRefs": [{"name": NAME}]}
    pool["spec"]["listeners"] = [{"name": "https", "port": PORT, "protocol": "HTTPS", "hostnames": [HOST], "tls": tls}]
    pool["spec"]["backendSets"] = [{"name": "all", "static": {"backends": [{"address": network.ONE, "port": objects.BACKEND_PORT}]}}]
    client.call("POST", objects.POOLS, pool)


def shown(context, address):
    """The certificate of a handshake in DER, or None where there is none yet."""
    try:
        with socket.create_connection((address, PORT), 5) as bare:
            bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(bare, server_hostname=HOST) as secured:
                return secured.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError):
        return None


def until_shown(context, address, expected):
    """The moment in ns at which the first handshake with this certificate was over, and handshakes that failed."""
    deadline, failed = time.monotonic() + WAIT_SECONDS_MAX, 0
    while time.monotonic() < deadline:
        certificate = shown(context, address)
        if certificate == expected:
            return time.monotonic_ns(), failed
        failed += certificate is None
    raise Refused(f"No handshake showed the new certificate within {WAIT_SECONDS_MAX} s.")


def measure(control, address, folder):
    """Milliseconds of each rotation, and handshakes that failed meanwhile."""
    client, context = control.client(), ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    made = pairs(folder)
    make(client, made[0][1])
    until_shown(context, address, made[0][0])
    took, failed = [], 0
    for number in range(1, ROTATIONS + 1):
        time.sleep(APART_SECONDS)
        expected, data = made[number % 2]
        answered = client.call("PATCH", f"{SECRETS}/{NAME}", {"data": data}, MERGE)[2]
        first, broken = until_shown(context, address, expected)
        took.append((first - answered) / 1e6)
        failed += broken
    return took, failed
