"""`up` and `run`: from a template's name to a service that answers, or to a command's exit status."""

from __future__ import annotations

from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.life import phases
from mktemplate.life.views import container_object, timings
from runtime.container import Container

_LOOPBACK = ("127.", "::1")


def up(request: Request, console: Console) -> int:
    """Create if absent, start if stopped, wait until ready, say how to reach it."""
    container = phases.up(request, console)
    tell(container, console)
    return 0


def tell(container: Container, console: Console) -> None:
    """Report a container that has just become ready."""
    console.result(told(container, console), "")
    say(container, console)


def told(container: Container, console: Console) -> dict[str, object]:
    """Return the object of a container that has just become ready, as `console` timed it."""
    value = {**container_object(container.path, container.name), "ready": True}
    secrets = _made_secrets(container)
    return {**value, "secrets": secrets, "timings": timings(console.timings)}


def _made_secrets(container: Container) -> dict[str, str]:
    """Return how to read each secret that the container made itself, by option."""
    names, pid = container.bundle.record.secrets, container.pid
    if not names or not pid:
        return {}
    from mktemplate.template import secretfiles
    from runtime import ready

    made = (name for name in names if ready.exists(pid, f"{secretfiles.MADE}/{name}"))
    return {name: secretfiles.reading(container.name, name) for name in made}


def say(container: Container, console: Console) -> None:
    """Say how to reach a container that has just become ready."""
    record = container.bundle.record
    name, seconds = container.name, console.timings
    console.step(f"{name}: ready after {seconds['ready']:.3f} s ({seconds['total']:.2f} s in all)")
    run = container.run
    ips = run.addresses if run else ()
    if record.connect and (ips or "{address}" not in record.connect):
        console.step(f"connect: {record.connect.replace('{address}', ips[0] if ips else '')}")
    for option, command in _made_secrets(container).items():
        console.step(f"{option}: {command}")
    for ip in ips:
        console.step(f"address: {ip}")
    for port in record.ports:
        local = port.address.startswith(_LOOPBACK)
        console.step(
            f"port {port.container}/{port.proto}: {port.where}"
            + (" (reachable from this machine only)" if local else "")
        )


def run(request: Request, console: Console) -> int:
    """Run one command in a container of its own; its exit status is ours, and nothing is left of it."""
    from mktemplate.life import owned
    from mktemplate.life.inside import execute

    quiet = console if console.verbose else Console(json=console.json, quiet=True)
    with owned.idle(request, quiet) as container:
        return execute(container, request, console)
