"""Starts and destroys a container again and again; prints what there was before, after, and after a prune.

    unshare -mnpf --mount-proc --propagation private python -m tests.system.leaks PATH

In namespaces of its own, because links, rules, mounts and processes of others come and go meanwhile. The layers are in
PATH already: there is no way out to a mirror.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from glob import glob
from pathlib import Path

from runtime import state
from tests.system.command import Mkt

ROUNDS = 20
UP = ("up", "sshd", "--distro", "debian", "--offline")


def there(mkt: Mkt) -> dict[str, object]:
    """Return what there is that a container could leave behind."""
    key = state.key(mkt.path, "sshd")
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=10)
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": sorted(name for _, name in socket.if_nameindex()),
        "rules": rules.stdout,
        "control groups": sorted(glob(f"/sys/fs/cgroup/**/*{key}*", recursive=True)),
        "states": sorted(map(str, state.folder(mkt.path).glob("sshd*"))),
        "files": sorted(os.listdir(mkt.path)),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),  # zombies, too
    }


def main() -> None:
    """Write them as a JSON list; a command that fails ends it."""
    mkt = Mkt(Path(sys.argv[1]))
    mkt.ok(*UP)
    mkt.ok("destroy", "--force", "sshd")
    seen = [there(mkt)]  # the bridge stays until `prune`
    for _ in range(ROUNDS):
        mkt.ok(*UP)
        mkt.ok("destroy", "--force", "sshd")
    seen.append(there(mkt))
    mkt.ok("prune", "--dry-run")
    seen.append(there(mkt))
    mkt.ok("prune")
    seen.append(there(mkt))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
