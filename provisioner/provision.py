"""Chosen packages and a tree → layers: the whole story of the provisioner's second half.

    download → base (the Essential set, configured) → service (what is added) → tree (what the template renders)

A layer is named by what made it, so it is built once per machine: whoever needs one that is being built waits at its
lock and then has it. Bottom first; the service layer is left out where nothing is added.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from provisioner import slim
from provisioner.apart import beside
from provisioner.download import cached, object_path
from provisioner.errors import ConfigureFailed
from provisioner.index import Package
from provisioner.progress import SILENT, Progress
from provisioner.resolver import PackageSet
from provisioner.sandbox import Root, Sandbox
from provisioner.store import Draft, Layer, Store
from provisioner.tree import Fetched, File, Tree
from valuetypes import dataclass, field

APT_SOURCES = "/etc/apt/sources.list.d/{distro}.sources"
_MERGED = ("bin", "lib", "sbin")
_MERGED_ALSO = {"amd64": ("lib32", "lib64", "libx32"), "ppc64el": ("lib64",), "loong64": ("lib64",)}
_EPOCH = 1_735_689_600  # of a tree that stands on no packages; any fixed day would do
FORMAT = 4  # of what a layer holds; whatever changes a layer's bytes changes this number

Download = Callable[[Sequence[Package]], None]
Bring = Callable[[Sequence[Fetched]], None]
Recipe = Mapping[str, Any]  # all that decides a layer's bytes
Fill = Callable[[Draft], int]  # makes a layer in a draft, returns the latest time that it may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a distribution and its sources contribute to a layer's bytes."""

    distro: str
    release: str
    arch: str  # the packages' name of it
    merged_usr: bool = False  # make /bin, /sbin, /lib* links into usr/ before the first package
    sources: str = ""  # deb822 text of what the packages came from, for apt inside (D-18)
    slim: bool = False  # without documentation and translations
    scripts: bool = True  # else the packages bring files alone, and nothing is below them
    preseed: Mapping[str, str] = field(default_factory=dict)  # path → text, there before scripts
    epoch: int | None = None  # SOURCE_DATE_EPOCH where a lock carries its own


@dataclass(slots=True, kw_only=True)
class Tools:
    """What building needs of the outside."""

    store: Store
    sandbox: Sandbox
    progress: Progress = SILENT
    keep_failed: bool = False
    bring: Bring | None = None  # has what a tree pins in the cache
    prefetch: Download | None = None  # brings archives, too, in a copy of this process
    timings: dict[str, float] = field(default_factory=dict)  # phase → seconds, summed

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add what the body takes to the phase's time."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[phase] = self.timings.get(phase, 0.0) + time.monotonic() - start


def provision(
    chosen: PackageSet,
    tree: Tree,
    facts: Facts,
    tools: Tools,
    download: Download,
) -> tuple[Layer, ...]:
    """Return the layers of `chosen` and `tree`, bottom first, building what the store lacks.

    `download(packages)` must leave each archive, verified, in the store's cache; it is asked only for what is built.
    Raises BadArchive, ConfigureFailed, StoreFailed, ProvisionError (E_USER, E_TEMPLATE_PATH, E_ROOTFS_FILE).
    """
    layers: list[Layer] = []
    with ExitStack() as beside:
        if facts.scripts:
            base = package_layer(chosen.essential, (), facts, tools, download, coming=chosen.added)
            layers.append(beside.enter_context(base))
        if chosen.added:
            service = package_layer(chosen.added, tuple(layers), facts, tools, download)
            layers.append(beside.enter_context(service))
        top = tree_layer(tree, layers, tools)
    there = [layer if layer.content else tools.store.held(layer.digest) for layer in layers]
    return (*there, top)


def package_layer(
    packages: Sequence[Package],
    below: Sequence[Layer],
    facts: Facts,
    tools: Tools,
    download: Download,
    coming: Sequence[Package] = (),
) -> AbstractContextManager[Layer]:
    """Have the layer of `packages` over the layers `below` (bottom first) for a block, and the store after it.

    See `building`. What is `coming` next is decompressed beside the scripts, which keep one processor busy at best.
    """
    return building(*_of_packages(packages, below, facts, tools, download, coming), tools)


