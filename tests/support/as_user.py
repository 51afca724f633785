"""rotator as a user without rights, from a Python that only root may read: everything is imported first; no tests.

python -m tests.support.as_user UID GID [rotator's own words]
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

LATE = (
    "apscheduler.executors.debug",
    "apscheduler.schedulers.background",
    "apscheduler.triggers.base",
    "encodings.idna",
    "watchdog.observers",
)
"""What rotator imports only when it is needed."""


def main() -> None:
    import rotator

    for module in pkgutil.walk_packages(rotator.__path__, "rotator."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in LATE:
        import_module(name)
    from rotator import cli
    from rotator.privsep import privilege_drop

    _, uid, gid, *words = sys.argv
    privilege_drop.become(int(uid), int(gid))
    sys.argv = ["rotator", *words]
    cli.main()


if __name__ == "__main__":
    main()
