"""`test-template`: a container of a template, its tests, and gone again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from mktemplate.authoring import suite
from mktemplate.authoring.suite import Suite, Test
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life import owned, phases
from mktemplate.life.inside import Result, capture
from mktemplate.making import asked
from mktemplate.places import containers_path
from mktemplate.template import facts, grants, held, jail, library
from mktemplate.template.render import Value, renderer
from mktemplate.template.spec import TemplateSpec
from runtime.container import Container
from runtime.enter import Command
from runtime.errors import ContainerError
from valuetypes import dataclass, replace

_SHOWN = 2000  # characters of what a failed test printed
_FAILED = 1  # exit status


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one test ended; `detail` is why it failed, "" where it did not."""

    name: str
    detail: str = ""
    output: str = ""
    seconds: float = 0.0
    left_out: bool = False


def test_template(request: Request, console: Console) -> int:
    """Start a container of the template, run its tests, destroy it; 1 where one of them fails."""
    request, template = _meant(request)
    tests = _suite(template)
    _check_sets(tests, template.spec)
    sets = (*tests.sets, *request.build.sets)
    with _container(request, sets, console) as (container, asked_for):
        outcomes = list(_run(tests, template, asked_for, container))
        for outcome in outcomes:
            for line in _lines(outcome):
                console.step(line)
        failed = [outcome for outcome in outcomes if outcome.detail]
        if failed and request.flags.keep:
            console.step(f"kept: {container.name}")
        else:
            container.destroy(force=True)
    rows = [
        {"name": each.name, "ok": not each.detail, "left_out": each.left_out, "detail": each.detail or None,
         "output": each.output, "seconds": round(each.seconds, 3)}
        for each in outcomes
    ]  # fmt: skip
    value = {"template": template.spec.name, "tests": rows, "failed": len(failed)}
    left = sum(each.left_out for each in outcomes)
    words = f"{len(outcomes) - left} tests, {len(failed)} failed" + (
        f", {left} left out" if left else ""
    )
    console.result(value, f"{template.spec.name}: {words}")
    if left:
        console.note(
            f"tests that run on the host need --grant {grants.RUN}: they are its author's commands"
        )
    return _FAILED if failed else 0


test_template.__test__ = False  # type: ignore[attr-defined]  # pytest's word for what is no test


def _meant(request: Request) -> tuple[Request, library.Template]:
    """Return the request with the template's own folder as the first place to look, and the template."""
    word = request.words[0]
    if os.path.isdir(word):
        place = Path(word).absolute()
        request = replace(request, words=(place.name,), template_path=str(place.parent))
    return request, asked.template(request.words[0], request)


def _suite(template: library.Template) -> Suite:
    name = template.spec.name
    if suite.FILE not in template.folder.names(""):
        raise CommandError(
            "E_NOTFOUND",
            name,
            f"has no {suite.FILE}",
            hints=("docs/writing-templates.md shows one",),
        )
    body = template.folder.read(suite.FILE)
    return suite.parse(body.decode("utf-8", "replace"), f"{name}/{suite.FILE}")


def _check_sets(tests: Suite, spec: TemplateSpec) -> None:
    """Raise E_CONFIG_GRANT where the tests of a template that is not trusted name a path of this host."""
    for key, _ in tests.sets:
        option = spec.option(key)
        if option and option.type == "mount" and not spec.trusted:
            raise CommandError(
                "E_CONFIG_GRANT",
                f"{spec.name}/{suite.FILE}",
                f"[set] {key} names a path of this host",
                hints=(f"take it out, and give --set {key}=PATH",),
            )


@contextmanager
def _container(
    request: Request, sets: tuple[tuple[str, str], ...], console: Console
) -> Iterator[tuple[Container, Request]]:
    """Lend a container of the request's template, ready, and what it was asked for with; it goes with a failure."""
    path, name = containers_path(request), request.words[0]
    owned.sweep(path)
    own = f"{name}-test" if request.flags.keep else owned.name("test")
    container = Container(path, own)
    build = replace(request.build, sets=sets)
    made = replace(request, verb="up", words=(name, own), build=build)
    try:
        phases.up(made, console)
        yield container, made
    except BaseException:
        if container.directory.exists():
            container.destroy(force=True)
        raise


def _run(
    tests: Suite, template: library.Template, request: Request, container: Container
) -> Iterator[Outcome]:
    spec = template.spec
    allowed = spec.trusted or grants.RUN in grants.given(spec, request.build.grants)
    commands = _filled(tests, template, request, container)
    for number, test in enumerate(tests.tests):
        if test.on == suite.HOST and not allowed:
            yield Outcome(name=test.name, left_out=True)
            continue
        if test.restart:
            phases.restart(container)
            phases.await_ready(container, None)
        begun = time.monotonic()
        try:
            result = _result(test, commands[number], container)
        except (ContainerError, CommandError, subprocess.TimeoutExpired, OSError) as error:
            detail = str(getattr(error, "detail", error))
            yield Outcome(name=test.name, detail=detail, seconds=time.monotonic() - begun)
            continue
        output = result.stdout + result.stderr
        yield Outcome(
            name=test.name,
            detail=_judged(test, result.returncode, output),
            output=output[-_SHOWN:],
            seconds=time.monotonic() - begun,
        )


def _filled(
    tests: Suite, template: library.Template, request: Request, container: Container
) -> list[tuple[str, ...]]:
    """Return the commands with what they name filled in; `address` is the container's."""
    _, told = asked.understood(request)
    run = container.run
    address = run.addresses[0] if run and run.addresses else "127.0.0.1"
    values = cast("Mapping[str, Value]", {**facts.values(template.spec, told), "address": address})

    mine, theirs = held.held(template), held.shared()

    def fill() -> tuple[dict[str, str], dict[str, bytes]]:
        jinja = renderer(mine.folder, mine.spec.name, values, shared=theirs)
        where = f"{template.spec.name}/{suite.FILE}"
        lines = (
            shlex.join(jinja.text(word, where) for word in test.command) for test in tests.tests
        )
        return {str(number): line for number, line in enumerate(lines)}, {}

    texts, _ = fill() if template.spec.trusted else jail.confined(fill, template.spec.name)
    return [tuple(shlex.split(texts[str(number)])) for number in range(len(tests.tests))]


def _result(test: Test, argv: tuple[str, ...], container: Container) -> Result:
    if test.on == suite.INSIDE:
        command = Command(argv=argv, user=test.user)
        return capture(container, command, test.input, timeout=test.timeout)
    done = subprocess.run(argv, cwd="/", input=test.input, text=True, errors="replace",
                          capture_output=True, timeout=test.timeout, check=False)  # fmt: skip
    return Result(args=argv, returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


def _judged(test: Test, status: int, output: str) -> str:
    """Return why a test failed, "" where it did not."""
    if status != test.status:
        return f"ended with {status}, not {test.status}"
    if test.expected not in output:
        return f'"{test.expected}" is not in what it printed'
    if test.pattern and re.search(test.pattern, output, re.MULTILINE) is None:
        return f"{test.pattern} is not found in what it printed"
    return ""


def _lines(outcome: Outcome) -> list[str]:
    if outcome.left_out:
        return [f"left out  {outcome.name}"]
    if not outcome.detail:
        return [f"ok        {outcome.name} ({outcome.seconds:.2f} s)"]
    said = (f"          {line}" for line in outcome.output.splitlines())
    return [f"FAILED    {outcome.name}: {outcome.detail}", *said]
