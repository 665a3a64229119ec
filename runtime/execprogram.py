"""PATH/NAME/exec: an exec program, with which a command runs inside without Python where it needs no terminal.

It is what enter.run does for the container's own user, written down while the container runs: its namespaces, control
groups, limits, confinement and environment follow from its configuration, its user from its /etc/passwd. Each run looks
whether these, the boot and our code are what they were, and finds init in the run state.
"""

from __future__ import annotations

import os

from runtime import cgroupfs, confinement, enter, standalone, startfile, startprogram, state
from runtime.container import Container
from runtime.duties import Duties, Inside
from runtime.kernel import mount as m
from runtime.passwd import WHERE
from runtime.swap import EXEC

_FAILED = 125


def keep(container: Container) -> None:
    """Have the exec program of a running container as it would be written today, where it can have one."""
    run = container.running()
    path = container.directory / EXEC
    settings, found = container.config, container.bundle
    if os.geteuid() != 0 or not settings.idmap or not standalone.suffices(settings, found.config):
        return  # who is root inside without a user namespace could write to the file (CVE-2019-5736)
    if cgroupfs.delegates(settings):
        return  # where init's control groups are is its own affair, and may change
    if startfile.current(path) is not None:
        return
    files = filter(None, (str(found.config), settings.seccomp_profile, startprogram.__file__))
    seen = startfile.settled(files)
    with enter.joined(container) as target:
        look = _passwd(target.root)
        if not look:
            return
        account = target.account("")
        before = (*confinement.session(), *confinement.stand_in(settings.init_cwd or "/"))
        variables = target.variables(account)
        duties = Duties(
            name=container.name,
            log=found.log,
            state=state.folder(container.path) / f"{container.name}.json",
            running=standalone.state_texts(run)[0],
            basis=tuple(seen),
            boot=state.boot_id(),
            inside=Inside(
                join=container.cgroup(run).join_files() if run.cgroup else (),
                passwd=look,
                environment=tuple(f"{key}={value}" for key, value in variables.items()),
                path=tuple(variables["PATH"].split(":")),
            ),
        )
        program = startprogram.write(target.join(account, before, ()), duties, lambda _: _FAILED)
    startfile.write(path, program, [*seen, *startfile.settled(startfile.code())], run)


def _passwd(root: int) -> tuple[int, ...]:
    """Return the look of /etc/passwd below `root`, nothing where it is none."""
    try:
        descriptor = m.openat2(root, "etc/passwd", os.O_PATH, resolve=WHERE)
    except OSError:
        return ()
    status = os.fstat(descriptor)
    os.close(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns
