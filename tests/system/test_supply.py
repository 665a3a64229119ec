"""Where packages come from, as a user says it: locks, other repositories, pinned files, days gone by, slim, trust."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.archive import DAY, Deb, Key, Served, Suite, new_key, publish
from tests.family import architecture
from tests.system.command import Mkt
from tests.tiny import HELLO, TEMPLATE, Tiny

pytestmark = pytest.mark.system
TOOL = Deb(name="example-tool", files={"usr/share/example/x": "x\n"}, fields={"Depends": "tiny"})
DOCS = Deb(
    name="documented",
    files={"usr/share/doc/documented/copyright": "free\n", "usr/share/doc/documented/NEWS": "x\n"},
)


@pytest.fixture
def tiny(tiny_archive: Tiny) -> Iterator[Tiny]:
    """The tiny archive, which a test may release anew."""
    yield tiny_archive
    tiny_archive.release()


@pytest.fixture
def other(tmp_path: Path) -> Mkt:
    """Another PATH: another machine's."""
    return Mkt(tmp_path / "other")


@pytest.fixture(scope="module")
def other_key() -> Iterator[Key]:
    with new_key() as key:
        yield key


def layers(mkt: Mkt, name: str) -> list[str]:
    found: list[str] = mkt.json("info", name)["layers"]
    return found


def released(tiny: Tiny, *debs: Deb) -> None:
    """Release with a later Date than the last one; it has whole seconds."""
    before = int(time.time())
    while int(time.time()) == before:
        time.sleep(0.05)
    tiny.release(*debs)


# Locks


def test_a_lock_builds_the_same_layers_with_the_mirror_gone(
    cold: Mkt, other: Mkt, tiny: Tiny, tmp_path: Path
) -> None:
    cold.ok(*tiny.create("one"))
    file = tmp_path / "hello.lock"
    cold.ok("lock", "one", "-o", str(file))
    cold.ok("lock", "--fetch", str(tmp_path / "debs"), str(file))

    other.ok("create", "tiny", "two", "--lock", str(file), "--offline", *tiny.options[-2:])

    assert layers(other, "two") == layers(cold, "one")
    assert other.ok("lock", "two") == cold.ok("lock", "one")
    other.sweep()


def test_offline_without_the_files_says_what_is_missing(
    cold: Mkt, other: Mkt, tiny: Tiny, tmp_path: Path
) -> None:
    cold.ok(*tiny.create("one"))
    cold.ok("lock", "one", "-o", str(tmp_path / "x.lock"))

    done = other(
        "create", "tiny", "--lock", str(tmp_path / "x.lock"), "--offline", *tiny.options[-2:]
    )

    assert done.returncode == 4
    assert "error[E_NET_CONNECT]: tiny 1.0" in done.stderr
    assert other.names() == []


def test_a_lock_is_checked_and_brought_up_to_date(cold: Mkt, tiny: Tiny, tmp_path: Path) -> None:
    cold.ok(*tiny.create("one"))
    file = tmp_path / "x.lock"
    cold.ok("lock", "one", "-o", str(file))
    before = file.read_text()
    same = cold("lock", "--check", str(file), *tiny.options[2:6])
    released(tiny, replace(HELLO, version="2.0"))

    told = cold("lock", "--check", str(file), *tiny.options[2:6], "--json")
    unchanged = file.read_text()
    cold.ok("lock", "--update", str(file), *tiny.options[2:6])

    [change] = json.loads(told.stdout)["changes"]
    assert (same.returncode, told.returncode) == (0, 1), same.stderr
    assert (change["name"], change["kind"], change["old"], change["new"]) == (
        "hello", "upgraded", "1.0", "2.0",
    )  # fmt: skip
    assert unchanged == before
    assert "Version: 2.0\n" in file.read_text()


def test_a_lock_refuses_what_it_does_not_say(cold: Mkt, tiny: Tiny, tmp_path: Path) -> None:
    file = str(tmp_path / "x.lock")
    cold.ok(*tiny.create("one"))
    cold.ok("lock", "one", "-o", file)

    refused = [
        cold("create", "tiny", "two", "--lock", file, *tiny.options[-2:], *more)
        for more in (("--packages", "other"), ("--distro", "debian"), ("--slim",))
    ]

    assert [done.returncode for done in refused] == [2, 2, 2]
    assert "does not hold other" in refused[0].stderr
    assert "--distro: is debian, and the lock is for kali" in refused[1].stderr
    assert "was made without --slim" in refused[2].stderr


