"""mktemplate: service containers from plain text.

Jinja templates turn a service and a distribution into three texts: a rootfs tree, an fstab and an LXC configuration.
A provisioner fills the rootfs from the distribution's own signed packages, without a package manager on the host.
A runtime launches it in isolated namespaces, without a daemon and without liblxc.
The same container ships to LXC, Incus, Docker, Podman, nspawn and registries.
This package is the command; it alone knows both halves.
"""

__version__ = "0.1.0"
