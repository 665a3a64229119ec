"""Devuan: Debian without systemd, served merged with Debian's pool (its redirects are followed)."""

from __future__ import annotations

from types import MappingProxyType

from provisioner.distro.series import Distro, Mirror, Series, Suite

KEYS = (
    "72E3CB773315DFA2E464743D94532124541922FB",
    "E032601B7CA10BC3EA53FA81BB23C00C61FC752C",
    "9F8D6C74DE661075FD171BE3B3982868D104092C",
)


def _suites(name: str) -> tuple[Suite, ...]:
    return tuple(
        Suite(name=name + ending, role=role, keys=KEYS, origin="Devuan")
        for ending, role in (("", "release"), ("-updates", "updates"), ("-security", "security"))
    )


DISTRO = Distro(
    name="devuan",
    title="Devuan",
    release="excalibur",
    releases=(
        Series(
            name="excalibur", aliases=("stable", "6"), suites=_suites("excalibur"), merged_usr=True
        ),
        Series(
            name="daedalus", aliases=("oldstable", "5"), suites=_suites("daedalus"), merged_usr=True
        ),
        Series(
            name="ceres",
            aliases=("unstable",),
            suites=(Suite(name="ceres", keys=KEYS, origin="Devuan"),),
            merged_usr=True,
        ),
    ),
    mirrors=(Mirror(url="http://deb.{name}.org/merged"),),
    components=("main",),
    arches=MappingProxyType(
        {
            "x86_64": "amd64",
            "aarch64": "arm64",
            "armv7l": "armhf",
            "i686": "i386",
            "ppc64le": "ppc64el",
        }
    ),
    keyring_package="devuan-keyring",
    keyring_files=(
        "/usr/share/keyrings/devuan-archive-keyring.gpg",
        "/usr/share/keyrings/devuan-keyring.gpg",
    ),
)
