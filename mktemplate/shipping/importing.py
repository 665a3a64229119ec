"""`import` and `pull`: an image of somebody else's → a container, all or nothing.

The layers come from a file or a registry, the texts from what the image says of itself (`images`); the rest is what
`create` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mktemplate.cli.parsing import Build, Request
from mktemplate.console import Console
from mktemplate.errors import escape
from mktemplate.making import assembly, workshop
from mktemplate.making.assembly import Built, Made
from mktemplate.shipping import images, lxcimage
from mktemplate.template import facts as facts_
from mktemplate.template.facts import Facts
from mktemplate.template.spec import TemplateSpec
from provisioner.image import files
from provisioner.image.blob import Image
from provisioner.image.config import ImageConfig
from provisioner.image.furnish import furnish
from provisioner.image.manifest import Platform
from provisioner.image.pull import Pull
from provisioner.image.reference import Reference
from provisioner.image.registry import Registry
from provisioner.image.unpack import unpack, unpack_rootfs
from provisioner.image.wire import Wire
from provisioner.provision import Tools
from provisioner.sandbox import Root
from provisioner.store import Draft, Layer, Store
from valuetypes import replace

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def platform() -> Platform:
    """Return what runs on this machine, in the words of images."""
    machine = os.uname().machine
    return Platform(os="linux", architecture=_MACHINES.get(machine, machine))


def facts(name: str, build: Build) -> Facts:
    """Return what the request says of a container that is to be of an image."""
    return facts_.gather(_spec(), build, name, images.target(platform().architecture), {})


def _spec() -> TemplateSpec:
    """Return what is known of an image before it is read."""
    return images.spec(ImageConfig(platform=platform()), "")


class Workplace:
    """Where one image becomes a container: the store, the draft, and whoever is told of it."""

    def __init__(self, facts: Facts, store: Store, draft: Draft, console: Console) -> None:
        """Work for the container that `facts` describe."""
        self.notes: list[str] = []
        self.tools = Tools(
            store=store, sandbox=workshop.sandbox(), progress=console, timings=console.timings
        )
        self._facts = facts
        self._draft = draft

    def built(
        self, image: ImageConfig, layers: Sequence[Layer], subject: str, origin: str
    ) -> Built:
        """Return the parts of the container: the image's layers, furnished, and the texts that it asks for."""
        arch = self._facts.target.arch
        top = furnish(images.furniture(image, arch), layers, subject, self.tools)
        whole = (*layers, top)
        draft = self._draft
        lowers = tuple(layer.path for layer in reversed(whole))
        root = Root(upper=draft.root, lowers=lowers, work=draft.work)
        found = images.look(root, image, subject)
        facts = replace(self._facts, target=images.target(arch, found))
        return Built(
            plan=images.plan(image, facts, found, images.spec(image, subject)),
            layers=whole,
            image=origin,
            notes=(*self.notes, *images.notes(image, found)),
        )


def import_file(
    file: str, facts: Facts, image: str, request: Request, path: Path, console: Console
) -> Made:
    """Make a container of the image in the file or folder `file`; of several the one called `image`."""
    subject = escape(os.path.basename(os.path.abspath(file)))
    wanted = files.Wanted(platform=platform(), name=image)

    def build(store: Store, draft: Draft) -> Built:
        place = Workplace(facts, store, draft, console)
        with files.opened(file, subject, wanted, place.tools) as found:
            if isinstance(found, Image):
                images.check(found.config, subject)
                layers = unpack(found.layers, subject, place.tools, place.notes.append)
                return place.built(found.config, layers, subject, _origin(subject, found.digest))
            config = lxcimage.understood(found, platform(), place.notes.append)
            images.check(config.image, subject)
            archive = replace(found.archive, first_id=config.first_id)
            layers = unpack_rootfs(archive, found.digest, place.tools, place.notes.append)
            return place.built(config.image, layers, subject, _origin(subject, found.digest))

    return assembly.assemble(_spec(), facts, build, request, path, console)


def pull(
    reference: Reference, facts: Facts, request: Request, path: Path, console: Console
) -> Made:
    """Make a container of an image in a registry."""

    def build(store: Store, draft: Draft) -> Built:
        place = Workplace(facts, store, draft, console)
        with closing(Wire(os.environ)) as wire, store.lock("downloads", shared=True):
            source = Pull(Registry(reference, os.environ, wire), store, console)
            image = source.image(platform())
            images.check(image.config, image.subject)
            told = place.notes.append
            layers = unpack(image.layers, image.subject, place.tools, told, source.bring)
        pinned = replace(reference, digest=image.digest)
        if not reference.digest:
            told(f"its registry alone says what {reference.tag} is; this one: {pinned}")
        return place.built(image.config, layers, image.subject, str(pinned))

    return assembly.assemble(_spec(), facts, build, request, path, console)


def _origin(subject: str, digest: str) -> str:
    return f"{subject}@{digest}" if digest else subject
