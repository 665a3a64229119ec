"""mktemplate: service containers from plain text.

Jinja templates turn a service and a distribution into three texts: a rootfs tree, an fstab and an LXC configuration.
A provisioner fills the rootfs from the distribution's own signed packages, without a package manager on the host.
A runtime launches it in isolated namespaces, without a daemon and without liblxc.
The same container ships to LXC, Incus, Docker, Podman, nspawn and registries.
This package is the command and the library (docs/library.md); it alone knows both halves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mktemplate.api import containers, create, ephemeral, up
    from mktemplate.container import Container
    from mktemplate.failures import MktemplateError
    from mktemplate.life.inside import Result
    from mktemplate.life.snapshots import Snapshot

__version__ = "0.1.0"
__all__ = [
    "Container",
    "MktemplateError",
    "Result",
    "Snapshot",
    "__version__",
    "containers",
    "create",
    "ephemeral",
    "up",
]
_WHERE = {
    "Container": "container",
    "MktemplateError": "failures",
    "Result": "life.inside",
    "Snapshot": "life.snapshots",
    "containers": "api",
    "create": "api",
    "ephemeral": "api",
    "up": "api",
}


def __getattr__(name: str) -> object:
    """Load what is asked for only then: `import mktemplate` costs nothing, and `start` must not load the rest."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mktemplate.{_WHERE[name]}"), name)
