"""The verbs of `services`, one function each; the module `services` parses their arguments."""

import os
import shlex
import signal
import subprocess
import sys

import catalog
import containers
import lifecycle
import runners
from support import Failure, NotOurs, say


def install(box, args):
    """Only fill the cache."""
    for service in ours(box, args.names):
        runners.install(box, service)


def up(box, args):
    """Install if needed, start, and keep running until `down`."""
    runner_by_service = install_ours(box, args.names)
    with box.lock():
        box.open(catalog.default_ports())
        set_brokers(box, args.brokers)
        pairs = start_ours(box, args.names, runner_by_service)
        box.settings["kept"] = sorted({*box.settings["kept"], *(name for _, name in pairs)})
        box.save()


def run(box, args):
    """Start services, run a command with their addresses, stop what nobody else uses."""
    runner_by_service = install_ours(box, args.names)
    with box.lock():
        if args.fresh and not box.has_runs():
            wipe_what_is_down(box)
        box.open(catalog.default_ports())
        box.enter_run()
    try:
        with box.lock():
            set_brokers(box, args.brokers)
            start_ours(box, args.names, runner_by_service)
        sys.exit(run_to_end(args.command, os.environ | environment(box)))
    finally:
        with box.lock():
            box.leave_run()
            stop_unused(box)


def run_to_end(command, env):
    """The exit status of the command; signals do not end this process before it."""
    try:
        child = subprocess.Popen(command, env=env)
    except OSError as failure:
        raise Failure(f"cannot run `{command[0]}`: {failure.strerror}") from None
    # The terminal sends its Ctrl-C to the command too; other signals come only to us.
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    status = child.wait()
    return status if status >= 0 else 128 - status


def stop_unused(box):
    """At the end of a `run`: stop what neither `up` keeps nor another `run` uses."""
    box.load()
    if box.has_runs():
        return
    pairs = catalog.pick_started(box, ["all"])
    lifecycle.stop(box, [(service, instance) for service, instance in pairs
                         if instance not in box.settings["kept"]])


def wipe_what_is_down(box):
    """Before a fresh `run`: delete what earlier ones left, unless something still runs."""
    pairs = catalog.pick_started(box, ["all"])
    if not any(runners.is_alive(box, instance) for _, instance in pairs):
        lifecycle.wipe(box, pairs)


def down(box, args):
    """Stop gracefully; with --wipe, delete the data too."""
    with box.lock():
        pairs = catalog.pick_started(box, args.names)
        if not pairs:
            say("nothing was started")
        lifecycle.stop(box, pairs)
        stopped = {instance for _, instance in pairs}
        if box.settings_file.exists():
            box.settings["kept"] = [name for name in box.settings["kept"] if name not in stopped]
            box.save()
        if args.wipe:
            lifecycle.wipe(box, pairs)


def restart(box, args):
    """Stop gracefully what runs, and start it again on the same data."""
    refuse_given(box, args.names, "restart")
    with box.lock():
        pairs = catalog.pick_started(box, args.names)
        runner_by_service = {service.name: runners.runner_of(box, name) for service, name in pairs}
        lifecycle.stop(box, pairs)
        lifecycle.start(box, pairs, runner_by_service)


def kill9(box, args):
    """SIGKILL, as a crash."""
    refuse_given(box, args.names, "kill")
    lifecycle.kill9(box, catalog.pick_started(box, args.names))


def status(box, _args):
    """One line for each instance."""
    print(f"dir {box.root}  offset {box.settings['offset']}")
    for service in catalog.SERVICES.values():
        if service.given_address(box):
            print(f"{service.name:12} at the address in {service.variable}")
        for instance in box.recorded(service.name):
            print(f"{instance:12} {state(box, service, instance)}")


def state(box, service, instance):
    """What `status` says of one instance."""
    if not runners.is_alive(box, instance):
        return "down"
    ready = "ready    " if service.is_ready(box, instance) else "not ready"
    ports = " ".join(map(str, service.ports(box, instance)))
    return f"{ready}  {runners.runner_of(box, instance).describe(box, instance)}  ports {ports}"


def env(box, _args):
    """Shell exports of everything that was started or given."""
    for key, value in environment(box).items():
        print(f"export {key}={shlex.quote(value)}")


def environment(box):
    """What a program needs to find the services, and this command to find the box."""
    found = {"MILLSTREAM_SERVICES_DIR": str(box.root)}
    for service in catalog.SERVICES.values():
        if given := service.given_address(box):
            found[service.variable] = given
        elif box.recorded(service.name):
            found |= {key: str(value) for key, value in service.exports(box).items()}
    return found


def logs(box, args):
    """The end of the logs."""
    for _, instance in catalog.pick_started(box, args.names):
        runner = runners.runner_of(box, instance)
        print(f"==> {instance}\n{runner.log_tail(box, instance, args.lines)}")


def kafka_tool(box, args):
    """Run one of Kafka's own tools against the cluster."""
    kafka = catalog.SERVICES["kafka"]
    in_container = runners.runner_of(box, "kafka.1") is containers
    command = kafka.tool(box, args.tool, list(args.rest), in_container)
    sys.exit(subprocess.run(command).returncode)


def ours(box, names):
    """The services for the names, less those whose address was given."""
    found = []
    for service in catalog.services_named(names):
        if given := service.given_address(box):
            catalog.check_given(service, given)
            say(f"{service.name}: using the address in {service.variable}")
        else:
            found.append(service)
    return found


def install_ours(box, names):
    """Install the services that are to be started; the way to run each, by its name."""
    return {service.name: runners.install(box, service) for service in ours(box, names)}


def start_ours(box, names, runner_by_service):
    """Start the named instances of the services that were installed; returns the pairs."""
    wanted = [(service, instance)
              for service, instance in catalog.pick(names, lambda each: each.instances(box))
              if service.name in runner_by_service]
    lifecycle.start(box, wanted, runner_by_service)
    return wanted


def set_brokers(box, count):
    """Fix the size of the cluster, which an existing one keeps."""
    have = box.settings["brokers"]
    if count in (None, have):
        return
    if box.recorded("kafka"):
        raise Failure(f"{box.root} has a cluster of {have}; `services down kafka --wipe` first")
    box.settings["brokers"] = count
    box.save()


def refuse_given(box, names, what):
    """Services that came from the environment are not ours to stop."""
    for service in catalog.services_named(names):
        if service.given_address(box):
            raise NotOurs(f"cannot {what} {service.name}: its address was given in "
                          f"{service.variable}, it was not started here")
