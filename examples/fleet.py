"""Three copies of one prepared container, made at once from threads: python examples/fleet.py"""

from concurrent.futures import ThreadPoolExecutor

import mktemplate


def member(number: int) -> str:
    """Make one copy, start it, ask it who it is."""
    copy = first.copy(f"fleet{number}").start()
    try:
        return copy.exec(["cat", "/srv/motto", "/etc/hostname"]).stdout.replace("\n", " ")
    finally:
        copy.destroy(force=True)


first = mktemplate.up("base", "fleet0", distro="debian")
try:
    first.exec(["tee", "/srv/motto"], input="one for all\n").check_returncode()
    first.stop()
    with ThreadPoolExecutor() as pool:
        for said in pool.map(member, (1, 2, 3)):
            print(said)
finally:
    first.destroy(force=True)