def _of_packages(
    packages: Sequence[Package],
    below: Sequence[Layer],
    facts: Facts,
    tools: Tools,
    download: Download,
    coming: Sequence[Package],
) -> tuple[Recipe, Fill]:
    """Return what names the layer of `packages`, and what fills it."""
    merged = (*_MERGED, *_MERGED_ALSO.get(facts.arch, ())) if facts.merged_usr else ()
    sources = facts.sources if any(package.name == "apt" for package in packages) else ""
    preseed = facts.preseed if below else {}
    recipe = {
        "format": FORMAT,
        "origin": "service" if below else "base",
        "below": [layer.digest for layer in below],
        "packages": [(each.name, each.version, each.arch, each.sha256) for each in packages],
        "merged": () if below else merged,
        "sources": sources,
        "epoch": facts.epoch,
        **({"left out": slim.text()} if facts.slim else {}),
        **({} if facts.scripts else {"scripts": False}),
        **({"preseed": dict(preseed)} if preseed else {}),
    }

    def fill(draft: Draft) -> int:
        # What builds is not imported where all is there.
        from provisioner.configure import settle
        from provisioner.unpack import Layout, unpack

        tools.store.need(*_needs((*packages, *coming)))
        root = overlay_of(draft, below)
        scripts = _Scripts(packages, root, tools, lambda newest: _epoch(newest, below, facts))
        # Where a perl is there already, and nothing must be planted first, both are done in one way into the root.
        at_once = bool(below) and facts.scripts and not preseed
        layout = Layout(
            merged_usr=() if below else merged,
            exclude=slim.leaves_out if facts.slim else None,
            last=scripts.at_once if at_once else None,
        )
        with tools.store.lock("downloads", shared=True):  # over both: what came is not collected
            with tools.timed("download"):
                download(packages if tools.prefetch else (*packages, *coming))
            with _coming(coming, tools, download), tools.timed("unpack"):
                contents = unpack(
                    packages, root, cache=tools.store.cache, sandbox=tools.sandbox,
                    layout=layout, progress=tools.progress,
                )  # fmt: skip
        epoch = _epoch(contents.newest, below, facts)
        with tools.timed("configure"), _ahead(coming, tools):
            if preseed:
                _plant(_files(preseed), epoch, root, tools)
            if not facts.scripts:
                settle(root, tools.sandbox)
            elif not at_once:
                scripts.run(lambda: {"newest": contents.newest})
            notes = _notes(facts, sources, is_base=not below)
            if notes.nodes:
                _plant(notes, epoch, root, tools)
        return epoch

    return recipe, fill


@dataclass(frozen=True, slots=True)
class _Scripts:
    """The scripts of `packages`, to be run in `root`."""

    packages: Sequence[Package]
    root: Root
    tools: Tools
    epoch: Callable[[int], int]

    def run(self, unpack: Callable[[], Any]) -> Any:  # noqa: ANN401  # JSON, as the two halves of it
        """Have `unpack` called inside, and configure what is unpacked then; return what it returned."""
        from provisioner.configure import configure

        with self.tools.progress.phase("configure", len(self.packages)) as advance:
            unpacked = configure(
                self.root,
                self.packages,
                sandbox=self.tools.sandbox,
                unpack=unpack,
                epoch=self.epoch,
            )
            advance(len(self.packages))
        return unpacked

    def at_once(self, unpack: Callable[[], Any]) -> Any:  # noqa: ANN401  # as `run`
        """Do as `run` while `unpack` is timed: what the scripts took is configuring."""
        began = time.monotonic()
        unpacked = self.run(unpack)
        spent = time.monotonic() - began - unpacked["seconds"]
        for phase, more in (("unpack", -spent), ("configure", spent)):
            self.tools.timings[phase] = self.tools.timings.get(phase, 0.0) + more
        return unpacked


def _epoch(newest: int, below: Sequence[Layer], facts: Facts) -> int:
    """Return the latest time that a layer may hold in which `newest` is that of its packages."""
    return facts.epoch or max(newest, *(layer.epoch for layer in below), 0)


@contextmanager
def _coming(packages: Sequence[Package], tools: Tools, download: Download) -> Iterator[None]:
    """Bring the archives of `packages` beside the block, and after it what has not come: unpacking needs no network."""
    absent = [each for each in packages if cached(each, tools.store.cache) is None]
    prefetch = tools.prefetch
    with beside(lambda: prefetch(absent)) if prefetch and absent else nullcontext():
        yield
    with tools.timed("download"):
        download(packages)


@contextmanager
def _ahead(coming: Sequence[Package], tools: Tools) -> Iterator[None]:
    """Decompress the archives of `coming` beside the block."""
    from provisioner.unpack import ahead, folded

    store = tools.store
    if not folded(coming, store.cache):
        yield
        return
    with (
        store.lock("downloads", shared=True),
        store.draft("ahead") as draft,
        ahead(coming, Root(upper=draft.root), cache=store.cache, sandbox=tools.sandbox),
    ):
        yield


def _notes(facts: Facts, sources: str, *, is_base: bool) -> Tree:
    """Return what apt and dpkg inside are told of how their packages came about."""
    texts = {
        APT_SOURCES.format(distro=facts.distro): sources,
        slim.CONFIG: slim.text() if facts.slim and is_base else "",
    }
    return _files({path: text for path, text in texts.items() if text})


