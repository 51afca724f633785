"""Whether the judge agrees with what really happens: a family of pairs, both real nginx, and a strict client.

Two laws hold over the whole family. What is accepted, stored as it would be, completes a handshake with a strict
client that trusts the root alone. What nginx refuses has been refused, or has been put right with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_files
from rotator.x509.pem import encode_chain
from tests.agreement import contents, keys_and_texts
from tests.agreement.family import Case, Runtime
from tests.agreement.serving import Served, client_says, clients_say, nginx_says, serving
from tests.support.nginx_binaries import KINDS
from tests.support.nginx_fixtures import require_nginx

pytestmark = [pytest.mark.contract, pytest.mark.timeout(900)]  # a thousand pairs, on machines that others use too

PUT_RIGHT = {Code.CHAIN_ORDER, Code.ROOT_INCLUDED, Code.TRAILING_DATA, Code.DUPLICATE_CERT, Code.KEY_IN_CERT_FILE}
"""Warnings under which what is stored is not what was given: nginx is asked about the stored form only."""

UNMARKED = {Code.NO_AKI, Code.BAD_KEY_USAGE, Code.CRITICAL_EXTENSION}
"""Warnings of authorities that only the strictest clients refuse: then the handshake is made without that flag."""

STRICTER = {
    Code.BAD_EKU,
    Code.BAD_KEY_USAGE,
    Code.BAD_SAN,
    Code.BAD_SERIAL,
    Code.BAD_VALIDITY,
    Code.BAD_VERSION,
    Code.CA_LEAF,
    Code.CHAIN_TOO_LONG,
    Code.CRITICAL_EXTENSION,
    Code.DUPLICATE_EXTENSION,
    Code.ENCODING,
    Code.INCOMPLETE_CHAIN,
    Code.KEY_INVALID,  # OpenSSL signs with whichever half of an RSA key is whole
    Code.KEY_TYPE,
    Code.MULTIPLE_KEYS,
    Code.MUST_STAPLE,
    Code.NAME_CONSTRAINTS,
    Code.NAME_MISMATCH,
    Code.NO_AKI,
    Code.NO_SAN,
    Code.PARSE_ERROR,
    Code.PATHLEN,  # Go counts certificates of a CA for its own new key, OpenSSL does not
    Code.TOO_LONG,
    Code.WEAK_KEY,
    Code.WEAK_SIGNATURE,
}
"""Codes under which a pair is refused that OpenSSL's client takes: other clients, or the CA/B Forum, do not."""


@pytest.fixture(scope="module")
def family() -> tuple[Case, ...]:
    """All cases, made anew; what certificates say is judged by both policies."""
    runtime = Runtime()
    said = tuple(contents.cases(runtime))
    private = (replace(case, title=f"{case.title}, private CA", private=True) for case in said)
    return (*keys_and_texts.cases(runtime), *said, *private)


def judge(case: Case) -> Verdict:
    """What `rotator check` says of the two files, for the one name."""
    files = [SourceFile("chain.pem", case.cert)]
    files += [SourceFile("key.pem", case.key)] if case.key != case.cert else []
    try:
        anchors = Anchors.from_pem(case.roots, "roots.pem")
    except RotatorError:
        return Verdict()  # no roots, nothing is accepted
    policy = (private_ca if case.private else public)([case.host])
    return validate_files(Candidate(tuple(files)), policy, anchors, datetime.now(UTC))


@pytest.fixture(scope="module")
def verdicts(family: Sequence[Case]) -> dict[str, Verdict]:
    return {case.title: judge(case) for case in family}


def as_given(case: Case) -> Served:
    return Served(case.title, case.cert, case.key, case.roots, case.host)


def as_stored(case: Case, verdict: Verdict) -> Served:
    """In canonical form, as the store writes it."""
    (pair,) = verdict.pairs
    assert pair.key is not None, case.title
    return Served(case.title, encode_chain(pair.chain), pair.key.reveal(), case.roots, case.host)


@dataclass(frozen=True)
class Truth:
    """What one nginx and the client said, by title.

    Args:
        refused: nginx's words about the files as given, where it refuses them.
        broken: the client's words about what is accepted, served in canonical form, where it refuses.
        as_given: the client's words about files that nginx takes as given and that are refused here; empty: accepted.
    """

    refused: Mapping[str, str]
    broken: Mapping[str, str]
    as_given: Mapping[str, str]


@pytest.fixture(scope="module", params=KINDS)
def truth(
    request: pytest.FixtureRequest,
    family: Sequence[Case],
    verdicts: Mapping[str, Verdict],
    tmp_path_factory: pytest.TempPathFactory,
) -> Truth:
    binary = require_nginx(request.param)
    return learn(binary, tmp_path_factory.mktemp("agreement"), family, verdicts)


