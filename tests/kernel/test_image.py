"""Roots that are file system images: real ones, made by the tools that their users have, looked at from inside."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.container import Container
from runtime.errors import ConfigError, ContainerError, HostError
from runtime.image import images
from runtime.kernel.libc import NUMBERS, raw
from runtime.show import show
from tests.kernel.conftest import log_of

pytestmark = pytest.mark.root

Make = Callable[..., Container]
Needs = Callable[..., None]
MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-d", "{tree}", "{image}", "64M"),
    "squashfs": ("mksquashfs", "{tree}", "{image}", "-quiet", "-no-progress"),
    "erofs": ("mkfs.erofs", "--quiet", "{image}", "{tree}"),
}
KINDS = pytest.mark.parametrize(
    "kind", ["ext4", "squashfs", pytest.param("erofs", marks=pytest.mark.slow)]
)
WAITS = "/bin/sh -c 'echo up; while :; do sleep 0.1; done'"


@pytest.fixture(scope="module")
def made(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, needs: Needs
) -> Callable[[str], Path]:
    """Return a function that makes an image of the tiny root, as the file system `kind`: once."""
    folder = tmp_path_factory.mktemp("images")

    def one(kind: str) -> Path:
        opened = raw(NUMBERS["fsopen"], kind.encode() + b"\0", 1)  # loads what is a module
        if opened < 0:
            pytest.skip(f"this kernel has no {kind}")
        os.close(opened)
        command = MAKERS[kind]
        needs(command[0])
        path = folder / f"root.{kind}"
        if not path.exists():
            subprocess.run([word.format(tree=tiny, image=path) for word in command], check=True)
        return path

    return one


@pytest.fixture
def image(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that gives an image of one's own."""

    def one(kind: str) -> Path:
        path = tmp_path / f"root.{kind}"
        subprocess.run(["cp", "--sparse=always", made(kind), path], check=True)
        return path

    return one


def told(container: Container) -> list[str]:
    container.start()
    assert container.wait("STOPPED", 60)
    return log_of(container, "end\n").split("\n")[:-2]


def says(script: str) -> str:
    return f"/bin/sh -c '{script}; echo end'"


def devices(image: Path) -> list[str]:
    """Return the loop devices that `image` is attached to."""
    found = []
    for place in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # given back just now
            if place.read_text().strip() == str(image):
                found.append(place.parts[3])
    return found


def freed(image: Path) -> bool:
    """Whether its devices are free: the kernel lets go once the last mount is gone."""
    deadline = time.monotonic() + 30
    while devices(image):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("spelled", "kind"), [("loop:", "ext4"), ("", "squashfs"), ("loop:", "erofs")], ids=str
)
def test_an_image_is_the_root(
    make: Make, image: Callable[[str], Path], spelled: str, kind: str
) -> None:
    path = image(kind)
    line = f"lxc.rootfs.path = {spelled}{path}"
    container = make("img", says("cat /proc/mounts; cat /etc/group"), line, userns=False)

    lines = told(container)

    rows = [line.split() for line in lines]
    [(source, found, options)] = [(row[0], row[2], row[3]) for row in rows if row[1:2] == ["/"]]
    assert source.startswith("/dev/loop")
    assert found == kind
    assert {"nodev", "nosuid"} <= set(options.split(","))
    assert ("rw" if kind == "ext4" else "ro") in options.split(",")
    assert "more:x:44:web" in lines
    assert freed(path)


@KINDS
def test_its_owners_are_the_containers_where_the_options_say_so(
    make: Make, image: Callable[[str], Path], kind: str
) -> None:
    path = image(kind)
    lines = (f"lxc.rootfs.path = loop:{path}", "lxc.rootfs.options = idmap=container")

    assert told(make("ids", says("stat -c %u /bin/sh"), *lines)) == ["0"]


def test_what_is_written_to_an_image_is_there_again(
    make: Make, image: Callable[[str], Path]
) -> None:
    line = f"lxc.rootfs.path = loop:{image('ext4')}"
    container = make("keeps", says("cat /kept; echo kept >/kept"), line, userns=False)

    assert told(container) == ["cat: /kept: No such file or directory"]
    (container.directory / "log").unlink()
    assert told(container) == ["kept"]


@pytest.mark.parametrize(
    ("kind", "more"), [("ext4", "ro"), ("squashfs", ""), ("erofs", "")], ids=str
)
def test_a_read_only_image_cannot_be_written(
    make: Make, image: Callable[[str], Path], kind: str, more: str
) -> None:
    path = image(kind)
    before = hashlib.sha256(path.read_bytes()).digest()
    lines = (f"lxc.rootfs.path = {path}", *([f"lxc.rootfs.options = {more}"] if more else ()))

    assert "Read-only file system" in told(make("ro", says("touch /x 2>&1"), *lines))[0]
    assert hashlib.sha256(path.read_bytes()).digest() == before


@KINDS
@pytest.mark.parametrize("userns", [True, False], ids=["userns", "no-userns"])
def test_an_image_is_the_lower_layer_of_an_overlay(
    make: Make, image: Callable[[str], Path], kind: str, userns: bool
) -> None:
    path = image(kind)
    container = make("layer", says("stat -c %u /bin/sh; echo new >/bin/new"), userns=userns)
    upper = container.directory / "upper"
    with open(container.directory / "config", "a") as file:
        file.write(f"lxc.rootfs.path = overlay:{path}:{upper}\n")

    assert told(container) == ["0"]
    assert (upper / "bin/new").read_text() == "new\n"
    assert freed(path)


