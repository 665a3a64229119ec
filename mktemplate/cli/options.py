"""Every option of the command line, as rows of a table (cli.md). No behaviour, no parsing."""

from __future__ import annotations

from collections.abc import Callable

from mktemplate.cli import arguments
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: `metavar` empty means a flag; `many` collects; `field` is where its value goes."""

    names: tuple[str, ...]
    field: str
    help: str
    metavar: str = ""
    convert: Callable[[str], object] = str
    many: bool = False
    count: bool = False
    choices: tuple[str, ...] = ()
    flag_value: object = True


def _days(text: str) -> int:
    return arguments.number(text, "--allow-stale", 1, 3650)


def _pids(text: str) -> int:
    return arguments.number(text, "--pids", 1, 4194304)


def seconds(text: str) -> int:
    """Return a number of seconds, at most a day."""
    return arguments.number(text, "--timeout", 0, 86400)


def lines(text: str) -> int:
    """Return a number of lines."""
    return arguments.number(text, "-n", 0, 999999999)


def value(name: str, metavar: str, field: str, text: str, **more: object) -> Option:
    """Return an option that takes a value."""
    return Option(names=(name,), field=field, help=text, metavar=metavar, **more)  # type: ignore[arg-type]  # the caller names fields of Option


def flag(name: str, field: str, text: str) -> Option:
    """Return an option that takes none."""
    return Option(names=(name,), field=field, help=text)


def _set(text: str) -> tuple[str, str]:
    return arguments.pair(text, "--set")


def _grant(text: str) -> str:
    from mktemplate.template.grants import (
        grant,  # here: what knows templates is for those who build
    )

    return grant(text)


GLOBAL = (
    value("--path", "DIR", "path", "where containers live (or MKTEMPLATE_PATH)"),
    value("--template-path", "DIR", "template_path", "where templates are looked for first"),
    flag("--json", "json", "print one JSON document on standard output"),
    Option(names=("--quiet", "-q"), field="quiet", help="print errors only"),
    Option(names=("--verbose", "-v"), field="verbose", help="say more (repeatable)", count=True),
    value("--color", "WHEN", "color", "auto, always or never", choices=("auto", "always", "never")),
    Option(names=("--help", "-h"), field="help", help="explain the verb, or the whole command"),
    flag("--version", "version", "print the version"),
)

GRANT = value(
    "--grant",
    "KIND:VALUE",
    "grants",
    "grant by name what is refused otherwise",
    convert=_grant,
    many=True,
)
WHAT = (
    value("--distro", "D", "distro", "distribution (default: the host's, else debian)"),
    value("--release", "R", "release", "release (default: the host's, else current stable)"),
    value("--arch", "A", "arch", "architecture (default: the host's)"),
    value(
        "--packages",
        "A,B,./C.deb",
        "packages",
        "more packages",
        convert=arguments.words,
        many=True,
    ),
    flag("--recommends", "recommends", "take Recommends too"),
    flag("--slim", "slim", "leave out documentation, man pages and translations"),
    value("--set", "KEY=VALUE", "sets", "set an option of the template", convert=_set, many=True),
    value(
        "--secret",
        "KEY=@FILE|-|env:VAR",
        "secrets",
        "give a secret option of the template",
        convert=arguments.secret,
        many=True,
    ),
    value(
        "--ssh-key",
        "FILE",
        "ssh_keys",
        "public key that may log in (default for sshd: yours)",
        many=True,
    ),
    flag("--share-host", "share_host", "bind the host's /usr read-only instead of packages"),
    flag("--flat", "flat", "a plain rootfs/ directory: what lxc-start can start"),
    value("--lock", "FILE", "lock", "exactly the packages of this lock"),
)
FROM = (
    value("--mirror", "URL", "mirror", "take every suite from this mirror"),
    value("--repo", "FILE.sources", "repos", "another signed repository (deb822)", many=True),
    value("--keyring", "FILE", "keyring", "trust exactly the keys of this file"),
    value("--as-of", "TIMESTAMP", "as_of", "the archive as it was then", convert=arguments.moment),
    flag("--offline", "offline", "use only what was downloaded before"),
    value("--allow-stale", "DAYS", "allow_stale", "accept an index that old", convert=_days),
    value("--solver", "NAME", "solver", "internal: apt's own rules", convert=arguments.solver),
)
REACH = (
    value(
        "--publish",
        "[[ADDR:]HOST:]CONTAINER[/udp]",
        "publish",
        "let the host reach a port (ADDR: 127.0.0.1)",
        convert=arguments.port,
        many=True,
    ),
    value("--network", "KIND", "network", "none, host, bridge[,internal][,ipv6], macvlan:IF"),
    value(
        "--volume",
        "SRC:DST[:ro][:owner=USER]",
        "volumes",
        "share a directory",
        convert=arguments.volume,
        many=True,
    ),
    value(
        "--device",
        "PATH[:group=NAME]",
        "devices",
        "give a device of the host's",
        convert=arguments.device,
        many=True,
    ),
    value("--env", "K=V", "env", "set a variable", convert=arguments.environment, many=True),
)
LIMITS = (
    value("--memory", "SIZE", "memory", "most memory, such as 512M", convert=arguments.memory),
    value("--cpus", "N", "cpus", "most processor time, such as 1.5", convert=arguments.cpus),
    value("--pids", "N", "pids", "most processes and threads", convert=_pids),
    value(
        "--restart",
        "POLICY",
        "restart",
        "no, on-failure[:N] or always",
        convert=arguments.restart,
    ),
    flag("--no-userns", "no_userns", "no user namespace: not root-safe (root only)"),
    flag("--single-id", "single_id", "no user inside but root, who is you: needs no /etc/subuid"),
    value(
        "--allow-degraded", "FEATURE", "allow_degraded", "go on without a confinement", many=True
    ),
    GRANT,
)
BUILDING = (
    flag("--wait", "wait", "wait for another command's lock"),
    flag("--keep-failed", "keep_failed", "keep what a failed build left, and say where"),
    flag("--no-sync", "no_sync", "do not wait for the disk: a power cut may lose the container"),
)
START = (
    flag("--start", "start", "start it afterwards"),
    flag("--dry-run", "dry_run", "decide everything, change nothing"),
)
RENDER = WHAT + REACH + LIMITS
BUILD = WHAT + FROM + REACH + LIMITS + BUILDING
