"""The table of the daemon's periodic jobs: a new one is one more line here and the function that it calls.

Each job runs in the loop's thread, in the first pass after it is due. A job that concerns every site only queues them:
`Maintenance` works through them piece by piece while nothing more urgent is to be done. `rotator status --verbose`
shows the table with the last and the next run of each job.

A repeated try has its own time and is not a job: of a watch that failed, of a metrics port that was taken, of a drop or
a site that waits for nginx.
"""

from __future__ import annotations

from collections.abc import Callable

from rotator.daemon.loop import Loop
from rotator.daemon.scheduler import PeriodicJob

SCAN_DROPS = "scan-drops"
"""The one job whose interval is configured."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def periodic_jobs(
    loop: Loop,
    *,
    reload_trust: Callable[[], object],
    greet_root: Callable[[], object],
    report_alive: Callable[[], object],
    alive_every: float,
) -> tuple[PeriodicJob, ...]:
    """All periodic jobs, in the order in which they run when several are due at once.

    Args:
        loop: the loop that they run in.
        reload_trust: reads roots, pools and revocation lists again.
        greet_root: holds the connection to root's program.
        report_alive: reports that the loop works.
        alive_every: seconds between two of these reports.
    """
    maintenance = loop.maintenance
    return (
        PeriodicJob("report-alive", alive_every, report_alive, "Report to the service manager that the loop works"),
        PeriodicJob(
            SCAN_DROPS,
            loop.runtime.scan_interval,
            lambda: loop.scan.request_all(),
            "Look at every drop, in case file events were lost",
        ),
        PeriodicJob("probe-listeners", MINUTE, maintenance.probe, "Probe the listeners of the next sites"),
        PeriodicJob("greet-root", MINUTE, greet_root, "Connect to root's program again if the connection has ended"),
        PeriodicJob("reload-trust", HOUR, reload_trust, "Read roots, pools, revocation lists and the like again"),
        PeriodicJob("validate-live", HOUR, maintenance.validate_live, "Validate everything live again"),
        PeriodicJob("tidy-store", DAY, maintenance.tidy, "Delete old generations, and close a history that is long"),
    )
