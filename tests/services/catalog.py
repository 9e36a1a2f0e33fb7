"""The services that there are, and how names on the command line pick instances of them."""

from kafka import Kafka
from postgres import Postgres
from s3 import S3
from support import Failure, listens

SERVICES = {service.name: service for service in (Kafka(), Postgres(), S3())}


def default_ports():
    """Every port that a box may use, before its offset is added."""
    return [port for service in SERVICES.values() for port in service.default_ports]


def services_named(names):
    """The services for names such as `kafka`, `kafka.2` or `all`, each once."""
    if names == ["all"]:
        return list(SERVICES.values())
    kinds = dict.fromkeys(name.partition(".")[0] for name in names)
    for kind in kinds:
        if kind not in SERVICES:
            raise Failure(f"no service `{kind}`; there are: {' '.join(SERVICES)}")
    return [SERVICES[kind] for kind in kinds]


def pick(names, instances_of):
    """(service, instance) pairs for the names, of the instances that `instances_of` lists."""
    services = services_named(names)
    if names == ["all"]:
        return [(service, instance) for service in services for instance in instances_of(service)]
    pairs = []
    for name in names:
        service = SERVICES[name.partition(".")[0]]
        found = [instance for instance in instances_of(service)
                 if name in (service.name, instance)]
        if not found:
            raise Failure(f"there is no {name}; instances of {service.name}: "
                          f"{' '.join(instances_of(service)) or 'none'}")
        pairs += [(service, instance) for instance in found if (service, instance) not in pairs]
    return pairs


def pick_started(box, names):
    """As `pick`, of what was ever started in the box."""
    return pick(names, lambda service: box.recorded(service.name))


def check_given(service, address):
    """Fail if nothing answers at an address from the environment."""
    if not any(listens(host, port) for host, port in service.endpoints(address)):
        raise Failure(f"nothing answers at the address in {service.variable}; start it there, or "
                      f"unset {service.variable} to have {service.name} started here")
