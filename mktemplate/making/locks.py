"""Locks as the command uses them: read from a file or a container, and held against what is asked for now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mktemplate import __version__
from mktemplate.cli.parsing import Build
from mktemplate.errors import CommandError, escape
from mktemplate.making.origins import Groups, is_distributions
from mktemplate.template.facts import Target
from provisioner import distro as distros
from provisioner import lock as lock_file
from provisioner.lock import Lock
from provisioner.sources import HostMirror
from runtime.bundle import Bundle

NAME = "lock"  # of a container's own, PATH/NAME/lock
_AS_OF = "as-of="
_LONGEST_HEAD = 64 << 10  # bytes


def tool() -> str:
    """Return how a lock names what wrote it."""
    return f"mktemplate {__version__}"


def options(build: Build) -> tuple[str, ...]:
    """Return the options of a request that decide which packages, or which of their files, there are."""
    words = (("recommends", build.recommends), ("slim", build.slim))
    return (
        *(word for word, given in words if given),
        *((f"{_AS_OF}{build.as_of}",) if build.as_of else ()),
    )


def as_of(words: Sequence[str]) -> str:
    """Return the moment that a lock's options name, "" for none."""
    return next((word.removeprefix(_AS_OF) for word in words if word.startswith(_AS_OF)), "")


def read_file(file: str) -> Lock:
    """Return the lock in `file`, or raise E_PARAM, E_TRUST_FIELD."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(lock_file.MAX_LOCK + 1)
    except OSError as error:
        raise CommandError("E_PARAM", escape(file), error.strerror or "unreadable") from None
    return lock_file.read(data.decode("utf-8", "replace"), escape(file))


def of_container(bundle: Bundle) -> Lock:
    """Return what a container was made of, or raise E_NOTFOUND where no packages are its own."""
    text = _text_of_container(bundle, lock_file.MAX_LOCK + 1)
    return lock_file.read(text, str(bundle.path / NAME))


def head_of_container(bundle: Bundle) -> str:
    """Return the first stanza of a container's lock, or raise E_NOTFOUND where no packages are its own."""
    return _text_of_container(bundle, _LONGEST_HEAD).partition("\n\n")[0]


def _text_of_container(bundle: Bundle, limit: int) -> str:
    try:
        with open(bundle.path / NAME, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except FileNotFoundError:
        image = bundle.record.image
        if image:
            raise CommandError(
                "E_NOTFOUND",
                bundle.name,
                f"is of the image {escape(image)}: it has no package set of its own",
                hints=("import or pull a newer image under another name",),
            ) from None
        record = bundle.record
        why = "was made before locks were kept" if record.packages else "has only the host's"
        raise CommandError("E_NOTFOUND", bundle.name, f"{why}: it has no package set") from None


def beside(file: str) -> Path:
    """Return the folder that names in the lock are relative to."""
    return Path(file).absolute().parent


def target_of(lock: Lock) -> Target:
    """Return the distribution, release and architecture of a lock."""
    row = distros.find(lock.distro)
    return Target(
        distro=row.name,
        release=distros.series(row, lock.release).name,
        arch=distros.architecture(row, lock.arch),
        family=row.family,
    )


def target(build: Build) -> Target:
    """Return the target of the lock that was given; raise E_PARAM where other options say otherwise."""
    found = target_of(read_file(build.lock))
    row = distros.find(found.distro)
    for option, asked, held in (
        ("--distro", build.distro, found.distro),
        ("--release", build.release and distros.series(row, build.release).name, found.release),
        ("--arch", build.arch and distros.architecture(row, build.arch), found.arch),
    ):
        if asked and asked != held:
            raise CommandError("E_PARAM", option, f"is {escape(asked)}, and the lock is for {held}")
    return found


def check_holds(lock: Lock, wanted: Sequence[str], build: Build) -> None:
    """Raise E_PARAM where the lock does not hold what is asked for now."""
    provided = {each.name for package in lock.chosen.packages for each in package.provides}
    missing = [word for word in lock_file.lacking(lock, wanted) if word not in provided]
    hints = ("make the lock again: mktemplate lock NAME -o FILE",)
    if missing:
        raise CommandError(
            "E_PARAM", escape(build.lock), f"does not hold {', '.join(missing)}", hints=hints
        )
    for word in options(build):
        if word not in lock.options:
            raise CommandError(
                "E_PARAM", escape(build.lock), f"was made without --{word}", hints=hints
            )


def mirrors(lock: Lock) -> tuple[HostMirror, ...]:
    """Return where the distribution's suites of a lock were; none where that was the state of a day gone by."""
    if as_of(lock.options):
        return ()
    own = target_of(lock)
    return tuple(
        HostMirror(source.url, source.suite)
        for source in lock.sources
        if is_distributions(source, own)
    )


def check_repositories(lock: Lock, groups: Groups) -> None:
    """Raise E_PARAM where a third party's repository of the lock was not given again: its key is not in the lock."""
    given = {re.sub("/+$", "", source.url) for group in groups for source in group}
    own = target_of(lock)
    for source in lock.sources:
        if source.url not in given and not is_distributions(source, own):
            raise CommandError(
                "E_PARAM",
                f"{source.url} {source.suite}",
                "the lock has packages of this repository, whose key it does not hold",
                hints=("give it again: --repo FILE.sources",),
            )