def learn(binary: Path, root: Path, cases: Sequence[Case], verdicts: Mapping[str, Verdict]) -> Truth:
    """Ask nginx about every case as given, then serve what is accepted as stored, and the rest as given."""
    given = [as_given(case) for case in cases]
    said = nginx_says(binary, root / "given", given)
    accepted = [as_stored(case, verdicts[case.title]) for case in cases if verdicts[case.title].accepted]
    with serving(binary, root / "stored", accepted) as listeners:
        stored = {s.title: _client(listeners[s.title], s, verdicts[s.title]) for s in accepted}
    others = [s for s in given if said[s.title].ok and not verdicts[s.title].accepted]
    with serving(binary, root / "others", others) as listeners:
        answers = clients_say(listeners, others)
    return Truth(
        {title: " ".join(v.messages)[:300] for title, v in said.items() if not v.ok},
        {title: words for title, words in stored.items() if words},
        answers,
    )


def _client(listener: str, served: Served, verdict: Verdict) -> str:
    words = client_says(listener, served)
    if words and UNMARKED & set(verdict.warnings):
        return client_says(listener, served, strict=False)
    return words


def over_accepted(truth: Truth, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """Violations of the first law, with the client's words."""
    return {title: words for title, words in truth.broken.items() if verdicts[title].accepted}


def unseen(truth: Truth, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """Violations of the second law, with nginx's words."""
    return {
        title: words
        for title, words in truth.refused.items()
        if verdicts[title].accepted and not PUT_RIGHT & set(verdicts[title].warnings)
    }


def test_what_is_accepted_completes_a_handshake_with_a_strict_client(
    truth: Truth, verdicts: Mapping[str, Verdict]
) -> None:
    assert over_accepted(truth, verdicts) == {}


def test_what_nginx_refuses_has_been_refused_or_put_right(truth: Truth, verdicts: Mapping[str, Verdict]) -> None:
    assert unseen(truth, verdicts) == {}


def test_what_a_client_takes_as_given_is_refused_only_where_others_would_not(
    truth: Truth, verdicts: Mapping[str, Verdict]
) -> None:
    fine = [title for title, words in truth.as_given.items() if not words]
    assert {title: verdicts[title].codes for title in fine if not set(verdicts[title].codes) <= STRICTER} == {}


def test_the_family_is_not_one_sided(truth: Truth, verdicts: Mapping[str, Verdict], family: Sequence[Case]) -> None:
    accepted = sum(verdict.accepted for verdict in verdicts.values())
    assert len(verdicts) == len(family) > 1000, "titles are unique"
    assert accepted > 300
    assert len(family) - accepted > 600
    assert len(truth.refused) > 100
    assert len(family) - len(truth.refused) > 800
    assert sum(bool(words) for words in truth.as_given.values()) > 250, "nginx takes them, the client does not"
    seen = {code for verdict in verdicts.values() for code in verdict.codes}
    assert len(seen) > 30, sorted(seen)


# -- that these laws would notice


NO_VERDICT = {"rotator.validation.validate.library_verdict": ()}

SWITCHED_OFF: dict[str, tuple[dict[str, object], set[str]]] = {
    "the proof of a key": (
        {"rotator.x509.keys.Key.proves": True, "rotator.x509.keys._consistent": True},
        {f"RSA key with d and dmp1 damaged, {turn}" for turn in range(4)},
    ),
    "the purpose of a leaf": (NO_VERDICT | {"rotator.validation.leaf_rules._purposes": []}, {"leaf with any purpose"}),
    "the dates of a leaf": (
        NO_VERDICT | {"rotator.validation.leaf_rules._dates": []},
        {"leaf's time: over by a minute"},
    ),
    "what an authority may do": (
        NO_VERDICT | {"rotator.validation.path_rules._authority": []},
        {"intermediate with any purpose", "intermediate with no subject key identifier"},
    ),
    "how long a path may be": (
        NO_VERDICT | {"rotator.validation.path_rules._path_length": []},
        {"path lengths (0, 0)"},
    ),
    "whom a certificate names as its issuer": (
        NO_VERDICT | {"rotator.validation.path_rules._signature": []},
        {"intermediate with authority key identifier of another"},
    ),
}


@pytest.mark.parametrize("rule", SWITCHED_OFF)
def test_a_judge_with_one_rule_switched_off_is_caught(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: Sequence[Case], rule: str
) -> None:
    answers, titles = SWITCHED_OFF[rule]
    chosen = [case for case in family if case.title in titles]
    assert not any(judge(case).accepted for case in chosen)
    for name, answer in answers.items():
        monkeypatch.setattr(name, lambda *_args, _answer=answer, **_more: _answer)
    verdicts = {case.title: judge(case) for case in chosen}
    truth = learn(require_nginx("mainline"), tmp_path, chosen, verdicts)
    assert over_accepted(truth, verdicts).keys() == titles
