"""Whether a verified Release is today's: expiry, rollback, and what was accepted before (R-1 to R-6).

For each suite and set of keys the newest accepted date is kept below `<store>/trust/` (0600, replaced whole), and the
signed file itself below `<store>/cache/lists/`, so that a run without a network has it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from provisioner.deb.trust import Release
from provisioner.disk import disk_error, disk_failures
from provisioner.errors import ProvisionError, UntrustedIndex
from provisioner.sources import Source
from valuetypes import asdict, dataclass, fields, replace

_SKEW = 10  # seconds that a Date may lie ahead, apt's Acquire::Max-FutureTime
_DAY = 86400
_OLDEST = 400 * _DAY  # a suite without an expiry may be this old
_VERSION = 1
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")  # what a state's file is called by
_KINDS: dict[str, type] = {
    "keys": tuple,
    "signers": tuple,
    "date": int,
    "valid_until": int,
    "checked": int,
    "until": int,
    "accept_info": bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What counts as fresh in this run."""

    now: float  # seconds since the epoch
    allow_stale_days: int = 0
    hashes_decide: bool = False  # --lock, --as-of, --offline: expiry is a note


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustState:
    """What was last accepted of one suite under one set of keys."""

    key: str  # names its files
    distro: str
    suite: str
    keys: tuple[str, ...]
    origin: str
    label: str
    codename: str
    date: int  # seconds since the epoch, as are the next two
    valid_until: int | None
    checked: int  # when this Release was first accepted
    sha256: str  # of the signed text
    signers: tuple[str, ...]
    mirror: str
    question: str = ""  # of the signed file and its keys, see `trust.question`
    until: int = 0  # and when it has to be asked again; 0 = never
    extract: str = ""  # of the signed text, see `deb.trust.extract`
    accept_info: bool = False  # `trust accept`: the next Origin, Label and Codename are taken


def state_key(source: Source, keys: Iterable[str]) -> str:
    """Return the name of the state of a suite under a set of keys, the same for all of its mirrors."""
    own = (source.distro or source.url) + (f"@{source.as_of}" if source.as_of else "")
    identity = "\0".join((own, source.suite, *sorted(keys)))
    plain = (char if char in _PLAIN else " " for char in source.name.lower())
    words = "-".join("".join(plain).split()).strip("-.")[:80]
    return f"{words}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def check(release: Release, state: TrustState | None, policy: Policy) -> Release:
    """Return `release` with its notes, or raise E_TRUST_FUTURE, E_MIRROR_STALE, E_TRUST_ROLLBACK/INFO/EXPIRED."""
    subject = f"{release.mirror}/dists/{release.source.suite}"
    ahead = release.date - policy.now
    if ahead > _SKEW:
        clock = _utc(policy.now)
        raise UntrustedIndex(
            "E_TRUST_FUTURE",
            subject,
            f"is dated {_utc(release.date)}, in the future",
            hints=(f"this machine's clock says {clock}",),
        )
    if state is not None:
        _check_state(release, state, subject)
    return _check_expiry(release, policy, subject)


def _check_state(release: Release, state: TrustState, subject: str) -> None:
    if release.date < state.date:
        raise UntrustedIndex(
            "E_MIRROR_STALE",
            subject,
            f"is of {_utc(release.date)}; one of {_utc(state.date)} was accepted before",
            hints=("the mirror lags behind; try again later or another one",),
        )
    if release.date == state.date and release.sha256 != state.sha256:
        raise UntrustedIndex(
            "E_TRUST_ROLLBACK",
            subject,
            f"two different files with one Date ({_utc(release.date)})",
            hints=("someone serves signed files that do not belong together",),
        )
    changes = [
        f"{name} {old!r} → {new!r}"
        for name, old, new in (
            ("Origin", state.origin, release.origin),
            ("Label", state.label, release.label),
            ("Codename", state.codename, release.codename),
        )
        if old != new
    ]
    if changes and not state.accept_info:
        raise UntrustedIndex(
            "E_TRUST_INFO",
            subject,
            f"changed: {', '.join(changes)}",
            hints=(f"if that is meant: mktemplate trust accept {release.source.suite}",),
        )


