"""One renewal among a thousand sites on a real nginx: one reload, and nothing of the other sites is touched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.core.model import Provenance
from rotator.validation.validate import validate_files
from tests.support.authority import CA, Issued, new_key
from tests.support.client import served_leaf
from tests.support.edge import Edge
from tests.support.forked import Life, deliver, life
from tests.support.hosts import candidate_of
from tests.support.nginx_server import NginxServer
from tests.support.tiers import Size
from tests.support.waiting import wait_until

CHANGED = "site0050"
Mark = tuple[int, int, str]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_renewal_among_a_thousand_sites_is_one_reload_and_touches_nothing_of_the_others(
    nginx: NginxServer, memory: Path, issuing_ca: CA, root_ca: CA, size: Size
) -> None:
    sites = tuple(f"site{number:04d}" for number in range(size.count(1000, 100)))
    edge = Edge(nginx, memory / "edge", issuing_ca, root_ca, sites, listeners=1, daemon_extra='settle = "1s"\n')
    first = _stored(edge)
    nginx.start(timeout=60)
    new = edge.issue(CHANGED)
    with life(edge) as daemon:
        daemon.wait_for("ready:", f"{len(sites)} sites, all as wanted", timeout=120)
        _wait_until_idle(daemon)
        before, workers = _marks(edge), edge.ports.nginx.workers()
        history = len(edge.history.entries())
        digest = deliver(edge, new, CHANGED)
        wait_until(lambda: edge.store.intent(CHANGED).digest == digest, 60, "the drop is decided")
        daemon.wait_for(f"rotated {CHANGED}")
        after = _marks(edge)
        assert daemon.end() == 0
        words = daemon.words
    assert [line for line in words.splitlines() if "reloading nginx" in line] == [
        line for line in words.splitlines() if f"reloading nginx for {CHANGED}" in line
    ]
    assert words.count("reloading nginx") == 1
    now = edge.ports.nginx.workers()
    assert workers is not None
    assert now is not None
    assert (now.master, len(now.active), now.active & workers.active) == (workers.master, 1, frozenset())

    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    shared = {edge.state / name for name in ("lock", "lock.json", "daemon.lock", "daemon.json", "history.lock")}
    shared |= {edge.state / "history.jsonl"}
    shared |= {edge.state, edge.include_dir}  # directories in which one entry was replaced
    foreign = {path for path in changed - shared if CHANGED not in str(path)}
    assert foreign == set()
    assert edge.include_dir / f"{CHANGED}.conf" in changed
    assert [(e.site, e.result) for e in edge.history.entries()[history:]] == [(CHANGED, "rotated")]
    for site in sites[::50]:
        one = new if site == CHANGED else first[site]
        assert served_leaf(edge.addresses[0], edge.name(site)) == one.chain_der[0], site


def _stored(edge: Edge) -> dict[str, Issued]:
    """A first pair for each site, stored, named and noted as proved, as a long life would have left them."""
    ports, key, first = edge.ports, new_key(), {}
    now = datetime.now(UTC)
    generations = {}
    for site in edge.sites:
        first[site] = edge.issuer.issue(edge.name(site), key=key, not_before=now - timedelta(hours=2))
        verdict = validate_files(candidate_of(first[site]), edge.site(site).policy, edge.anchors, now)
        staged = ports.store.stage(site, verdict.pairs, Provenance(who="tester", when=now))
        staged.flush()
        generations[site] = staged.commit().name
    applied = bootstrap.direct(bootstrap.make_setup(edge.config))(generations, hup=False)
    assert not applied.error, applied
    for site, generation in generations.items():
        ports.store.mark_verified(site, generation)
        (edge.incoming / site).mkdir()
    return first


def _wait_until_idle(daemon: Life) -> None:
    """The first round of what is not urgent is over: the daemon hardly runs for a second."""

    def ticks() -> int:
        fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    seen = [ticks()]

    def is_idle() -> bool:
        seen.append(ticks())
        return seen[-1] - seen[-2] < 10

    wait_until(is_idle, 120, "the daemon rests", poll=1.0)


def _marks(edge: Edge) -> dict[Path, Mark]:
    """Inode, time of the last change and content of everything that rotator keeps."""

    def below(top: Path) -> Iterable[os.DirEntry[str]]:
        with os.scandir(top) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from below(Path(entry.path))

    found = {}
    for top in (edge.state, edge.include_dir):
        for entry in below(top):
            at = entry.stat(follow_symlinks=False)
            content = os.readlink(entry.path) if entry.is_symlink() else ""
            if entry.is_file(follow_symlinks=False):
                content = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
            found[Path(entry.path)] = (at.st_ino, at.st_ctime_ns, content)
    return found
