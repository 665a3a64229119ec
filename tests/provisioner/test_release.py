"""A suite is accepted as a whole: signed, the one that was asked for, fresh, never older than before."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner import freshness, keys, openpgp, trust, verifier
from provisioner.deb import trust as trust_of
from provisioner.deb.trust import Release, Verified, parse
from provisioner.errors import DownloadFailed, ProvisionError, UntrustedIndex
from provisioner.fetch import HttpFetch, Limits
from provisioner.freshness import Policy, is_newest, trust_accept, trust_list
from provisioner.release import fetch_index, fetch_indexes, read_suites, verified_releases
from provisioner.sources import Source
from provisioner.workers import in_threads
from tests.archive import DAY, Deb, Key, Served, Suite, publish, serve

HELLO = Deb(name="hello", files={"usr/share/hello": "hello\n"})
MAIN = Suite(name="trixie", suite="stable", debs={"main": (HELLO,)})
SECURITY = Suite(name="trixie-security", label="Debian-Security", debs={"main": ()}, valid=7 * DAY)


@pytest.fixture
def fetch() -> Iterator[HttpFetch]:
    with HttpFetch({}, Limits(connect=2, headers=5, stall=5, pauses=())) as fetch:
        yield fetch


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def _source(served: Served, key: Key, **changes: object) -> Source:
    plain = Source(
        distro="debian",
        suite="trixie",
        url=served.url,
        components=("main",),
        arch="amd64",
        keys=(key.fingerprint,),
        keyring=key.keyring,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # fields of Source


def _policy(**changes: float) -> Policy:
    return replace(Policy(now=time.time()), **changes)  # type: ignore[arg-type]  # fields of Policy


@pytest.fixture
def read(served: Served, archive_key: Key, fetch: HttpFetch, store: Path) -> Callable[..., Release]:
    """Return a function that reads the one suite that is served."""

    def read(policy: Policy | None = None, *, offline: bool = False, **changes: object) -> Release:
        source = _source(served, archive_key, **changes)
        [release] = verified_releases(
            [[source]], fetch, store, policy or _policy(), offline=offline
        )
        return release

    return read


@pytest.fixture
def put(served: Served, archive_key: Key) -> Callable[[Suite], Path]:
    """Return a function that publishes a suite where `read` finds it."""
    return lambda suite: publish(served.root, suite, archive_key)


def _code(refused: pytest.ExceptionInfo[ProvisionError]) -> str:
    return refused.value.code


def test_a_good_suite_is_accepted_and_recorded(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    publish(served.root, MAIN, archive_key)

    release = read()

    [state] = trust_list(store)
    assert (release.codename, release.suite, release.signers) == (
        *("trixie", "stable"),
        (archive_key.fingerprint,),
    )
    assert (state.suite, state.date, state.sha256) == ("trixie", release.date, release.sha256)
    assert stat.S_IMODE(os.stat(store / "trust" / f"{state.key}.json").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(store / "trust").st_mode) == 0o700


def test_a_suite_without_inrelease_is_read_by_its_detached_signature(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    both = read()
    (folder / "InRelease").unlink()

    assert read().sha256 == both.sha256


def test_a_suite_that_nobody_signed_is_refused(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    (folder / "InRelease").unlink()
    (folder / "Release.gpg").unlink()

    with pytest.raises(UntrustedIndex) as refused:
        read()

    assert _code(refused) == "E_TRUST_UNSIGNED"
    assert trust_list(store) == ()


def test_trust_none_takes_an_unsigned_suite_and_says_so(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    (folder / "InRelease").unlink()
    (folder / "Release.gpg").unlink()

    release = read(unverified=True)

    assert release.signers == ()
    assert "without verification" in release.notes[0]


@pytest.mark.parametrize(
    ("suite", "wanted", "code"),
    [
        (MAIN, {"suite": "stable"}, ""),
        (
            MAIN,
            {"suite": "trixie", "origin": "Debian", "label": "Debian", "codename": "trixie"},
            "",
        ),
        (replace(MAIN, codename="bookworm"), {}, "E_TRUST_SUITE"),
        (replace(MAIN, origin="Other"), {"origin": "Debian"}, "E_TRUST_INFO"),
        (replace(MAIN, label="Other"), {"label": "Debian"}, "E_TRUST_INFO"),
        (MAIN, {"arch": "arm64"}, "E_TRUST_ARCH"),
        (MAIN, {"components": ("main", "contrib")}, "E_TRUST_COMPONENT"),
        (replace(MAIN, extra="Origin: again\n"), {}, "E_TRUST_FIELD"),
        (replace(MAIN, extra="no field\n"), {}, "E_TRUST_FIELD"),
        (replace(MAIN, extra="\nOrigin: second stanza\n"), {}, "E_TRUST_FIELD"),
        (replace(MAIN, extra="Valid-Until: tomorrow\n"), {}, "E_TRUST_FIELD"),
        (replace(MAIN, age=-3600), {}, "E_TRUST_FUTURE"),
        (replace(MAIN, age=-5), {}, ""),
        (replace(MAIN, age=9 * DAY, valid=7 * DAY), {}, "E_TRUST_EXPIRED"),
        (replace(MAIN, age=500 * DAY), {}, "E_TRUST_STALE"),
        (replace(MAIN, age=399 * DAY), {}, ""),
    ],
)
def test_a_signed_suite_must_be_the_one_that_was_asked_for_and_fresh(
    put: Callable[[Suite], Path],
    read: Callable[..., Release],
    store: Path,
    suite: Suite,
    wanted: dict[str, object],
    code: str,
) -> None:
    folder = put(suite)
    (folder.parent / "stable").symlink_to(folder)
    if not code:
        assert read(**wanted).date
        return

    with pytest.raises(UntrustedIndex) as refused:
        read(**wanted)

    assert _code(refused) == code
    assert trust_list(store) == ()


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("MD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 main/x\n", "E_TRUST_NOHASH"),
        (f"SHA256:\n {'0' * 63} 0 main/x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} -1 main/x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} 01 main/x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} 1 ../x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} 1 /x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} 9999999999999 x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} 1 x\n {'1' * 64} 1 x\n", "E_TRUST_FIELD"),
        (f"SHA256:\n {'0' * 64} １ x\n", "E_TRUST_FIELD"),
    ],
)
def test_the_checksums_are_read_strictly(
    served: Served, archive_key: Key, block: str, code: str
) -> None:
    head = "Suite: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nArchitectures: amd64\nComponents: main\n"

    with pytest.raises(UntrustedIndex) as refused:
        parse(Verified((head + block).encode(), ()), _source(served, archive_key))

    assert _code(refused) == code


@pytest.mark.parametrize(
    ("arches", "more", "taken"),
    [
        ("all amd64", "No-Support-for-Architecture-all: Packages\n", ("amd64",)),
        ("all amd64", "", ("amd64", "all")),
        ("amd64 arm64", "", ("amd64",)),
        ("all", "", ("all",)),
    ],
)
def test_packages_for_every_architecture_are_looked_for_where_they_are(
    served: Served, archive_key: Key, arches: str, more: str, taken: tuple[str, ...]
) -> None:
    text = (
        f"Suite: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nArchitectures: {arches}\n{more}"
        f"Components: updates/main\nSHA256:\n {'0' * 64} 1 main/x\n"
    )

    release = parse(Verified(text.encode(), ()), _source(served, archive_key))

    assert release.index_arches == taken


def test_allow_stale_accepts_so_many_days_and_notes_it(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    publish(served.root, replace(MAIN, age=9.5 * DAY, valid=7 * DAY), archive_key)

    with pytest.raises(UntrustedIndex, match="expired 2 days ago"):
        read(_policy(allow_stale_days=2))

    assert "expired 2 days ago" in read(_policy(allow_stale_days=3)).notes[0]


def test_a_sibling_in_date_proves_an_old_main_suite_fresh(
    served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, replace(MAIN, age=500 * DAY), archive_key)
    publish(served.root, SECURITY, archive_key)
    groups = [
        [_source(served, archive_key)],
        [_source(served, archive_key, suite="trixie-security", role="security")],
    ]

    releases = verified_releases(groups, fetch, store, _policy())

    assert [release.source.suite for release in releases] == ["trixie", "trixie-security"]


@pytest.mark.parametrize(("age", "fresh"), [(10, True), (450, False)])
def test_in_an_archive_without_expiry_a_recent_sibling_proves_it_fresh(
    put: Callable[[Suite], Path],
    served: Served,
    archive_key: Key,
    store: Path,
    age: int,
    fresh: bool,
) -> None:
    put(replace(MAIN, age=500 * DAY))
    put(replace(MAIN, name="trixie-updates", suite="trixie-updates", age=age * DAY))
    groups = [
        [_source(served, archive_key)],
        [_source(served, archive_key, suite="trixie-updates", role="updates")],
    ]
    with HttpFetch({}, Limits(pauses=())) as fetch:
        if fresh:
            assert len(verified_releases(groups, fetch, store, _policy())) == 2
            return

        with pytest.raises(UntrustedIndex) as refused:
            verified_releases(groups, fetch, store, _policy())

    assert _code(refused) == "E_TRUST_STALE"


def test_without_a_network_offline_is_offered_where_it_would_do(
    put: Callable[[Suite], Path], served: Served, archive_key: Key, store: Path
) -> None:
    put(MAIN)
    gone = "http://127.0.0.1:1"
    with HttpFetch({}, Limits(pauses=())) as fetch:
        source = _source(served, archive_key)
        verified_releases([[source]], fetch, store, _policy())

        with pytest.raises(DownloadFailed) as failed:
            verified_releases([[replace(source, url=gone)]], fetch, store, _policy())

    assert failed.value.hints[-1] == "--offline uses what was fetched before"


def test_an_older_suite_than_before_is_refused_while_the_newer_one_is_kept(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    publish(served.root, replace(MAIN, age=60, by_hash=False), archive_key)
    newer = read()
    publish(served.root, replace(MAIN, age=9000, by_hash=False), archive_key)

    with pytest.raises(UntrustedIndex) as refused:
        read()

    assert _code(refused) == "E_TRUST_ROLLBACK"
    assert trust_list(store)[0].date == newer.date


def test_where_every_mirror_is_older_the_kept_suite_is_used_by_hash(
    served: Served, archive_key: Key, read: Callable[..., Release], fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, replace(MAIN, age=60), archive_key)
    newer = read()
    publish(served.root, replace(MAIN, age=9000), archive_key)

    release = read()
    path = fetch_index(release, "main", "amd64", fetch, store / "cache/lists")

    assert release.sha256 == newer.sha256
    assert "E_MIRROR_STALE" in release.notes[0]
    assert path.exists()


def test_where_the_kept_suites_index_is_gone_too_it_is_a_rollback(
    served: Served, archive_key: Key, read: Callable[..., Release], fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, replace(MAIN, age=60), archive_key)
    read()
    folder = publish(
        served.root, replace(MAIN, age=9000, debs={"main": (HELLO, Deb(name="b"))}), archive_key
    )
    release = read()
    (folder / release.index("main", "amd64")[0]).parent.joinpath(  # type: ignore[index]  # it is there
        f"by-hash/SHA256/{release.index('main', 'amd64')[1]}"  # type: ignore[index]  # as above
    ).unlink()

    with pytest.raises(UntrustedIndex) as refused:
        fetch_index(release, "main", "amd64", fetch, store / "cache/lists")

    assert _code(refused) == "E_TRUST_ROLLBACK"


def test_two_texts_with_one_date_are_refused(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    read()
    text = (folder / "Release").read_bytes()
    (folder / "InRelease").write_bytes(
        archive_key.clearsign(text.replace(b"SHA256:", b"Version: 2\nSHA256:"))
    )

    with pytest.raises(UntrustedIndex, match="two different files with one Date") as refused:
        read()

    assert _code(refused) == "E_TRUST_ROLLBACK"


def test_a_file_that_was_verified_is_known_by_its_bytes_and_keys(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    publish(served.root, MAIN, archive_key)
    first = read()
    [state] = trust_list(store)
    inrelease = next((store / "cache/lists").glob("*.InRelease")).read_bytes()

    again = read()

    ring = keys.load(again.source)
    assert (again.sha256, again.signers) == (first.sha256, first.signers)
    assert trust_list(store) == (state,)
    assert state.question == trust.question(inrelease, ring, "amd64")


@pytest.mark.parametrize(
    "change", [{}, {"until": 1}, {"extract": ""}, {"question": "0" * 64}, {"signers": ()}], ids=str
)
def test_what_is_not_known_for_certain_is_verified_again(
    served: Served,
    archive_key: Key,
    read: Callable[..., Release],
    store: Path,
    change: dict[str, Any],
) -> None:
    publish(served.root, MAIN, archive_key)
    first = read()
    [state] = trust_list(store)
    freshness.write_state(store, replace(state, **change))
    asked: list[str] = []
    find = verifier.find

    def noted() -> verifier.Verifier:
        asked.append("")
        return find()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "find", noted)
        again = read()

    assert len(asked) == bool(change)
    assert (again.sha256, again.signers, again.date) == (first.sha256, first.signers, first.date)
    assert again.index("main", "amd64") == first.index("main", "amd64")
    assert again.plain_index("main", "amd64") == first.plain_index("main", "amd64")


def test_of_a_release_its_fields_and_packages_files_are_kept() -> None:
    digest, other = "a" * 64, "b" * 64
    names = (
        "main/binary-amd64/Packages.xz",
        "main/binary-all/Packages",
        "contrib/binary-amd64/Packages.gz",
    )
    left_out = (
        "main/binary-arm64/Packages.xz",
        "main/Contents-amd64.gz",
        "main/debian-installer/binary-amd64/Packages",
        "main/i18n/Translation-en",
    )
    blocks = "".join(f" {digest} 12 {name}\n" for name in (*names, *left_out))
    text = f"Origin: Debian\nMD5Sum:\n {other[:32]} 12 {names[0]}\nSHA256:\n{blocks}Suite: stable\nDescription: a\n b\n"

    kept = trust_of.extract(text, "amd64")

    assert (
        kept
        == "Origin: Debian\nMD5Sum:\nSHA256:\n"
        + "".join(f" {digest} 12 {name}\n" for name in names)
        + "Suite: stable\nDescription: a\n b\n"
    )
    assert trust_of.extract(kept, "amd64") == kept


def test_the_same_text_under_a_damaged_signature_is_verified_and_refused(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    publish(served.root, MAIN, archive_key)
    read()
    file = served.root / "dists/trixie/InRelease"
    text = file.read_bytes()
    armored = text[text.index(b"-----BEGIN PGP SIGNATURE") :]
    packets = bytearray(openpgp.dearmor(armored))
    packets[-5] ^= 1
    file.write_bytes(text[: -len(armored)] + openpgp.armor(bytes(packets)))

    with pytest.raises(UntrustedIndex) as refused:
        read()

    assert _code(refused) == "E_TRUST_BADSIG"


def test_the_same_text_signed_anew_is_accepted(
    served: Served, archive_key: Key, read: Callable[..., Release]
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    first = read()
    (folder / "InRelease").write_bytes(archive_key.clearsign((folder / "Release").read_bytes()))

    assert read().sha256 == first.sha256


def test_a_changed_label_waits_for_trust_accept(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    publish(served.root, replace(MAIN, age=60), archive_key)
    read()
    publish(served.root, replace(MAIN, age=30, label="Renamed"), archive_key)

    with pytest.raises(UntrustedIndex, match="Label 'Debian' → 'Renamed'") as refused:
        read()
    trust_accept(store, "trixie")

    assert _code(refused) == "E_TRUST_INFO"
    assert read().label == "Renamed"
    assert [(state.label, state.accept_info) for state in trust_list(store)] == [("Renamed", False)]


def test_trust_accept_of_a_suite_never_seen_is_not_found(store: Path) -> None:
    with pytest.raises(ProvisionError) as refused:
        trust_accept(store, "trixie")

    assert _code(refused) == "E_NOTFOUND"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "date": "x"}']
)
def test_a_damaged_trust_state_is_an_error_not_a_fresh_start(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path, body: bytes
) -> None:
    publish(served.root, MAIN, archive_key)
    read()
    (store / "trust" / f"{trust_list(store)[0].key}.json").write_bytes(body)

    with pytest.raises(ProvisionError) as refused:
        read()

    assert _code(refused) == "E_CORRUPT"


def test_offline_the_kept_suite_and_index_are_used_and_verified_again(
    served: Served, archive_key: Key, read: Callable[..., Release], fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, replace(MAIN, valid=DAY), archive_key)
    release = read()
    path = fetch_index(release, "main", "amd64", fetch, store / "cache/lists")
    served.requests.clear()

    again = read(Policy(now=time.time() + 90 * DAY), offline=True)

    assert again.sha256 == release.sha256
    assert "expired" in again.notes[0]
    assert fetch_index(again, "main", "amd64", fetch, store / "cache/lists", offline=True) == path
    assert served.requests == []


def test_offline_a_damaged_copy_is_refused(
    served: Served, archive_key: Key, read: Callable[..., Release], store: Path
) -> None:
    publish(served.root, MAIN, archive_key)
    read()
    [kept] = (store / "cache/lists").glob("*.InRelease")
    kept.write_bytes(kept.read_bytes().replace(b"trixie", b"trixif"))

    with pytest.raises(UntrustedIndex) as refused:
        read(offline=True)

    assert _code(refused) == "E_TRUST_BADSIG"


def test_offline_without_a_kept_suite_the_missing_one_is_named(
    archive_key: Key, read: Callable[..., Release]
) -> None:
    with pytest.raises(DownloadFailed, match="debian trixie") as refused:
        read(offline=True)

    assert _code(refused).startswith("E_NET_")


def _forge(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the compressed index that is served, wherever it lies."""
    plain = folder / "main/binary-amd64/Packages.xz"
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    for path in (plain, plain.parent / f"by-hash/SHA256/{digest}"):
        if path.exists():
            path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("by_hash", [True, False], ids=["by hash", "by name"])