def _check_expiry(release: Release, policy: Policy, subject: str) -> Release:
    """Refuse a Release past its Valid-Until, or note it where that was allowed (R-3)."""
    if release.valid_until is None or release.valid_until >= policy.now:
        return release
    days = int((policy.now - release.valid_until) // _DAY)
    detail = f"expired {days} days ago (Valid-Until {_utc(release.valid_until)})"
    return _allow(release, policy, ("E_TRUST_EXPIRED", subject, detail), days)


def _allow(release: Release, policy: Policy, error: tuple[str, str, str], days: int) -> Release:
    code, subject, detail = error
    if policy.hashes_decide or days < policy.allow_stale_days:
        return replace(release, notes=(*release.notes, f"{subject} {detail}; accepted as asked"))
    raise UntrustedIndex(
        code,
        subject,
        detail,
        hints=(f"another mirror may be fresh; --allow-stale {days + 1} accepts it",),
    )


def check_siblings(releases: tuple[Release, ...], policy: Policy) -> tuple[Release, ...]:
    """Return `releases` with notes, or raise E_TRUST_STALE for one that nothing proves fresh (R-4, R-5).

    A suite without Valid-Until is fresh while a sibling of the same distribution is that was verified in the same run:
    one with a Valid-Until that is in date or, where the archive uses none (Ubuntu), with a recent Date.
    """
    return tuple(_check_anchor(release, releases, policy) for release in releases)


def _check_anchor(release: Release, releases: tuple[Release, ...], policy: Policy) -> Release:
    age = policy.now - release.date
    if release.valid_until is not None or age <= _OLDEST:
        return release
    for sibling in releases:
        same = sibling.source.distro and sibling.source.distro == release.source.distro
        if same and sibling is not release and _is_fresh(sibling, policy):
            return release
    days = int((age - _OLDEST) // _DAY)
    subject = f"{release.mirror}/dists/{release.source.suite}"
    detail = (
        f"is {int(age // _DAY)} days old, and nothing beside it shows that this is its latest state"
    )
    return _allow(release, policy, ("E_TRUST_STALE", subject, detail), days)


def _is_fresh(release: Release, policy: Policy) -> bool:
    if release.valid_until is None:
        return policy.now - release.date <= _OLDEST
    return release.valid_until >= policy.now


def read_state(store: Path, key: str) -> TrustState | None:
    """Return the recorded state `key` of `store`, None where there is none, or raise E_CORRUPT."""
    file = store / "trust" / f"{key}.json"
    text = read_whole(file)
    if text is None:
        return None
    try:
        return _parsed(json.loads(text))
    except (ValueError, AttributeError, RecursionError) as problem:
        raise ProvisionError(
            "E_CORRUPT",
            str(file),
            f"is no trust state: {problem}",
            hints=("remove it to begin anew; the next dates are then taken on trust",),
            path=str(file),
        ) from None


def _parsed(record: Mapping[str, object]) -> TrustState:
    """Return the state that a JSON object is, each field of the type that it must have."""
    if record.get("version") != _VERSION:
        raise ValueError(f"version {record.get('version')!r}")
    taken: dict[str, object] = {}
    for field in fields(TrustState):
        value = record.get(field.name, field.default)
        kind = _KINDS.get(field.name, str)
        if type(value) is list:
            value = tuple(value)
        if type(value) is not kind and not (field.name == "valid_until" and value is None):
            raise ValueError(field.name)
        if kind is tuple and not all(type(each) is str for each in value):  # type: ignore[attr-defined]  # a tuple
            raise ValueError(field.name)
        taken[field.name] = value
    return TrustState(**taken)  # type: ignore[arg-type]  # each was checked above


@contextmanager
def recording(store: Path) -> Iterator[None]:
    """Hold the lock under which trust states are compared and written: two runs may have read two generations."""
    folder = store / "trust"
    with disk_failures(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    try:
        with disk_failures(folder):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_newest(store: Path, key: str, release: Release) -> bool:
    """Whether nothing newer of this suite was recorded meanwhile."""
    state = read_state(store, key)
    return state is None or state.date <= release.date


def record(
    store: Path, key: str, release: Release, keys: Iterable[str], question: str, policy: Policy
) -> None:
    """Record what was accepted. Within `recording`."""
    state = TrustState(
        key=key,
        distro=release.source.distro,
        suite=release.source.suite,
        keys=tuple(sorted(keys)),
        origin=release.origin,
        label=release.label,
        codename=release.codename,
        date=release.date,
        valid_until=release.valid_until,
        checked=int(policy.now),
        sha256=release.sha256,
        signers=release.signers,
        mirror=release.mirror,
        question=question,
        until=release.until,
        extract=release.extract,
    )
    before = read_state(store, key)
    if before is None or replace(before, checked=state.checked) != state:
        write_state(store, state)


def write_state(store: Path, state: TrustState) -> None:
    """Replace the state file of `state.key`, whole or not at all."""
    text = json.dumps({"version": _VERSION, **asdict(state)}, indent=1, sort_keys=True) + "\n"
    write_whole(store / "trust" / f"{state.key}.json", text.encode())


def read_whole(file: Path, limit: int = 1 << 16) -> bytes | None:
    """Return at most `limit` bytes of `file`, None where there is none."""
    try:
        with open(file, "rb") as stream:
            return stream.read(limit)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise disk_error(problem, file) from problem


def write_whole(file: Path, data: bytes) -> None:
    """Replace `file` by `data` (mode 0600): temporary file, fsync, rename, fsync of the folder (I-14)."""
    with disk_failures(file):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as stream:
            try:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.rename(stream.name, file)
            except BaseException:
                os.unlink(stream.name)
                raise
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def trust_list(store: Path) -> tuple[TrustState, ...]:
    """Return every recorded state of `store`, sorted by distribution and suite."""
    try:
        names = sorted(os.listdir(store / "trust"))
    except FileNotFoundError:
        return ()
    keys = (
        name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != "."
    )
    found = [state for key in keys if (state := read_state(store, key)) is not None]
    return tuple(sorted(found, key=lambda state: (state.distro, state.suite, state.key)))


def trust_accept(store: Path, suite: str) -> tuple[TrustState, ...]:
    """Let the next Release of `suite` change its Origin, Label and Codename (R-6); return what was recorded of it.

    E_NOTFOUND where nothing of that suite was ever accepted.
    """
    meant = tuple(state for state in trust_list(store) if suite in {state.suite, state.codename})
    if not meant:
        known = sorted({state.suite for state in trust_list(store)})
        raise ProvisionError(
            "E_NOTFOUND",
            suite,
            "nothing of this suite was accepted here before",
            hints=(f"known: {', '.join(known)}" if known else "no suite was ever fetched",),
        )
    with recording(store):
        for state in meant:
            write_state(store, replace(state, accept_info=True))
    return meant


def _utc(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
