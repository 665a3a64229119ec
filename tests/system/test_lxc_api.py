"""Scripts written for python3-lxc run against mktemplate.lxc, unchanged but for their import and template name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mktemplate import lxc
from tests.conftest import lacking
from tests.system.command import Mkt

pytestmark = pytest.mark.system
EXAMPLE = Path("/usr/share/doc/python3-lxc/examples/api_test.py")

SCRIPT = r"""
import sys
import lxc

NAME, COPY, RENAMED = "one", "two", "three"
old = os.environ["LXC_PATH"]

# create, configure
c = lxc.Container(NAME)
assert not c.defined and c.state == "STOPPED" and c.init_pid == -1
assert c.create("download", lxc.LXC_CREATE_QUIET, {"dist": "debian", "release": "trixie"})
assert c.defined and NAME in lxc.list_containers()
assert c.get_config_item("lxc.uts.name") == NAME
drop = c.get_config_item("lxc.cap.drop")
assert c.set_config_item("lxc.cap.drop", drop[:-1]) and c.append_config_item("lxc.cap.drop", drop[-1])
assert c.get_config_item("lxc.cap.drop") == drop
assert c.append_config_item("lxc.environment", "GREETING=hello world")
assert c.set_config_item("lxc.cgroup.memory.limit_in_bytes", "128M") in (True, False)
assert c.save_config()
assert "GREETING=hello world" in lxc.Container(NAME).get_config_item("lxc.environment")
assert len(c.network) == 1 and c.network[0].type == "veth" and "hwaddr" in c.get_keys("lxc.net.0")
assert not c.set_config_item("lxc.tty.max", "many")

# start, look, attach
assert c.start() and c.wait("RUNNING", 30) and c.running and c.init_pid > 1
assert not c.start()
assert "eth0" in c.get_interfaces()
ips = c.get_ips(family="inet", timeout=10)
assert ips and ips == c.get_ips(interface="eth0", family="inet") and c.get_ips(interface="lo") == ()
assert c.get_running_config_item("lxc.uts.name") == NAME

def write(text):
    with open("/root/note", "w") as file:
        file.write(text)
    return 7

status = c.attach_wait(write, "kept\n")
assert os.WEXITSTATUS(status) == 7, status
with open(old + "/out", "w+") as out:
    assert c.attach_wait(lxc.attach_run_command, ["cat", "/root/note", "/etc/hostname"], stdout=out) == 0
    out.seek(0)
    assert out.read() == "kept\n" + NAME + "\n"
    out.truncate(0)
    out.seek(0)
    assert c.attach_wait(lxc.attach_run_command, ("sh", ["sh", "-c", "id -u; pwd; echo $A$HOME; hostname"]),
                         uid=1, gid=1, initial_cwd="/tmp", env_policy=lxc.LXC_ATTACH_CLEAR_ENV,
                         extra_env_vars=["A=b"], stdout=out) == 0
    out.seek(0)
    assert out.read() == "1\n/tmp\nb\n" + NAME + "\n"
