"""How long 100 tests take that have a PostgreSQL server of their own each: `python bench/databases.py [-n TESTS]`.

Each test brings one up by the pytest plugin, makes a table and asks it; two workers of pytest-xdist do them. The first
run makes the warm snapshot where there is none, the second is measured: from the start of pytest to its end. What
else the machine was busy with stands beside the number.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TESTS = r"""import socket, struct
import pytest

def query(address, sql):
    '''Speak PostgreSQL's protocol, version 3: start, ask, hear the answer out.'''
    def until(kind):
        found = []
        while not found or found[-1][0] != kind:
            head = stream.read(5)
            found.append((head[:1], stream.read(struct.unpack("!I", head[1:])[0] - 4)))
        return found
    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body
    with socket.create_connection(address, timeout=10) as server, server.makefile("rb") as stream:
        words = b"user\0postgres\0database\0postgres\0\0"
        server.sendall(message(b"", struct.pack("!I", 3 << 16) + words))
        until(b"Z")
        server.sendall(message(b"Q", sql.encode() + b"\0"))
        return until(b"Z")

@pytest.mark.parametrize("number", range(TESTS))
def test_a_database_of_its_own(mktemplate, number):
    db = mktemplate.up("postgresql", distro="debian", set={"anonymous": True, "durable": False})
    said = query(db.address(), f"create table t (n int); insert into t values ({number}); select n from t")
    assert [body[6:] for kind, body in said if kind == b"D"] == [b"%d" % number]
    assert not [body for kind, body in said if kind == b"E"]
"""


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, metavar="TESTS", help="tests (100)")
    tests = parser.parse_args().n
    with tempfile.TemporaryDirectory(prefix="mktemplate-bench-") as folder:
        file = Path(folder, "test_databases.py")
        for count in (2, tests):
            file.write_text(f"TESTS = {count}\n{TESTS}")
            before = os.getloadavg()[0]
            began = time.monotonic()
            done = subprocess.run(
                [
                    *(sys.executable, "-P", "-m", "pytest", "-q", "-n", "2", "-c", os.devnull),
                    *("-p", "no:cacheprovider", "-p", "xdist", "-p", "mktemplate.pytest_plugin"),
                    str(file),
                ],
                check=False,
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(CHECKOUT),
                    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                },
                capture_output=True,
                text=True,
            )
            took = time.monotonic() - began
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
    print(
        f"{tests} tests with {tests} PostgreSQL servers: {took:.1f} s, {took / tests * 1000:.0f} ms each, "
        f"{os.cpu_count()} processors, load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )


if __name__ == "__main__":
    main()
