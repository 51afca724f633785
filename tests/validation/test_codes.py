"""Every code that a problem can have is found by something that somebody could deliver."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code, Problem
from rotator.sources.file_reader import read_named
from rotator.validation.validate import Anchors, Verdict
from tests.support.hosts import Host
from tests.support.other_user import as_nobody
from tests.validation import test_revocation, test_sct, test_stapling, test_weak_keys
from tests.validation.test_validate import bad_signature, everything


def judged() -> set[str]:
    """What the judge finds in the files that its tests make."""
    verdicts = [*everything(), bad_signature()]
    return {str(p.code) for verdict in verdicts for p in problems(verdict)}


def shown_lists() -> set[str]:
    """What revocation lists, OCSP responses, logs and lists of keys find."""
    lists, scts = test_revocation, test_sct
    verdicts = [
        lists.looked_up(lists.ICA.crl(lists.GOOD.leaf), lists.OF_ROOT),
        *(lists.looked_up(one, lists.OF_ROOT) for one, _ in lists.UNKNOWNS.values()),
        *(scts.checked(scts.logged(scts.ONE, wrong), scts.ALL) for wrong in scts.WRONG.values()),
        scts.checked(scts.logged(scts.ONE, scts.UNCOUNTED["of an unknown log"]), scts.ALL),
        scts.checked(scts.logged(scts.ONE, also := scts.Keeper("first again")), scts.logs(scts.ONE, also)),
        test_stapling.looked_up(test_stapling.STALE, issued=test_stapling.DEMANDING),
        test_weak_keys.blocked(test_weak_keys.hash_of(test_weak_keys.GOOD)),
    ]
    return {str(p.code) for verdict in verdicts for p in verdict.problems}


def problems(verdict: Verdict | Iterable[Problem]) -> Iterable[Problem]:
    return verdict.problems if isinstance(verdict, Verdict) else verdict


def raised(work: Callable[[], object]) -> str:
    """The code of the refusal."""
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value.code


def read(tmp_path: Path) -> set[str]:
    """What the reader finds where there is no file, or none for this user."""
    tmp_path.chmod(0o755)
    (tmp_path / "closed.key").write_bytes(b"x")
    (tmp_path / "closed.key").chmod(0)
    (closed,) = as_nobody(lambda: [raised(lambda: read_named("closed.key"))], cwd=tmp_path)
    return {raised(lambda: read_named(tmp_path / "absent.pem")), closed}


def rotated(tmp_path: Path) -> set[str]:
    """What nginx finds in a pair that the judge accepts."""
    (tmp_path / "host").mkdir()
    host = Host(tmp_path / "host")
    (site,) = host.sites
    host.world.nginx.refused_candidates = ('SSL_CTX_use_PrivateKey("privkey.pem") failed',)
    first = host.swap(site, host.issue())
    host.world.nginx.refused_candidates = ()
    host.world.rehearsal = "no shared cipher"
    second = host.swap(site, host.issue())
    return {str(p.code) for done in (first, second) for p in done.problems}


def test_every_code_is_found_in_something(tmp_path: Path) -> None:
    found = judged() | shown_lists() | read(tmp_path) | rotated(tmp_path)
    found.add(raised(lambda: Anchors.from_pem(b"# no roots", "roots.pem")))
    assert {str(code) for code in Code} - found == set()
