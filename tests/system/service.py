"""What every test of the catalogue's services has in common: a client outside, and what it must see twice."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import lacking
from tests.system.command import Mkt

GRACE = 10  # seconds that `stop` gives a service, as users get without --timeout
ENDED = {0, 143}  # by itself, or by the SIGTERM that it was sent; 137 would be a kill


@dataclass(frozen=True, kw_only=True)
class Client:
    """Whoever talks to a running container from outside."""

    mkt: Mkt
    name: str
    ip: str
    port: int = 0
    secrets: Mapping[str, str] = field(default_factory=dict)  # option → the command that reads it

    def run(self, *argv: str) -> str:
        """Run a program of this machine that must succeed; {ip} and {port} in its words say where the service is."""
        words = [word.replace("{ip}", self.ip).replace("{port}", str(self.port)) for word in argv]
        if shutil.which(words[0]) is None:
            lacking(words[0])
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (
            f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def secret(self, option: str = "password") -> str:
        """Return a secret that the container made itself, by the very command that `up` names."""
        return self.mkt.ok(*self.secrets[option].split()[1:]).strip()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A template with options, what its client leaves there, how the client looks, and what it must see."""

    template: str
    options: tuple[str, ...] = ()
    leave: Callable[[Client], object] = lambda client: None
    look: Callable[[Client], str]
    sees: str
    port: int = 0  # where it listens inside
    case: str = ""  # tells apart what is of one template
    fast: bool = False  # runs by default

    @property
    def id(self) -> str:
        return f"{self.template}{'-' if self.case else ''}{self.case}"


def asks(*argv: str) -> Callable[[Client], str]:
    """Return how a client looks by running one program."""
    return lambda client: client.run(*argv)


CURL = ("curl", "-sS", "--fail", "--max-time", "10")


def cases(services: Iterable[Service]) -> list[Any]:
    """Return each service for each release of Debian's; what is not fast runs with --all."""
    return [
        pytest.param(
            service,
            release,
            id=f"{service.id}-{release}",
            marks=[] if service.fast and release == "trixie" else pytest.mark.slow,
        )
        for service in services
        for release in ("trixie", "bookworm")
    ]


def prove(mkt: Mkt, service: Service, release: str, publish: int = 0) -> None:
    """A client sees what it must, and the same after a restart; the service ends by itself within its grace time.

    It is asked at its own address, or where it is published on this machine.
    """
    name = service.template
    place = ("--distro", "debian", "--release", release)
    reach = ("--publish", f"{publish}:{service.port}") if publish else ()
    told = mkt.json("up", name, *place, *reach, *service.options)
    ip, port = ("127.0.0.1", publish) if publish else (told["ips"][0], service.port)
    client = Client(mkt=mkt, name=name, ip=ip, port=port, secrets=told["secrets"])
    service.leave(client)
    seen = service.look(client)
    assert service.sees in seen

    mkt.ok("restart", name)
    mkt.ok("wait", name, "--state", "READY", "--timeout", "60")

    assert service.look(client) == seen
    mkt.ok("stop", "--timeout", str(GRACE), name)
    assert mkt.json("info", name)["exit_status"] in ENDED