@pytest.mark.parametrize(
    "forgery",
    [
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "E_TRUST_HASH"),
        (lambda body: body + b"x", "E_NET_TOOBIG"),
        (lambda body: body[:-1], "E_NET_TRUNCATED"),
    ],
    ids=["changed", "longer", "shorter"],
)
def test_an_index_that_is_not_the_signed_one_never_lands(
    put: Callable[[Suite], Path],
    read: Callable[..., Release],
    fetch: HttpFetch,
    store: Path,
    by_hash: bool,
    forgery: tuple[Callable[[bytes], bytes], str],
) -> None:
    change, code = forgery
    _forge(put(replace(MAIN, by_hash=by_hash)), change)
    release = read()

    with pytest.raises(ProvisionError) as refused:
        fetch_index(release, "main", "amd64", fetch, store / "cache/lists")

    assert _code(refused) == code
    assert list((store / "cache/lists").glob("*.xz")) == []


def test_an_index_is_fetched_by_hash_once_and_hashed_again_afterwards(
    served: Served, archive_key: Key, read: Callable[..., Release], fetch: HttpFetch, store: Path
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    release = read()
    lists = store / "cache/lists"
    path = fetch_index(release, "main", "amd64", fetch, lists)
    fetch_index(release, "main", "amd64", fetch, lists)
    asked = [each for each in served.requests if "by-hash" in each]
    path.chmod(0o644)
    path.write_bytes(b"damaged")

    repaired = fetch_index(release, "main", "amd64", fetch, lists)

    assert len(asked) == 1
    assert (
        lzma.decompress(repaired.read_bytes())
        == (folder / "main/binary-amd64/Packages").read_bytes()
    )


def test_every_index_tells_what_its_reader_must_check(
    served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    folder = publish(served.root, MAIN, archive_key)
    plain = (folder / "main/binary-amd64/Packages").read_bytes()

    _, [file] = read_suites([[_source(served, archive_key)]], fetch, store, _policy())

    assert (file.plain_size, file.plain_sha256) == (len(plain), hashlib.sha256(plain).hexdigest())
    assert (file.base_url, file.origin, file.only) == (served.url, "Debian", None)


def test_a_third_party_index_may_give_only_what_is_named(
    served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, MAIN, archive_key)
    for only, taken in ((("hello",), ("hello",)), (None, ())):
        source = _source(served, archive_key, distro="", role="extra", only=only)
        releases = verified_releases([[source]], fetch, store, _policy())

        [file] = fetch_indexes(releases, fetch, store / "cache/lists")

        assert file.only == taken


def test_the_next_mirror_is_taken_and_the_bad_one_named(
    tmp_path: Path, served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, MAIN, archive_key)
    (tmp_path / "bad").mkdir()
    folder = publish(tmp_path / "bad", replace(MAIN, age=100), archive_key)
    (folder / "InRelease").write_bytes(
        (folder / "InRelease").read_bytes().replace(b"amd64", b"amd65")
    )
    with serve(tmp_path / "bad") as bad:
        group = [_source(bad, archive_key), _source(served, archive_key)]

        [release] = verified_releases([group], fetch, store, _policy())

    assert release.mirror == served.url
    assert bad.url in release.notes[0]
    assert "E_TRUST_BADSIG" in release.notes[0]


def test_an_index_is_taken_from_the_mirror_that_has_it(
    tmp_path: Path, served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    (tmp_path / "partly").mkdir()
    folder = publish(tmp_path / "partly", MAIN, archive_key)
    publish(served.root, MAIN, archive_key)
    (served.root / "dists/trixie/InRelease").write_bytes((folder / "InRelease").read_bytes())
    _forge(folder, lambda body: body[:-1] + b"\0")
    with serve(tmp_path / "partly") as partly:
        group = [_source(partly, archive_key), _source(served, archive_key)]

        [release], [file] = read_suites([group], fetch, store, _policy())

    assert release.mirror == partly.url
    assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256


def test_an_optional_suite_that_no_mirror_has_is_a_note(
    served: Served, archive_key: Key, fetch: HttpFetch, store: Path
) -> None:
    publish(served.root, MAIN, archive_key)
    gone = _source(served, archive_key, suite="trixie-security", role="security", optional=True)

    [release] = verified_releases([[_source(served, archive_key)], [gone]], fetch, store, _policy())

    assert release.notes == (f"no security updates on this mirror ({served.url})",)


class Moving(HttpFetch):
    """A fetch during which the mirror publishes a new generation: once, before the request that is given."""

    def __init__(self, before: int, publish_next: Callable[[], None]) -> None:
        super().__init__({}, Limits(pauses=()))
        self._before = before
        self._publish_next = publish_next

    def _count(self) -> None:
        if self._before == 0:
            self._publish_next()
        self._before -= 1

    def document(self, url: str, limit: int) -> bytes:
        self._count()
        return super().document(url, limit)

    def download(self, url: str, *args: object, **kwargs: object) -> None:
        self._count()
        super().download(url, *args, **kwargs)  # type: ignore[arg-type]  # handed on as it came


@pytest.mark.parametrize("by_hash", [True, False], ids=["by hash", "by name"])
@pytest.mark.parametrize("before", range(4))
def test_generations_are_never_mixed_when_the_mirror_moves_on(
    served: Served, archive_key: Key, store: Path, by_hash: bool, before: int
) -> None:
    publish(served.root, replace(MAIN, age=60, by_hash=by_hash), archive_key)
    newer = Deb(name="newer", files={"usr/share/newer": "x" * 2000})

    def publish_next() -> None:
        publish(
            served.root,
            replace(MAIN, age=30, by_hash=by_hash, debs={"main": (HELLO, newer)}),
            archive_key,
        )

    with Moving(before, publish_next) as fetch:
        [release], [file] = read_suites([[_source(served, archive_key)]], fetch, store, _policy())

    name = release.index("main", "amd64")
    assert name is not None
    assert hashlib.sha256(file.path.read_bytes()).hexdigest() == name[1]


def test_a_run_that_read_an_older_generation_does_not_overwrite_a_newer_one(
    put: Callable[[Suite], Path], read: Callable[..., Release], store: Path
) -> None:
    put(replace(MAIN, age=9000))
    old = read()
    [state] = trust_list(store)
    put(replace(MAIN, age=60))
    new = read()

    assert not is_newest(store, state.key, old)
    assert is_newest(store, state.key, new)


def test_two_runs_at_once_record_whole_states(
    put: Callable[[Suite], Path], served: Served, archive_key: Key, store: Path
) -> None:
    put(MAIN)
    put(SECURITY)
    groups = [
        [_source(served, archive_key)],
        [_source(served, archive_key, suite="trixie-security", role="security")],
    ]

    def run(number: int) -> int:
        with HttpFetch({}, Limits(pauses=())) as fetch:
            return len(read_suites(groups, fetch, store, _policy())[1])

    assert in_threads(run, range(8), 8) == [2] * 8
    assert len(trust_list(store)) == 2
    assert [
        path for path in store.rglob("*") if path.name.startswith(".") and path.name != ".lock"
    ] == []
