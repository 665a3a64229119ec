"""The verified Release of each suite, from the first of its mirrors that has a good one.

    groups = sources.choose(distro.find("debian"), "trixie", "amd64", host=sources.host_mirrors())
    releases, files = read_suites(groups, HttpFetch(os.environ), store, Policy(now=time.time()))
    index = read_index(files, store / "cache" / "lists", "amd64")

`store` is PATH/.store. What was accepted last stays in `store/cache/lists`, so that `--offline` works.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from provisioner import freshness, keys
from provisioner.deb.index import IndexFile
from provisioner.deb.trust import MAX_INRELEASE, Release, Verified, parse
from provisioner.disk import disk_failures
from provisioner.errors import DownloadFailed, ProvisionError, UntrustedIndex
from provisioner.fetch import Fetch, HttpFetch, Missing
from provisioner.freshness import Policy
from provisioner.indexes import fetch_index, fetch_indexes
from provisioner.keys import Keyring
from provisioner.sources import Source
from provisioner.trust import question, verified_before, verify, verify_detached
from provisioner.workers import in_threads
from valuetypes import dataclass, replace

__all__ = ["Policy", "fetch_index", "fetch_indexes", "read_suites", "verified_releases"]

_CHANGED = {"E_MIRROR_STALE", "E_TRUST_HASH", "E_NET_TRUNCATED", "E_NET_TOOBIG"}
_InRelease = tuple[bytes, ...]  # one clear-signed file, or the pair Release, Release.gpg
_NAMES = {1: ("InRelease",), 2: ("Release", "Release.gpg")}


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A Release that is good, with what is to be kept of it."""

    release: Release
    files: _InRelease
    key: str
    fingerprints: tuple[str, ...]
    question: str  # see `trust.question`; "" where it was not clear-signed
    known: bool  # it is what was accepted last


def read_suites(
    groups: Sequence[Sequence[Source]],
    fetch: Fetch,
    store: Path,
    policy: Policy,
    *,
    offline: bool = False,
) -> tuple[tuple[Release, ...], tuple[IndexFile, ...]]:
    """Return the verified Release of each suite and the index files that they name, all of one generation.

    A mirror that changes between the two (F-18) is asked once more for both.
    """
    lists = store / "cache" / "lists"
    releases = verified_releases(groups, fetch, store, policy, offline=offline)
    try:
        return releases, fetch_indexes(releases, fetch, lists, offline=offline)
    except ProvisionError as problem:
        if offline or problem.code not in _CHANGED:
            raise
    releases = verified_releases(groups, fetch, store, policy)
    return releases, fetch_indexes(releases, fetch, lists)


def expect(groups: Sequence[Sequence[Source]], fetch: HttpFetch) -> None:
    """Begin to ask for what `read_suites` asks for first."""
    for group in groups:
        fetch.expect(_first(group), MAX_INRELEASE)


def verified_releases(
    groups: Sequence[Sequence[Source]],
    fetch: Fetch,
    store: Path,
    policy: Policy,
    *,
    offline: bool = False,
) -> tuple[Release, ...]:
    """Return the verified Release of each suite, or raise UntrustedIndex, DownloadFailed.

    `groups` holds for each suite its mirrors in order (`sources.choose`). A mirror that fails is a note in the Release
    of the next one; an optional suite that no mirror has is a note too. Offline, what was accepted last is verified
    again, and its expiry is a note.
    """
    policy = replace(policy, hashes_decide=policy.hashes_decide or offline)
    suites = _Suites(fetch, store, policy)
    # Threads wait for mirrors; where nobody has to, they only stand in each other's way.
    alone = offline or all(fetch.has(_first(group)) for group in groups)
    results = in_threads(
        suites.stored_or_failure if offline else suites.read_or_failure,
        [tuple(each) for each in groups],
        1 if alone else 4,
    )
    for each in results:
        if isinstance(each, ProvisionError):
            raise each  # that of the first suite, whichever failed first
    accepted = [each for each in results if isinstance(each, _Accepted)]
    missing = tuple(each for each in results if isinstance(each, str))
    releases = freshness.check_siblings(tuple(each.release for each in accepted), policy)
    for each in accepted:
        fetch.learn(each.release.mirrors)
    new = [each for each in accepted if not suites.is_kept(each)]
    if new and not offline:
        with freshness.recording(store):
            for each in new:
                suites.keep(each)
    if releases and missing:
        releases = (replace(releases[0], notes=(*releases[0].notes, *missing)), *releases[1:])
    return releases


