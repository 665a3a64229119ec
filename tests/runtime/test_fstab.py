"""fstab text and what it means, for users and for templates."""

from __future__ import annotations

import pytest

from runtime import fstab
from runtime.errors import ConfigError
from runtime.fstab import MountEntry


def refusal(text: str, *, template: bool = False) -> tuple[str, str, str]:
    with pytest.raises(ConfigError) as caught:
        fstab.parse(text, "fstab", from_template=template)
    return caught.value.code, caught.value.subject, caught.value.detail


def test_lxcs_own_words_leave_the_options() -> None:
    [entry] = fstab.parse("/lib lib none ro,bind,create=dir,optional 0 0\n", "fstab")

    assert entry == MountEntry(
        source="/lib",
        target="lib",
        kind="none",
        options=("ro", "bind"),
        create="dir",
        optional=True,
        line=1,
    )


@pytest.mark.parametrize(
    "word", ["plain", "with blank", "tab\there", "back\\slash", "back\\040slash", "ü"], ids=repr
)
def test_a_rendered_entry_is_read_back(word: str) -> None:
    entry = MountEntry(
        source=f"/{word}", target=word, kind="none", options=("bind", "ro"), create="file"
    )

    [again] = fstab.parse(fstab.render([entry]), "fstab")
    assert (again.source, again.target, again.create) == (entry.source, entry.target, "file")


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        (
            "/srv/a ../../../etc none bind 0 0",
            "E_FSTAB_TARGET",
            '"../../../etc": ".." is not allowed',
        ),
        ("/srv/a proc/sys none bind 0 0", "E_FSTAB_TARGET", "targets below /proc are reserved"),
        (
            "/srv/a b none bind 0 0 x",
            "E_FSTAB_SYNTAX",
            "7 fields, expected 4 to 6 (write a space as \\040)",
        ),
        ("/srv/a mnt\\057\\056 none bind 0 0", "E_FSTAB_SYNTAX", "escape \\057 is not allowed"),
        ("/srv/a mnt\\012 none bind 0 0", "E_FSTAB_SYNTAX", "escape \\012 is not allowed"),
        ("/srv/a mnt\\000 none bind 0 0", "E_FSTAB_SYNTAX", "escape \\000 is not allowed"),
    ],
)
def test_nobody_may_write(text: str, code: str, detail: str) -> None:
    assert refusal(text) == (code, "fstab:1", detail)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("/ mnt none bind 0 0", "E_FSTAB_SOURCE"),
        ("/var/run/docker.sock s none bind,create=file 0 0", "E_FSTAB_SOURCE"),
        ("/srv/mktemplate/a b none bind,rw,suid,shared,foo 0 0", "E_FSTAB_OPTION"),
        ("/srv/mktemplate/a b none bind,ro,rw 0 0", "E_FSTAB_OPTION"),
        ("/srv/mktemplate/a b none bind,ro,ro 0 0", "E_FSTAB_OPTION"),
        ("/srv/mktemplate/a b none bind", "E_FSTAB_SYNTAX"),
        ("/srv/mktemplate/a b none bind 0 1", "E_FSTAB_SYNTAX"),
        ("/srv/mktemplate/a dev/x none bind 0 0", "E_FSTAB_TARGET"),
        ("tmpfs proc/self/attr tmpfs size=1m 0 0", "E_FSTAB_TARGET"),
        ("/srv/mktemplate/a proc none bind 0 0", "E_FSTAB_TARGET"),
        ("/srv/mktemplate/a sys/kernel none bind 0 0", "E_FSTAB_TARGET"),
        ("/dev/sda1 b ext4 rw 0 0", "E_FSTAB_OPTION"),
        ("tmpfs a/b tmpfs size=1m 0 0\ntmpfs a tmpfs size=1m 0 0", "E_FSTAB_TARGET"),
    ],
)
def test_a_template_may_not_write(text: str, code: str) -> None:
    assert refusal(text, template=True)[0] == code


def test_the_shared_host_is_bound_read_only() -> None:
    sources = fstab.SHARED_HOST

    [entry] = fstab.parse(
        "/usr /usr none rbind,ro 0 0", "fstab", from_template=True, sources=sources
    )

    assert entry.target == "usr"
    with pytest.raises(ConfigError, match="read-only only"):
        fstab.parse("/usr usr none rbind 0 0", "fstab", from_template=True, sources=sources)


def test_options_become_attributes_and_the_rest_is_the_file_systems() -> None:
    meaning = fstab.flags(
        ["rbind", "ro", "nosuid", "rw", "noatime", "rslave", "idmap=container", "size=64m"]
    )

    assert (meaning.bind, meaning.recursive, meaning.idmap, meaning.data) == (
        True,
        True,
        "container",
        ("size=64m",),
    )
    assert meaning.set == fstab.ATTR_NOSUID | fstab.ATTR_NOATIME
    assert meaning.clear & fstab.ATTR_RDONLY
    assert meaning.propagation == fstab.PROPAGATION["rslave"]


def test_an_absolute_target_counts_from_the_root_or_is_dropped_as_in_lxc() -> None:
    one, two = fstab.parse("/a /c/rootfs/x none bind 0 0\n/a /x none bind 0 0\n", "fstab")

    assert fstab.inside(one, "/c/rootfs") == "x"
    assert fstab.inside(two, "/c/rootfs") is None


def test_every_wrong_line_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        fstab.parse("a b\n# fine\nc ../d none bind\n", "fstab")

    assert [caught.value.line, *(one.line for one in caught.value.also)] == [1, 3]
