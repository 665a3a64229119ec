"""What a full disk, a bad folder or an interrupt does to a file on its way."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.connect import Limits, Pace, Resolver, open_socket
from provisioner.errors import ProvisionError, StoreFailed
from provisioner.freshness import write_whole
from provisioner.part import hashed, part, regular_size
from provisioner.workers import in_threads

FULL = """
import sys
from pathlib import Path
from provisioner.errors import ProvisionError
from provisioner.freshness import write_whole
from provisioner.part import part
folder = Path(sys.argv[1])
def fill():
    with part(folder / "p", 1 << 20, lambda: False) as out:
        out.write(bytes(1 << 20))
for attempt in (fill, lambda: write_whole(folder / "f", bytes(1 << 20))):
    try:
        attempt()
    except ProvisionError as failure:
        print(failure.code, failure.hints[0])
print(sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.root
def test_a_full_disk_has_a_code_and_leaves_no_half_file(
    tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("unshare")
    script = f"mount -t tmpfs -o size=64k none {tmp_path} && exec {sys.executable} -c '{FULL}' {tmp_path}"

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split("\n")[:3] == [
        "E_NOSPACE `mktemplate prune` drops what nothing uses",
        "E_NOSPACE `mktemplate prune` drops what nothing uses",
        "['p']",
    ]


def test_a_folder_that_is_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreFailed):
        write_whole(tmp_path / "file/x", b"")
    with pytest.raises(StoreFailed), part(tmp_path / "file/x", 1, lambda: False):
        pass


def test_a_link_is_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreFailed), part(tmp_path / "p", 1, lambda: False):
        pass

    assert not (tmp_path / "elsewhere").exists()
    assert regular_size(tmp_path / "p") == -1


def test_a_link_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(ProvisionError):
        hashed(tmp_path / "link")
    assert hashed(tmp_path / "real") == (hashlib.sha256(b"x").hexdigest(), 1)
    assert hashed(tmp_path / "none") is None


def test_a_written_file_is_private_and_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a/f", b"one")
    write_whole(tmp_path / "a/f", b"two")

    assert (tmp_path / "a/f").read_bytes() == b"two"
    assert (tmp_path / "a/f").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "a") == ["f"]


def test_results_come_in_the_order_of_their_items() -> None:
    assert in_threads(lambda number: number * 2, range(100), 4) == [2 * n for n in range(100)]


def test_no_thread_is_left_when_the_results_are_there() -> None:
    before = threading.active_count()
    in_threads(lambda number: number, range(50), 8)

    assert threading.active_count() == before


def test_the_first_exception_of_a_thread_is_raised() -> None:
    def fail(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"\d"):
        in_threads(fail, range(10), 4)


def test_an_interrupt_does_not_wait_for_the_threads() -> None:
    code = (
        "import signal, threading\nfrom provisioner.workers import in_threads\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "print('ready', flush=True)\n"
        "in_threads(lambda item: threading.Event().wait(60), [1, 2], 2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.send_signal(signal.SIGINT)

        assert run.wait(30) != 0


def _black_hole() -> tuple[socket.socket, list[socket.socket]]:
    """Return a listener that answers no further connection: its queue is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


def test_an_address_that_does_not_answer_does_not_hold_up_the_next() -> None:
    hole, fillers = _black_hole()
    resolver, pace = Resolver(), Pace()
    with hole, socket.create_server(("127.0.0.1", 0)) as good:
        addresses = [(int(socket.AF_INET), each.getsockname()) for each in (hole, good)]
        resolver._known["host", 80] = tuple(addresses)

        with open_socket("host", 80, resolver, Limits(connect=5), pace) as won:
            assert won.getpeername() == good.getsockname()

        resolver._known["host", 80] = (addresses[0],)
        with pytest.raises(OSError, match="no answer"):
            open_socket("host", 80, resolver, Limits(connect=0.3), pace)
    for filler in fillers:
        filler.close()


def test_a_name_is_looked_up_once_however_many_ask() -> None:
    resolver = Resolver()
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolver.addresses("localhost", 80)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert all(each is found[0] for each in found)
