"""For systemd-nspawn: NAME/ and NAME.nspawn side by side, to be unpacked in /var/lib/machines (systemd.nspawn(5))."""

from __future__ import annotations

from provisioner.export.flat import Arrangement
from provisioner.export.image import Image

_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"})


def arrangement(image: Image) -> Arrangement:
    """Return how the archive is laid out."""
    return Arrangement(folder=image.name, texts={f"{image.name}.nspawn": settings(image).encode()})


def settings(image: Image) -> str:
    """Return the .nspawn file: what is started and how, in a user namespace of its own."""
    lines = [
        "[Exec]",
        "Boot=no",
        f"Parameters={' '.join(map(quoted, image.argv))}",
        *(f"Environment={quoted(f'{key}={value}')}" for key, value in image.environment),
        f"WorkingDirectory={image.folder}",
        f"KillSignal={image.stop_signal}",
        f"Hostname={image.name}",
        "PrivateUsers=pick",
    ]
    return "\n".join(lines) + "\n"


def quoted(word: str) -> str:
    """Return `word` as systemd.syntax(7) quotes it, with specifiers taken literally."""
    return f'"{word.translate(_ESCAPED)}"'
