"""The objects of a run: a service whose endpoint is swapped, and others that only have to be there."""
import http.client
import random
import threading
import time

import network
from cluster import MERGE
from machine import Refused

NAMESPACE, NAME, HOST = "default", "measured", "measured.test"
LISTENER_PORT, BACKEND_PORT = 8080, 8000
GROUP_VERSION, PLURAL = "weir.dev/v1alpha1", "loadbalancerpools"
MAKERS = 8
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
POOLS = f"/apis/{GROUP_VERSION}/namespaces/{NAMESPACE}/{PLURAL}"


def service(name):
    ports = [{"name": "http", "port": 80, "targetPort": BACKEND_PORT}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": "None", "ports": ports}}


def endpoints(addresses):
    return [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]


def endpoint_slice(name, addresses):
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench.weir.dev"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": BACKEND_PORT, "protocol": "TCP"}],
        "endpoints": endpoints(addresses),
    }


def pool(name, host):
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "LoadBalancerPool",
        "metadata": {"name": name},
        "spec": {
            "listeners": [{"name": "http", "port": LISTENER_PORT, "protocol": "HTTP", "hostnames": [host]}],
            "rules": [{"backendSets": [{"name": "all"}]}],
            "backendSets": [{"name": "all", "service": {"name": name, "port": 80}}],
        },
    }


def other(number):
    """Name and host of one of the other services."""
    return f"other-{number:05}", f"other-{number:05}.test"


def addresses_of(number, endpoints_each):
    return [network.fill_address(number * endpoints_each + index) for index in range(endpoints_each)]


def make(client, name, host, addresses):
    client.call("POST", SERVICES, service(name))
    client.call("POST", SLICES, endpoint_slice(name, addresses))
    client.call("POST", POOLS, pool(name, host))


def make_others(cluster, options):
    """The other services, made by several clients at once."""
    numbers, failures = iter(range(options.services)), []
    lock = threading.Lock()

    def work():
        client = cluster.client()
        while not failures:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                make(client, *other(number), addresses_of(number, options.endpoints))
            except (Refused, OSError, http.client.HTTPException) as why:
                failures.append(why)

    makers = [threading.Thread(target=work) for _ in range(MAKERS)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    if failures:
        raise failures[0]


def swap(client, address):
    """Puts another backend behind the measured service; the moment in ns before and after."""
    sent = time.monotonic_ns()
    answered = client.call("PATCH", f"{SLICES}/{NAME}", {"endpoints": endpoints([address])}, MERGE)[2]
    return sent, answered


def edit_a_route(client, options):
    """One LoadBalancerPool changes its configuration: one of the others, where there are any."""
    name = other(0)[0] if options.services else NAME
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendSets": [{"name": "all"}]}
    client.call("PATCH", f"{POOLS}/{name}", {"spec": {"rules": [rule], "timeouts": {"request": "31s"}}}, MERGE)


def churn(cluster, options, stop, done):
    """Changes one endpoint of a random other service, so many times a second, until told to stop."""
    client, chance = cluster.client(), random.Random(options.seed)
    spare = options.services * options.endpoints
    due = time.monotonic()
    while not stop.is_set():
        number = chance.randrange(options.services)
        addresses = addresses_of(number, options.endpoints)
        addresses[chance.randrange(options.endpoints)] = network.fill_address(spare + done.value % (65_536 - spare))
        client.call("PATCH", f"{SLICES}/{other(number)[0]}", {"endpoints": endpoints(addresses)}, MERGE)
        done.value += 1
        due += 1 / options.churn
        time.sleep(max(0.0, due - time.monotonic()))
