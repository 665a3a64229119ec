"""What differs between two locks, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from provisioner.deb import version
from provisioner.index import Package, Relation
from provisioner.lock import Lock, Provenance
from provisioner.resolver import name_of
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package that is not in both locks as it stands."""

    name: str
    kind: str  # added, removed, upgraded, downgraded, rebuilt (same version, other bytes)
    old: str = ""  # versions
    new: str = ""
    why: str
    security: bool = False  # the new version comes from a -security suite


def compare(old: Lock, new: Lock) -> tuple[Change, ...]:
    """Return what leads from `old` to `new`, by name."""
    before = {package.name: package for package in old.chosen.packages}
    after = {package.name: package for package in new.chosen.packages}
    changes = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            changes.append(_added(after[name], old, new))
        elif name not in after:
            changes.append(_removed(before[name], after, old, new))
        elif before[name].sha256 != after[name].sha256:
            changes.append(_changed(before[name], after[name], new))
    return tuple(changes)


def _added(package: Package, old: Lock, new: Lock) -> Change:
    if package.name in _names(new.chosen.wanted) - _names(old.chosen.wanted):
        why = "asked for"
    elif package.essential:
        why = "is essential now"
    else:
        user = next(iter(_users(package, new.chosen.packages)), None)
        why = f"{user.name} {user.version} needs it" if user else "asked for"
    return Change(
        name=package.name, kind="added", new=package.version, why=why, security=_security(package, new.sources)
    )  # fmt: skip


def _removed(package: Package, after: Mapping[str, Package], old: Lock, new: Lock) -> Change:
    if package.name in _names(old.chosen.wanted) - _names(new.chosen.wanted):
        why = "no longer asked for"
    elif package.essential:
        why = "is no longer essential"
    else:
        user = next(iter(_users(package, old.chosen.packages)), None)
        why = _lost(user, after) if user else "no longer asked for"
    return Change(name=package.name, kind="removed", old=package.version, why=why)


def _lost(user: Package, after: Mapping[str, Package]) -> str:
    now = after.get(user.name)
    if now is None:
        return f"only {user.name} needed it, which is gone"
    if now.version == user.version:
        return f"something else answers what {user.name} needs"
    return f"{user.name} {now.version} does not need it"


def _changed(before: Package, after: Package, new: Lock) -> Change:
    order = version.compare(before.version, after.version)
    kind = {-1: "upgraded", 0: "rebuilt", 1: "downgraded"}[order]
    security = _security(after, new.sources)
    places = " or ".join(source.suite for source in _from(after, new.sources)) or after.origin
    if order == 0:
        why = "the same version with other contents"
    elif order > 0:
        why = "the newer one is no longer offered"
    else:
        why = (
            f"a security update ({places})"
            if security
            else f"newer in {places or 'what was given'}"
        )
    return Change(
        name=after.name,
        kind=kind,
        old=before.version,
        new=after.version,
        why=why,
        security=security,
    )


def _from(package: Package, sources: Sequence[Provenance]) -> tuple[Provenance, ...]:
    """Return the suites that may have offered `package`: those below whose mirror its archive lies."""
    return tuple(source for source in sources if package.url.startswith(f"{source.url}/"))


def _security(package: Package, sources: Sequence[Provenance]) -> bool:
    places = _from(package, sources)
    return bool(places) and all(source.suite.endswith("-security") for source in places)


def _names(wanted: Iterable[str]) -> set[str]:
    return set(map(name_of, wanted))


def _users(package: Package, packages: Iterable[Package]) -> Iterable[Package]:
    """Yield the packages that need `package`, by its name or by what it provides."""
    names = {package.name, *(each.name for each in package.provides)}
    for user in packages:
        clauses = (*user.pre_depends, *user.depends)
        if user.name != package.name and any(_meant(each.alternatives, names) for each in clauses):
            yield user


def _meant(alternatives: Sequence[Relation], names: set[str]) -> bool:
    return any(each.name in names for each in alternatives)