assert c.attach_wait(lxc.attach_run_command, ["false"]) == 1 << 8
assert c.attach_wait(lxc.attach_run_command, ["nothere"]) == -1
assert c.attach_wait(lambda: 1 // 0) == -1
pid = c.attach(lxc.attach_run_command, ["sleep", "300"])
assert pid > 0
os.kill(pid, 15)
assert os.waitpid(pid, 0)[1] == 15
assert c.attach_wait(lxc.attach_run_command, ["hostname"], namespaces=lxc.CLONE_NEWNET | lxc.CLONE_NEWUTS) == 0

# cgroup items
limit = c.get_cgroup_item("memory.limit_in_bytes")
assert c.set_cgroup_item("memory.limit_in_bytes", "100000000")
assert c.get_cgroup_item("memory.limit_in_bytes") != limit
try:
    c.get_cgroup_item("memory.nonsense")
except KeyError:
    pass
else:
    raise AssertionError("no KeyError")
assert int(c.get_cgroup_item("pids.current")) >= 1

# freeze, stop
assert c.freeze() and c.wait("FROZEN", 30) and c.state == "FROZEN" and c.running
assert c.unfreeze() and c.wait("RUNNING", 30)
assert c.reboot() and c.wait("RUNNING", 30)
assert not c.destroy() and not c.rename(RENAMED) and not c.snapshot()
if not c.shutdown(3):
    assert c.stop()
assert c.wait("STOPPED", 30) and c.init_pid == -1 and c.get_ips() == ()

# snapshots
with open(old + "/why", "w") as comment:
    comment.write("before the clone")
assert c.snapshot_list() == ()
assert c.snapshot(old + "/why") == "snap0"
[(snap, why, when, where)] = c.snapshot_list()
assert snap == "snap0" and open(why).read() == "before the clone" and len(when.split(":")) == 5
assert c.start() and c.attach_wait(write, "changed\n") == 7 << 8 and c.stop()
assert c.snapshot_restore("snap0") is True
assert c.snapshot_restore("snap0", "restored") is True
assert not c.snapshot_restore("snap9")
for one in (c, lxc.Container("restored")):
    with open(old + "/out", "w+") as out:
        assert one.start() and one.attach_wait(lxc.attach_run_command, ["cat", "/root/note"], stdout=out) == 0
        out.seek(0)
        assert out.read() == "kept\n"
    assert one.stop()
assert lxc.Container("restored").destroy()

# clone, rename, destroy
assert not c.clone(NAME)
assert c.snapshot_destroy("snap0") is True
clone = c.clone(COPY)
assert clone is not False and clone.network[0].hwaddr != c.network[0].hwaddr
renamed = clone.rename(RENAMED)
assert renamed.name == RENAMED and renamed.start()
assert [one.name for one in lxc.list_containers(defined=False, as_object=True)] == [RENAMED]
assert renamed.stop() and renamed.destroy() and c.destroy()
assert not c.defined and lxc.list_containers() == ()
print("done")
"""


def run(mkt: Mkt, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of python3-lxc's with its import and its template's name changed."""
    ours = text.replace("import lxc\n", "import mktemplate.lxc as lxc\n", 1)
    script = folder / "script.py"
    script.write_text(ours.replace('"download"', '"base"'))
    return subprocess.run(
        [sys.executable, "-P", script], timeout=120, capture_output=True, text=True,
        env=mkt.environment | {"MKTEMPLATE_PATH": str(mkt.path), "LXC_PATH": str(folder)},
    )  # fmt: skip


def test_a_script_for_python3_lxc_runs_unchanged(mkt: Mkt, tmp_path: Path) -> None:
    done = run(mkt, "import os\n" + SCRIPT, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"


def test_python3_lxcs_own_example_runs(mkt: Mkt, tmp_path: Path) -> None:
    """Its api_test.py; what it asks of LXC's image server is asked of ours, xenial having no mirror any more."""
    if not EXAMPLE.exists():
        lacking(str(EXAMPLE))
    text = EXAMPLE.read_text().replace('"ubuntu"', '"debian"').replace('"xenial"', '"trixie"')
    if not Path("/sys/fs/cgroup/memory").is_dir():  # as 7.0 has it
        text = text.replace("memory.max_usage_in_bytes", "memory.peak")
        text = text.replace("memory.limit_in_bytes", "memory.max")

    done = run(mkt, text, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Destroying the container"
    assert mkt.names() == []


def test_what_is_set_in_memory_counts_without_being_saved(mkt: Mkt, tmp_path: Path) -> None:
    one = lxc.Container("one", str(mkt.path))
    assert one.create("base", 0, ("--distro", "debian"))
    before = Path(one.config_file_name).read_bytes()
    read, write = os.pipe()
    one.set_config_item("lxc.uts.name", "unsaved")
    one.set_config_item("lxc.console.logfile", str(tmp_path / "log"))

    assert one.start(cmd=("sh", "-c", "hostname; exec sleep 60"))
    assert one.attach_wait(lxc.attach_run_command, ["hostname"], stdout=write) == 0

    assert os.read(read, 100) == b"unsaved\n"
    assert Path(one.config_file_name).read_bytes() == before
    assert (tmp_path / "log").read_text() == "unsaved\n"
    assert one.stop()
    for descriptor in (read, write):
        os.close(descriptor)


def test_why_something_failed_is_in_the_log(mkt: Mkt, caplog: pytest.LogCaptureFixture) -> None:
    one = lxc.Container("one", str(mkt.path))

    assert not one.create("nosuch")

    assert re.search("one: create: .*nosuch", caplog.text)
