"""AppArmor, on a kernel that has it: the profile is in force inside, for init and for who joins it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import enter
from runtime.errors import LaunchError
from tests.kernel.conftest import Make, log_of

_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not _ENABLED.exists() or _ENABLED.read_text() != "Y\n", reason="this kernel has no AppArmor"
    ),
]
LABEL = "/proc/self/attr/apparmor/current"
INIT = f'/bin/sh -c "cat {LABEL}; echo said; exec sleep 1000"'


@pytest.fixture
def profile() -> Iterator[str]:
    """Load a profile that forbids reading /etc/passwd."""
    text = """profile mktemplate-test flags=(attach_disconnected,mediate_deleted) {
        file, capability, network, mount, umount, unix, signal,
        deny /etc/passwd r,
    }
    """
    subprocess.run(["apparmor_parser", "--replace"], input=text, text=True, check=True)
    yield "mktemplate-test"
    subprocess.run(["apparmor_parser", "--remove"], input=text, text=True, check=True)


@pytest.mark.parametrize("userns", [True, False])
def test_a_profile_of_ones_own(make: Make, profile: str, userns: bool) -> None:
    container = make("aa", INIT, f"lxc.apparmor.profile = {profile}", userns=userns)

    container.start()

    assert f"{profile} (enforce)" in log_of(container, "said")
    assert enter.execute(container, ["sh", "-c", "cat /etc/passwd"]) == 1


def test_ours(make: Make) -> None:
    container = make("aa", INIT, "lxc.apparmor.profile = generated")

    container.start()

    assert "mktemplate (enforce)" in log_of(container, "said")
    assert enter.execute(container, ["cat", "/etc/passwd"]) == 0
    assert enter.execute(container, ["sh", "-c", "echo h > /proc/sysrq-trigger"]) != 0
    container.stop()


def test_a_profile_that_is_not_loaded_is_named(make: Make) -> None:
    container = make("aa", INIT, "lxc.apparmor.profile = nobody-has-this")

    with pytest.raises(LaunchError) as caught:
        container.start()

    assert (caught.value.code, caught.value.subject) == ("E_CONFIG_VALUE", "lxc.apparmor.profile")
