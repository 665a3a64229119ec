"""Debian: releases, suites and the archive keys that sign them (debian-archive-keyring 2025.1)."""

from __future__ import annotations

from types import MappingProxyType

from provisioner.distro.series import Distro, Mirror, Series, Suite

# Primary keys. Automatic keys sign main and -updates, security keys only -security, stable keys a point release.
BULLSEYE_AUTOMATIC = "1F89983E0081FDE018F3CC9673A4F27B8DD47936"
BULLSEYE_SECURITY = "AC530D520F2F3269F5E98313A48449044AAD5C5D"
BULLSEYE_STABLE = "A4285295FC7B1A81600062A9605C66F00D6C9793"
BOOKWORM_AUTOMATIC = "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8"
BOOKWORM_SECURITY = "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0"
BOOKWORM_STABLE = "4D64FEC119C2029067D6E791F8D2585B8783D481"
TRIXIE_AUTOMATIC = "04B54C3CDCA79751B16BC6B5225629DF75B188BD"
TRIXIE_SECURITY = "5E04A1E3223A19A20706E20F9904613D4CCE68C6"
TRIXIE_STABLE = "41587F7DB8C774BCCF131416762F67A0B2C39DE4"


def _suites(
    name: str, archive: tuple[str, ...], security: tuple[str, ...]
) -> tuple[Suite, Suite, Suite]:
    """Return the three suites of a release, each with the codename that its Release file gives."""
    return (
        Suite(name=name, keys=archive, origin="Debian", label="Debian", codename=name),
        Suite(
            name=f"{name}-updates",
            role="updates",
            keys=archive,
            origin="Debian",
            label="Debian",
            codename=f"{name}-updates",
        ),
        Suite(
            name=f"{name}-security",
            role="security",
            keys=security,
            origin="Debian",
            label="Debian-Security",
            codename=f"{name}-security",
        ),
    )


_NOW = (TRIXIE_AUTOMATIC, BOOKWORM_AUTOMATIC)  # what signs sid and testing today

DISTRO = Distro(
    name="debian",
    title="Debian",
    release="trixie",
    releases=(
        Series(
            name="trixie",
            aliases=("stable", "13"),
            suites=_suites(
                "trixie",
                (TRIXIE_AUTOMATIC, TRIXIE_STABLE, BOOKWORM_AUTOMATIC),
                (TRIXIE_SECURITY, BOOKWORM_SECURITY),
            ),
        ),
        Series(
            name="bookworm",
            aliases=("oldstable", "12"),
            suites=_suites("bookworm", (BOOKWORM_AUTOMATIC, BOOKWORM_STABLE), (BOOKWORM_SECURITY,)),
            merged_usr=True,
        ),
        Series(
            name="bullseye",
            aliases=("oldoldstable", "11"),
            suites=_suites("bullseye", (BULLSEYE_AUTOMATIC, BULLSEYE_STABLE), (BULLSEYE_SECURITY,)),
            merged_usr=True,
        ),
        Series(
            name="forky",
            aliases=("testing", "14"),
            suites=_suites("forky", _NOW, (TRIXIE_SECURITY, BOOKWORM_SECURITY)),
        ),
        Series(
            name="sid",
            aliases=("unstable",),
            suites=(Suite(name="sid", keys=_NOW, origin="Debian", label="Debian", codename="sid"),),
        ),
    ),
    mirrors=(
        Mirror(
            url="http://ftp.{name}.org/{name}",
            security="http://security.{name}.org/{name}-security",
        ),
    ),
    snapshot=Mirror(
        url="http://snapshot.{name}.org/archive/{name}/{timestamp}",
        security="http://snapshot.{name}.org/archive/{name}-security/{timestamp}",
    ),
    components=("main",),
    arches=MappingProxyType(
        {
            "x86_64": "amd64",
            "aarch64": "arm64",
            "armv7l": "armhf",
            "armv6l": "armel",
            "i686": "i386",
            "ppc64le": "ppc64el",
            "riscv64": "riscv64",
            "s390x": "s390x",
            "loongarch64": "loong64",
        }
    ),
    keyring="debian.pgp",
    keyring_package="debian-archive-keyring",
    keyring_files=(
        "/usr/share/keyrings/debian-archive-keyring.pgp",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
)
