"""Ubuntu: one archive key signs everything; amd64 and i386 on one server, all others on the ports server."""

from __future__ import annotations

from types import MappingProxyType

from provisioner.distro.series import Distro, Mirror, Series, Suite

ARCHIVE_2018 = "F6ECB3762474EDA9D21B7022871920D1991BC93C"


def _suites(name: str) -> tuple[Suite, ...]:
    """Return the suites of a release; all three give the release's name as their codename."""
    return tuple(
        Suite(
            name=name + ending,
            role=role,
            keys=(ARCHIVE_2018,),
            origin="Ubuntu",
            label="Ubuntu",
            codename=name,
        )
        for ending, role in (("", "release"), ("-updates", "updates"), ("-security", "security"))
    )


DISTRO = Distro(
    name="ubuntu",
    title="Ubuntu",
    release="noble",
    releases=(
        Series(name="noble", aliases=("24.04",), suites=_suites("noble"), merged_usr=True),
        Series(name="jammy", aliases=("22.04",), suites=_suites("jammy"), merged_usr=True),
    ),
    mirrors=(
        Mirror(
            url="http://archive.{name}.com/{name}",
            security="http://security.{name}.com/{name}",
            arches=("amd64", "i386"),
        ),
        Mirror(
            url="http://ports.{name}.com/{name}-ports",
            arches=("arm64", "armhf", "ppc64el", "riscv64", "s390x"),
        ),
    ),
    components=("main", "universe"),
    arches=MappingProxyType(
        {
            "x86_64": "amd64",
            "aarch64": "arm64",
            "armv7l": "armhf",
            "i686": "i386",
            "ppc64le": "ppc64el",
            "riscv64": "riscv64",
            "s390x": "s390x",
        }
    ),
    keyring="ubuntu.pgp",
    keyring_package="ubuntu-keyring",
    keyring_files=("/usr/share/keyrings/ubuntu-archive-keyring.gpg",),
)