def test_outdated_names_what_the_archive_has_newer(cold: Mkt, tiny: Tiny) -> None:
    cold.ok(*tiny.create("one"))
    current = cold("outdated", *tiny.options[-2:])
    released(tiny, replace(HELLO, version="1.0+fix"))

    stale = cold("outdated", "one", "--json", *tiny.options[-2:])
    cached = cold("outdated", "nope", "one", "--json", "--offline", *tiny.options[-2:])

    assert (current.returncode, current.stdout) == (0, ""), current.stderr
    assert stale.returncode == 1
    [told] = json.loads(stale.stdout)
    assert told["name"] == "one"
    assert [(each["name"], each["available"]) for each in told["packages"]] == [
        ("hello", "1.0+fix")
    ]
    assert cached.returncode == 8
    assert json.loads(cached.stdout) == [told]


def test_why_leads_from_what_was_asked_for_to_a_package(cold: Mkt, tiny: Tiny) -> None:
    cold.ok(*tiny.create("one", "--packages", "other"))

    told = cold.ok("why", "one", "hello")
    missing = cold("why", "one", "hallo")

    assert told == (
        f"hello 1.0, from Kali: {tiny.served.url} kali-rolling\n  hello was asked for\n"
    )
    assert (missing.returncode, "did you mean hello?" in missing.stderr) == (8, True)


# What a template takes from elsewhere


def template(folder: Path, more: str) -> Path:
    place = folder / "templates/more"
    place.mkdir(parents=True)
    for name, text in TEMPLATE.items():
        (place / name).write_text(text)
    (place / "template.toml").write_text(f"{TEMPLATE['template.toml']}{more}")
    return place.parent


def test_a_template_brings_a_repository_with_its_key(
    cold: Mkt, tiny: Tiny, served: Served, other_key: Key, tmp_path: Path
) -> None:
    evil = Deb(name="tiny", version="99", files={"evil": "x"})
    publish(
        served.root,
        Suite(
            name="stable", origin="Example", arch=architecture(), debs={"main": (TOOL, evil)}, valid=DAY
        ),
        other_key,
    )  # fmt: skip
    armored = other_key.gpg("--armor", "--export", other_key.fingerprint).decode()
    text = (
        f'[[repository]]\nuris = "{served.url}"\nsuites = "stable"\ncomponents = ["main"]\n'
        f'fingerprint = "{other_key.fingerprint}"\nonly = ["example-tool"]\n'
        f'signed_by = """\n{armored}"""\n'
    )
    folder = template(tmp_path, text)

    words = (*tiny.options[:-1], str(folder), "--packages", "example-tool")
    plan = cold.json("plan", "more", *words)
    cold.ok("create", "more", "one", *words)

    origins = {each["name"]: each["origin"] for each in plan["packages"]}
    assert origins == {"tiny": "Kali", "hello": "Kali", "example-tool": "Example"}
    why = cold.json("why", "one", "example-tool")
    assert why["repository"] == f"{served.url} stable"
    assert why["chain"] == ["example-tool was asked for"]


def test_a_template_pins_a_file_by_its_hash(
    cold: Mkt, tiny: Tiny, served: Served, tmp_path: Path
) -> None:
    body = b"binary\0" * 50_000
    (served.root / "tool").write_bytes(body)
    text = (
        f'[[download]]\nurl = "{served.url}/tool"\nsha256 = "{hashlib.sha256(body).hexdigest()}"\n'
        'to = "/opt/tool/run"\nmode = "0755"\n'
    )
    folder = template(tmp_path, text)

    cold.ok("create", "more", "one", *tiny.options[:-1], str(folder))
    (served.root / "tool").unlink()
    cold.ok("create", "more", "two", *tiny.options[:-1], str(folder))

    top = cold.path / ".store/layers" / layers(cold, "one")[-1] / "root/opt/tool/run"
    assert top.read_bytes() == body
    assert top.stat().st_mode & 0o7777 == 0o755
    assert layers(cold, "one") == layers(cold, "two")


