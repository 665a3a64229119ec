"""The archives that other tests stand on are what the real tools take them for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.archive import Deb, Key, Served, Suite, build, publish

HELLO = Deb(name="hello", version="1:2.0-1", files={"usr/bin/hello": "#!/bin/sh\necho hello\n"})


@pytest.mark.parametrize("compression", ["xz", "zstd", "gzip", "none"])
def test_a_package_is_compressed_as_asked(tmp_path: Path, compression: str) -> None:
    made = build(Deb(name="hello", files=HELLO.files, compression=compression), tmp_path)

    ending = {"xz": ".xz", "zstd": ".zst", "gzip": ".gz", "none": ""}[compression]
    members = subprocess.run(["ar", "t", made], capture_output=True, text=True, check=True).stdout
    assert members.split() == ["debian-binary", f"control.tar{ending}", f"data.tar{ending}"]


def test_the_real_apt_trusts_and_reads_what_is_published(
    tmp_path: Path, archive_key: Key, served: Served
) -> None:
    publish(served.root, Suite(name="trixie", debs={"main": (HELLO,)}), archive_key)
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "sources.list").write_text(
        f"deb [signed-by={archive_key.keyring}] {served.url} trixie main\n"
    )
    places = [
        f"Dir::State={tmp_path}", f"Dir::State::status={tmp_path}/status", f"Dir::Cache={tmp_path}",
        f"Dir::Etc::sourcelist={tmp_path}/sources.list", "Dir::Etc::sourceparts=-",
        "APT::Sandbox::User=root", "APT::Architecture=amd64",
    ]  # fmt: skip
    (tmp_path / "status").touch()
    options = [word for place in places for word in ("-o", place)]

    subprocess.run(["apt-get", *options, "--error-on=any", "update"], check=True, timeout=60)

    shown = subprocess.run(
        ["apt-cache", *options, "show", "hello"], capture_output=True, text=True, check=True
    )
    assert "Version: 1:2.0-1\n" in shown.stdout


def test_a_suite_can_be_published_again(archive_key: Key, served: Served) -> None:
    publish(served.root, Suite(name="trixie", debs={"main": (HELLO,)}), archive_key)
    newer = Deb(name="hello", version="1:2.1-1")

    folder = publish(served.root, Suite(name="trixie", debs={"main": (newer,)}), archive_key)

    text = (folder / "main/binary-amd64/Packages").read_text()
    assert text.count("Package: hello") == 1
    assert "Version: 1:2.1-1\n" in text