def _files(texts: Mapping[str, str]) -> Tree:
    """Return a tree of files, path → text."""
    return Tree(
        nodes=tuple(
            File(path=path, body=text.encode(), replace=True) for path, text in texts.items()
        )
    )


def _needs(packages: Sequence[Package]) -> tuple[int, int]:
    """Return the bytes and inodes that building `packages` takes: archives, their raw forms, the tree and a tenth."""
    installed = sum(package.installed_size for package in packages)
    archives = sum(package.size for package in packages)
    return archives + installed * 21 // 10, 10 * len(packages)


def tree_layer(tree: Tree, below: Sequence[Layer], tools: Tools) -> Layer:
    """Return the layer of `tree` over the layers `below`; over none where the host's /usr is shared."""
    recipe = {
        "format": FORMAT,
        "origin": "tree",
        "below": [layer.digest for layer in below],
        "tree": tree.digest,
    }

    def fill(draft: Draft) -> int:
        epoch = below[-1].epoch if below else _EPOCH
        with tools.timed("tree"), ExitStack() as opened:
            fetched = _fetched(tree, tools, opened)
            _plant(tree, epoch, overlay_of(draft, below), tools, fetched)
        return epoch

    return build(recipe, fill, tools)


def _plant(
    tree: Tree, epoch: int, root: Root, tools: Tools, fetched: Mapping[str, int] | None = None
) -> None:
    from provisioner import errand, planting

    errand.send(tools.sandbox, root, lambda: planting.plant(tree, epoch, fetched or {}))


def _fetched(tree: Tree, tools: Tools, opened: ExitStack) -> dict[str, int]:
    """Return an open file for each hash that `tree` pins."""
    wanted = {node.sha256: node for node in tree.nodes if isinstance(node, Fetched)}
    if wanted:
        opened.enter_context(tools.store.lock("downloads", shared=True))
        if tools.bring:
            tools.bring(tuple(wanted.values()))
    paths = {digest: object_path(tools.store.cache, digest) for digest in wanted}
    return {
        digest: opened.enter_context(path.open("rb")).fileno() for digest, path in paths.items()
    }


def overlay_of(draft: Draft, below: Sequence[Layer]) -> Root:
    """Return the root in which a layer over the layers `below` (bottom first) is made."""
    if not below:
        return Root(upper=draft.root)
    lowers = tuple(layer.path for layer in reversed(below))
    return Root(upper=draft.root, lowers=lowers, work=draft.work)


def layer_name(recipe: Recipe) -> str:
    """Return the digest that names the layer which `recipe` makes."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def build(recipe: Recipe, fill: Fill, tools: Tools) -> Layer:
    """Return the layer that `recipe` names; `fill` makes it and returns its epoch. One builds, the others wait."""
    with _missing(recipe, tools) as found:
        if found is not None:
            return found
        with tools.store.draft(recipe["origin"]) as draft:
            epoch = _filled(fill, draft, tools)
            with tools.timed("commit"):
                return tools.store.commit(draft, layer_name(recipe), {**recipe, "epoch": epoch})


@contextmanager
def building(recipe: Recipe, fill: Fill, tools: Tools) -> Iterator[Layer]:
    """Have the layer that `recipe` names, as `build`, but hash it beside the block, and commit it after it.

    What a layer consists of takes a processor a while, and what is built upon it meanwhile leaves one idle.
    """
    with _missing(recipe, tools) as found:
        if found is not None:
            yield found
            return
        with tools.store.draft(recipe["origin"]) as draft:
            epoch = _filled(fill, draft, tools)
            meta, digest = {**recipe, "epoch": epoch}, layer_name(recipe)
            with tools.store.digested(draft, meta) as digested:
                try:
                    yield Layer(
                        digest=digest, path=draft.root, origin=recipe["origin"], epoch=epoch
                    )
                finally:
                    with tools.timed("commit"):
                        tools.store.commit(draft, digest, meta, digested())


@contextmanager
def _missing(recipe: Recipe, tools: Tools) -> Iterator[Layer | None]:
    """Have the layer that `recipe` names; None where it is for the block, alone, to make it."""
    digest = layer_name(recipe)
    found = tools.store.layer(digest)
    if found is not None:
        yield found
        return
    with tools.store.lock(digest):
        yield tools.store.layer(digest)


def _filled(fill: Fill, draft: Draft, tools: Tools) -> int:
    """Fill the draft; return its epoch."""
    try:
        return fill(draft)
    except ConfigureFailed as failed:
        if tools.keep_failed:
            failed.hints = (f"the rootfs is kept in {tools.store.keep(draft)}",)
        raise