def test_a_file_with_another_hash_is_refused(
    cold: Mkt, tiny: Tiny, served: Served, tmp_path: Path
) -> None:
    (served.root / "tool").write_bytes(b"evil")
    text = f'[[download]]\nurl = "{served.url}/tool"\nsha256 = "{"0" * 64}"\nto = "/opt/tool"\n'

    done = cold("create", "more", "one", *tiny.options[:-1], str(template(tmp_path, text)))

    assert done.returncode == 3
    assert "error[E_TRUST_HASH]" in done.stderr
    assert cold.names() == []


# When, and how much


def test_as_of_takes_the_archive_as_it_was_then(cold: Mkt, tiny: Tiny) -> None:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place = tiny.served.root / moment
    place.symlink_to(".")
    words = [*tiny.options]
    words[3] = f"{tiny.served.url}/{{timestamp}}"
    try:
        cold.ok("create", "tiny", "one", *words, "--as-of", moment)
        done = cold("create", "tiny", "two", *words, "--as-of", "2020-01-01")
        plain = cold("plan", "tiny", *tiny.options, "--as-of", moment)
    finally:
        place.unlink()

    assert "X-Options: as-of=" + moment in cold.ok("lock", "one")
    assert done.returncode == 4, done.stderr
    assert plain.returncode == 2
    assert "{timestamp}" in plain.stderr


def test_slim_leaves_out_documentation_and_is_another_layer(cold: Mkt, tiny: Tiny) -> None:
    released(tiny, DOCS)
    cold.ok(*tiny.create("whole", "--packages", "documented"))
    cold.ok(*tiny.create("slim", "--packages", "documented", "--slim"))

    def docs(name: str) -> set[str]:
        service = cold.path / ".store/layers" / layers(cold, name)[1] / "root/usr/share/doc"
        return {path.name for path in service.rglob("*") if path.is_file()}

    base = cold.path / ".store/layers" / layers(cold, "slim")[0] / "root"
    assert (docs("whole"), docs("slim")) == ({"copyright", "NEWS"}, {"copyright"})
    assert (
        "path-exclude=/usr/share/doc/*"
        in (base / "etc/dpkg/dpkg.cfg.d/mktemplate-slim").read_text()
    )
    assert not set(layers(cold, "whole")) & set(layers(cold, "slim"))
    assert "X-Options: slim\n" in cold.ok("lock", "slim")


# Trust


def test_no_verification_has_one_spelling_and_is_told_and_recorded(cold: Mkt, tiny: Tiny) -> None:
    words = [word for word in tiny.options if word not in ("--keyring", str(tiny.key.keyring))]
    refused = cold("create", "tiny", "one", *words)

    done = cold("create", "tiny", "one", *words, "--grant", "trust:none")

    assert refused.returncode == 3
    assert done.returncode == 0, done.stderr
    assert "warning: trust:none" in done.stderr
    assert cold.json("info", "one")["degraded"] == ["trust:none"]


def test_a_changed_label_waits_for_trust_accept(cold: Mkt, tiny: Tiny) -> None:
    cold.ok(*tiny.create("one"))
    [state] = cold.json("trust", "list")["states"]
    assert (state["suite"], state["label"], state["signers"]) == (
        "kali-rolling", "Kali", [tiny.key.fingerprint],
    )  # fmt: skip
    file = cold.path / ".store/trust" / f"{state['key']}.json"
    file.write_text(file.read_text().replace('"label": "Kali"', '"label": "Kalo"'))

    refused = cold("plan", "tiny", *tiny.options)
    cold.ok("trust", "accept", "kali-rolling")
    accepted = cold("plan", "tiny", *tiny.options)

    assert (refused.returncode, accepted.returncode) == (3, 0)
    assert "hint: if that is meant: mktemplate trust accept kali-rolling" in refused.stderr


def test_store_verify_puts_aside_what_is_damaged(cold: Mkt, tiny: Tiny) -> None:
    cold.ok(*tiny.create("one"))
    sound = cold.json("store", "verify")
    file = cold.path / ".store/layers" / layers(cold, "one")[1] / "root/etc/hello.conf"
    file.write_text("rude\n")

    damaged = cold("store", "verify", "--json")

    assert sound["damaged"] == []
    assert damaged.returncode == 8
    assert json.loads(damaged.stdout)["damaged"] == [f"layers/{layers(cold, 'one')[1]}"]