@KINDS
def test_a_volatile_root_forgets(make: Make, image: Callable[[str], Path], kind: str) -> None:
    path = image(kind)
    before = hashlib.sha256(path.read_bytes()).digest()
    lines = (f"lxc.rootfs.path = loop:{path}", "lxc.rootfs.options = idmap=container,volatile")
    container = make("forgets", says("cat /kept; echo kept >/kept; cat /kept"), *lines)

    for _ in range(2):
        assert told(container) == ["cat: /kept: No such file or directory", "kept"]
        (container.directory / "log").unlink()
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize("hook", ["", "lxc.hook.pre-start = /bin/true"], ids=["program", "python"])
@pytest.mark.parametrize("how", ["stop", "monitor", "init"])
def test_its_device_is_free_after_the_end(
    make: Make, image: Callable[[str], Path], hook: str, how: str
) -> None:
    path = image("ext4")
    container = make("ends", WAITS, f"lxc.rootfs.path = {path}", hook, userns=False)
    container.start()
    log_of(container, "up")
    run = container.run
    assert run is not None
    assert len(devices(path)) == 1

    if how == "stop":
        container.stop(0)
    else:
        os.kill(run.monitor.pid if how == "monitor" else run.init.pid, signal.SIGKILL)

    assert freed(path)


def test_containers_that_start_at_once_get_a_device_each(
    make: Make, image: Callable[[str], Path]
) -> None:
    path = image("squashfs")
    made = [
        make(f"one{number}", WAITS, f"lxc.rootfs.path = {path}", userns=False)
        for number in range(6)
    ]
    with ThreadPoolExecutor(len(made)) as starters:
        list(starters.map(Container.start, made))

    assert [container.state() for container in made] == ["RUNNING"] * len(made)
    assert len(devices(path)) == len(made)


@pytest.mark.parametrize("hook", ["", "lxc.hook.pre-start = /bin/true"], ids=["program", "python"])
def test_a_device_that_another_program_takes_first_is_left_to_it(
    make: Make, image: Callable[[str], Path], hook: str
) -> None:
    path = image("squashfs")
    others = Path(shutil.copy(path, path.with_name("others")))
    container = make("one", WAITS, f"lxc.rootfs.path = {path}", hook, userns=False)
    ended = threading.Event()

    def attach() -> int:
        """Take devices as mount(8) does, which locks nothing, and give them back."""
        taken = 0
        while not ended.is_set():
            done = subprocess.run(["losetup", "-f", "--show", others], capture_output=True)
            if not done.returncode:
                subprocess.run(["losetup", "-d", done.stdout.decode().strip()], check=True)
                taken += 1
        return taken

    with ThreadPoolExecutor(3) as threads:
        takers = [threads.submit(attach) for _ in range(3)]
        try:
            for _ in range(8):
                container.start()
                container.stop(0)
        finally:
            ended.set()
        assert all(taker.result() for taker in takers)


def test_what_holds_it_is_in_use_and_named_by_its_path(
    make: Make, made: Callable[[str], Path], tmp_path: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        path = place / "root.squashfs"
        subprocess.run(["cp", made("squashfs"), path], check=True)
        container = make("held", WAITS, f"lxc.rootfs.path = {path}", userns=False)
        container.start()

        assert len(devices(path)) == 1
        assert subprocess.run(["umount", place], capture_output=True, check=False).returncode
        container.stop(0)
        assert freed(path)
    finally:
        subprocess.run(["umount", place], check=True)


def test_print_shows_the_device(make: Make, image: Callable[[str], Path]) -> None:
    path = image("squashfs")

    text = show(make("shown", "/bin/true", f"lxc.rootfs.path = {path}").program())

    assert f'image0 = openat(AT_FDCWD, "{path}", O_CLOEXEC)' in text
    assert 'fsconfig(fs, FSCONFIG_SET_STRING, "source", "/dev/loop<free>", 0)' in text


@pytest.mark.parametrize(
    ("content", "spelled", "code"),
    [
        (b"#!/bin/sh\n", "loop:", "E_FS_UNSUITABLE"),
        (b"", "", "E_FS_UNSUITABLE"),
        (bytes(1080) + b"\x53\xef" + bytes(1 << 16), "loop:", "E_FS_UNSUITABLE"),
        (b"hsqs" + bytes(1 << 16), "loop:", "E_FS_UNSUITABLE"),
        (None, "loop:", "E_MOUNT_SOURCE"),
        (None, "nbd:", "E_CONFIG_KEY"),
    ],
    ids=["a script", "empty", "broken ext4", "broken squashfs", "missing", "nbd"],
)
def test_what_is_no_image_is_refused(
    make: Make, tmp_path: Path, content: bytes | None, spelled: str, code: str
) -> None:
    path = tmp_path / "no image"
    if content is not None:
        path.write_bytes(content)
    container = make("bad", "/bin/true", f"lxc.rootfs.path = {spelled}{path}")

    with pytest.raises(ContainerError) as caught:
        container.start()

    assert caught.value.code == code
    assert container.state() == "STOPPED"
    assert freed(path)


def test_a_normal_user_is_told_the_way_out(make: Make, image: Callable[[str], Path]) -> None:
    container = make("user", "/bin/true", f"lxc.rootfs.path = {image('ext4')}")

    with pytest.raises(
        HostError, match=r"E_FS_UNSUITABLE.*only root may have the kernel read"
    ) as caught:
        images(container.config, rootless=True)
    assert caught.value.hints == (
        "unpack it into a folder, and name that: lxc.rootfs.path = dir:FOLDER",
    )


def test_an_image_is_never_the_upper_layer(
    make: Make, image: Callable[[str], Path], tiny: Path
) -> None:
    container = make("upper", "/bin/true", f"lxc.rootfs.path = overlay:{tiny}:{image('ext4')}")

    with pytest.raises(ConfigError, match="what is written to must be a folder"):
        container.start()