class _Suites:
    """Reads one suite at a time: from its mirrors, or from the store."""

    def __init__(self, fetch: Fetch, store: Path, policy: Policy) -> None:
        self._fetch = fetch
        self._store = store
        self._lists = store / "cache" / "lists"
        self._policy = policy

    def read_or_failure(self, group: tuple[Source, ...]) -> _Accepted | str | ProvisionError:
        """Do as `read`, returning what it raises."""
        try:
            return self.read(group)
        except ProvisionError as failure:
            return failure

    def stored_or_failure(self, group: tuple[Source, ...]) -> _Accepted | str | ProvisionError:
        """Do as `stored`, returning what it raises."""
        try:
            return self.stored(group)
        except ProvisionError as failure:
            return failure

    def read(self, group: tuple[Source, ...]) -> _Accepted | str:
        """Return the Release of the first mirror that has a good one; a note where an optional suite is nowhere."""
        problems: list[ProvisionError] = []
        keyring = None if group[0].unverified else keys.load(group[0])
        for source in group:
            try:
                accepted = self._accept(source, keyring, self._fetched(source))
            except (UntrustedIndex, DownloadFailed) as problem:
                problems.append(problem)
                continue
            return _noted(self._with_mirrors(accepted, group), problems)
        if group[0].optional and all(isinstance(problem, Missing) for problem in problems):
            return _absence(group[0])
        other = [problem for problem in problems if problem.code != "E_MIRROR_STALE"]
        if len(other) < len(problems) and all(isinstance(each, DownloadFailed) for each in other):
            return self._replayed(group, problems)
        raise self._telling(group, problems)

    def _telling(self, group: tuple[Source, ...], problems: list[ProvisionError]) -> ProvisionError:
        """Return the failure that says most: one of trust before one of the network."""
        for problem in problems:
            if isinstance(problem, UntrustedIndex):
                return problem
        first = problems[0]
        if not isinstance(first, Missing) and self._kept(group) is not None:
            first.hints = (*first.hints[:1], "--offline uses what was fetched before")
        return first

    @staticmethod
    def _with_mirrors(accepted: _Accepted, group: tuple[Source, ...]) -> _Accepted:
        """Note the mirrors that may have the files too: hashes decide, whoever serves them."""
        urls = (accepted.release.mirror, *(source.url for source in group))
        release = replace(accepted.release, mirrors=tuple(dict.fromkeys(urls)))
        return replace(accepted, release=release)

    def _replayed(self, group: tuple[Source, ...], problems: list[ProvisionError]) -> _Accepted:
        """Go on with the newer Release that we have, if its indexes can still be had by hash (R-2)."""
        kept = self._kept(group)
        if kept is None or not kept.release.by_hash:
            first = problems[0]
            raise UntrustedIndex("E_TRUST_ROLLBACK", first.subject, first.detail, hints=first.hints)
        return _noted(replace(kept, release=replace(kept.release, replayed=True)), problems)

    def stored(self, group: tuple[Source, ...]) -> _Accepted | str:
        """Return what was accepted last, verified again."""
        kept = self._kept(group)
        if kept is not None:
            return kept
        if group[0].optional:
            return _absence(group[0])
        raise DownloadFailed(
            "E_NET_CONNECT",
            group[0].name,
            "was never fetched into this store, and the run is offline",
            hints=("run once without --offline",),
        )

    def _kept(self, group: tuple[Source, ...]) -> _Accepted | None:
        keyring = None if group[0].unverified else keys.load(group[0])
        key = freshness.state_key(group[0], keyring.fingerprints if keyring else ())
        state = freshness.read_state(self._store, key)
        for names in _NAMES.values():
            files = tuple(self._read_file(key, name) for name in names)
            if all(files):
                home = [each for each in group if state and each.url == state.mirror] or [group[0]]
                return self._with_mirrors(self._accept(home[0], keyring, files), group)
        return None

    def _read_file(self, key: str, name: str) -> bytes:
        return freshness.read_whole(self._lists / f"{key}.{name}", MAX_INRELEASE) or b""

    def _fetched(self, source: Source) -> _InRelease:
        base = _base(source)
        try:
            return (self._fetch.document(f"{base}/InRelease", MAX_INRELEASE),)
        except Missing:
            release = self._fetch.document(f"{base}/Release", MAX_INRELEASE)
        try:
            return release, self._fetch.document(f"{base}/Release.gpg", MAX_INRELEASE)
        except Missing:
            if source.unverified:
                return release, b""
            raise UntrustedIndex(
                "E_TRUST_UNSIGNED",
                base,
                "no InRelease and no Release.gpg",
                hints=("the repository is not signed; use another one",),
            ) from None

    def _accept(self, source: Source, keyring: Keyring | None, files: _InRelease) -> _Accepted:
        """Verify, parse and compare with what was accepted before."""
        subject = f"{source.url}/dists/{source.suite}"
        fingerprints = keyring.fingerprints if keyring else ()
        key = freshness.state_key(source, fingerprints)
        state = freshness.read_state(self._store, key)
        asked = ""
        known: Verified | None = None
        if keyring is None:
            verified = _unverified(files, subject)
        elif len(files) == 1:
            asked = question(files[0], keyring, source.arch)
            now = self._policy.now
            known = verified_before(asked, keyring, now, state) if state else None
            verified = known or verify(files[0], keyring, f"{subject}/InRelease", now)
        else:
            verified = verify_detached(
                (files[0], files[1]), keyring, f"{subject}/Release", self._policy.now
            )
        release = freshness.check(parse(verified, source), state, self._policy)
        return _Accepted(release, files, key, fingerprints, asked, known is not None)

    def is_kept(self, accepted: _Accepted) -> bool:
        """Whether a Release is what was kept last, and its file is there."""
        return accepted.known and (self._lists / f"{accepted.key}.InRelease").exists()

    def keep(self, accepted: _Accepted) -> None:
        """Record an accepted Release, and keep its files for a run without a network."""
        release = accepted.release
        if release.replayed or not freshness.is_newest(self._store, accepted.key, release):
            return
        for name, data in zip(_NAMES[len(accepted.files)], accepted.files, strict=True):
            if self._read_file(accepted.key, name) != data:
                freshness.write_whole(self._lists / f"{accepted.key}.{name}", data)
        for name in _NAMES[3 - len(accepted.files)]:
            with disk_failures(self._lists):
                (self._lists / f"{accepted.key}.{name}").unlink(missing_ok=True)
        keys, asked = accepted.fingerprints, accepted.question
        freshness.record(self._store, accepted.key, release, keys, asked, self._policy)


def _first(group: Sequence[Source]) -> str:
    return f"{_base(group[0])}/InRelease"


def _base(source: Source) -> str:
    return f"{source.url}/dists/{source.suite}"


def _unverified(files: _InRelease, subject: str) -> Verified:
    """Return a text that nobody vouches for: only where `--grant trust:none` asked for it."""
    from provisioner.deb.trust import split

    text = split(files[0], subject).text if len(files) == 1 else files[0]
    return Verified(text, ())


def _noted(accepted: _Accepted, problems: list[ProvisionError]) -> _Accepted:
    notes = tuple(
        f"{each.subject}: {each.detail} ({each.code}); took the next mirror" for each in problems
    )
    if accepted.release.source.unverified:
        notes += (f"{accepted.release.source.name} is used without verification, as asked",)
    release = replace(accepted.release, notes=(*accepted.release.notes, *notes))
    return replace(accepted, release=release)


def _absence(source: Source) -> str:
    what = "security updates" if source.role == "security" else source.suite
    return f"no {what} on this mirror ({source.url})"
