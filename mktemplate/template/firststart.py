"""`[[first_start]]`: what a container does once, as template.toml says it and as the shell of its PID 1 does it.

Secrets and identities come about here, never in a layer. A step has its secret on standard input: not in its argv, not
in its environment.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from mktemplate.template import schema
from mktemplate.template.declared import ACCOUNT
from mktemplate.template.report import Report
from mktemplate.template.values import Option
from valuetypes import dataclass

Fill = Callable[[str], str]  # fills in what a word of template.toml names, by Jinja


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One argv; needless where the file `unless` is there and its secret was not given."""

    run: tuple[str, ...]
    unless: str = ""
    user: str = ""  # who runs it, a name inside; empty = root
    secret: str = ""  # the option whose secret it reads


def steps(value: object, options: Sequence[Option], report: Report) -> tuple[Step, ...]:
    """Return what `[[first_start]]` says."""
    return tuple(
        _step(table, f"first_start[{number}]", options, report)
        for number, table in enumerate(report.tables(value, "first_start"))
    )


def _step(
    table: Mapping[str, object], where: str, options: Sequence[Option], report: Report
) -> Step:
    report.known(table, where, schema.FIRST_START.names)
    run = report.strings(table.get("run", []), f"{where}.run")
    if not run or not run[0].startswith(("/", "{{")):
        report.add(f"{where}.run", "must be an argv that begins with an absolute path")
    user = report.text(table, "user", f"{where}.user")
    if user and ACCOUNT.fullmatch(user) is None:
        report.add(f"{where}.user", "is no user's name")
    secret = report.text(table, "secret", f"{where}.secret")
    if secret and not any(one.name == secret and one.type == "secret" for one in options):
        report.add(f"{where}.secret", f'"{secret}" is no secret of this template')
    unless = report.text(table, "unless", f"{where}.unless")
    return Step(run=run, unless=unless, user=user, secret=secret)


def shell(step: Step, option: Option | None, fill: Fill, *, static: bool) -> str:
    """Return the shell line that does `step`; `option` is that of its secret. `static`: as `as_user` has it."""
    run = shlex.join(fill(word) for word in step.run)
    if step.user:
        run = f"({as_user(step.user, run, static=static)})"
    source = "/dev/null"
    if option is not None:
        source = f'"$({"secret" if option.made else "given"} {option.name})"'
    run = f"{run} <{source}"
    if not step.unless:
        return run
    wanted = f"[ ! -e {shlex.quote(fill(step.unless))} ]"
    if option is not None:
        wanted += f" || [ -s $secrets/{option.name} ]"
    return f"if {wanted}; then {run}; fi"


def as_user(user: str, command: str, *, static: bool, rights: str = "-all") -> str:
    """Return what becomes `command` as a user inside: its groups, its home, its `rights`.

    Where all there is is `static`, it is busybox: its setpriv cannot, its su asks root nothing and stays no parent.
    """
    if static:
        return f"exec su -s /bin/sh {user} -c {shlex.quote(f'exec {command}')}"
    return (
        f"HOME=~{user} USER={user}; export HOME USER; exec setpriv --reuid {user} "
        f'--regid "$(id -g {user})" --init-groups --inh-caps={rights} {command}'
    )
