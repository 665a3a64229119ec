"""Kali: one rolling suite behind a redirector, which is why its indexes are fetched by hash."""

from __future__ import annotations

from types import MappingProxyType

from provisioner.distro.series import Distro, Mirror, Series, Suite

ARCHIVE_2025 = (
    "827C8569F2518CC677FECA1AED65462EC8D5E4C5"  # since April 2025; the key before it is retired
)

DISTRO = Distro(
    name="kali",
    title="Kali",
    release="kali-rolling",
    releases=(
        Series(
            name="kali-rolling",
            aliases=("rolling",),
            suites=(
                Suite(
                    name="kali-rolling",
                    keys=(ARCHIVE_2025,),
                    origin="Kali",
                    label="Kali",
                    codename="kali-rolling",
                ),
            ),
            merged_usr=True,
        ),
    ),
    mirrors=(Mirror(url="http://http.{name}.org/{name}"),),
    components=("main",),
    arches=MappingProxyType(
        {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}
    ),
    keyring_package="kali-archive-keyring",
    keyring_files=("/usr/share/keyrings/kali-archive-keyring.gpg",),
)
