"""The words of the design as frozen values; no file, clock, socket or library lives here, only the standard types."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from rotator.core.problems import Problem


@dataclass(frozen=True, slots=True)
class Secret:
    """Bytes of a private key; they never show in `repr`, `str` or a format string."""

    _value: bytes = field(repr=False)

    def reveal(self) -> bytes:
        """The bytes, for the file that they are written to or the library that signs with them."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


class KeyType(StrEnum):
    """The kinds of key that a site may hold side by side."""

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as it was read, once: untrusted bytes.

    Args:
        name: the name to use in messages (the path as it was given, or the name in the drop).
        data: the content, kept out of `repr` because it may hold a key.
        mode: permission bits at the time of reading, e.g. 0o640.
        owner: the uid of its owner then; -1 where that is not known.
    """

    name: str
    data: bytes = field(repr=False)
    mode: int = 0o600
    owner: int = -1


@dataclass(frozen=True, slots=True)
class Candidate:
    """Raw, untrusted files of one drop or one command line, in the order given.

    Args:
        files: as they were read.
        password: what opens an encrypted key among them; None if none is known.
        notes: what was noticed about the password's file.
    """

    files: tuple[SourceFile, ...]
    password: Secret | None = field(default=None, repr=False)
    notes: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents: the same drop read again has the same digest.

        The password has no part in it, as this is written down where others may read it.
        """
        whole = hashlib.sha256()
        for source in sorted(self.files, key=lambda f: f.name):
            for part in (source.name.encode("utf-8", "surrogateescape"), source.data):
                whole.update(len(part).to_bytes(8, "big"))
                whole.update(part)
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and the key that was proved to belong to its leaf.

    Args:
        key_type: the kind of the leaf's key.
        chain: DER certificates as nginx shall send them: leaf first, each signed by the next, no root, no double.
        key: the private key as unencrypted PKCS#8 PEM; None only in `rotator check` without a key.
        subject: the leaf's subject, for messages; may be empty (short-lived certificates have no CN).
        issuer: the leaf's issuer, for messages.
        serial: the leaf's serial number, lower-case hex.
        names: the leaf's DNS and IP subject alternative names, as written there.
        not_before: the leaf's, UTC.
        not_after: the leaf's, UTC.
        effective_not_after: the earliest notAfter on the served path, UTC.
    """

    key_type: KeyType
    chain: tuple[bytes, ...]
    key: Secret | None
    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    effective_not_after: datetime

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, lower-case hex."""
        return hashlib.sha256(self.chain[0]).hexdigest()


def pairs_digest(pairs: tuple[Pair, ...]) -> str:
    """SHA-256 (hex) over the chains of a site's pairs.

    The whole chain counts: a renewed intermediate under the same leaf is a change. The key needs no place in it, as
    the leaf names its public half, so nothing derived from a private key ends up in a file name.
    """
    whole = hashlib.sha256()
    for pair in sorted(pairs, key=lambda p: p.key_type):
        whole.update(pair.key_type.encode())
        for der in pair.chain:
            whole.update(len(der).to_bytes(8, "big"))
            whole.update(der)
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Policy:
    """What we demand of a site's pairs.

    Args:
        profile: the preset this was made from: `public` or `private-ca`; the roots come separately.
        names: every name that must be covered, as configured (IDN allowed, wildcard with a concrete probe name beside).
        key_types: kinds of leaf key that are accepted.
        min_rsa_bits: smallest RSA modulus accepted, in bits (CA/B BR 6.1.5: 2048).
        max_rsa_bits: largest RSA modulus accepted, in bits.
        lifetime_caps: whether the CA/B Forum's caps on lifetime by issue date apply (BR 6.3.2).
        allow_key_reuse: whether a renewal may keep the live key (a warning then, a refusal otherwise).
        allow_san_loss: whether a renewal may drop a name that the live leaf covers and nobody configured.
        forbid_downgrade: refuse a pair both issued and expiring earlier than the live one.
        max_lifetime: longest lifetime accepted, in days, besides the caps; 0: no other limit.
        min_life_left: a renewal with less than this share of its life left is refused, in percent; 0: it is warned of
            where little is left.
        require_crls: refuse where a revocation list was to be asked and none gives an answer; a warning otherwise.
        stapling: nginx is known to staple an OCSP answer in every handshake, so must-staple (RFC 7633) may be accepted.
    """

    profile: str = "public"
    names: tuple[str, ...] = ()
    key_types: frozenset[KeyType] = frozenset({KeyType.ECDSA, KeyType.RSA})
    min_rsa_bits: int = 2048
    max_rsa_bits: int = 8192
    lifetime_caps: bool = True
    allow_key_reuse: bool = True
    allow_san_loss: bool = False
    forbid_downgrade: bool = True
    max_lifetime: int = 0
    min_life_left: int = 0
    require_crls: bool = False
    stapling: bool = False

    @property
    def binds_public(self) -> bool:
        """Whether the rules that bind public CAs only are applied."""
        return self.profile != "private-ca"


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "public": {"key_types": frozenset({KeyType.ECDSA, KeyType.RSA}), "lifetime_caps": True},
    "private-ca": {"key_types": frozenset(KeyType), "lifetime_caps": False},
}
"""What each profile of a `Policy` demands: no public CA issues Ed25519 leaves, and the caps bind public CAs only."""


@dataclass(frozen=True, slots=True)
class Site:
    """One certificate of the configuration.

    Args:
        name: a strict name (see `config`): it becomes a directory and a file name.
        names: host names that must be covered, each proved on each listener.
        listeners: `host:port`, `[v6]:port` or `unix:/path` addresses that serve it.
        policy: what its pairs must satisfy.
        keep: how many generations stay in the store.
        probe_names: for each of `names`, in their order, the name to send in a handshake: itself, or for a wildcard a
            concrete name that it covers. Empty: the names themselves.
    """

    name: str
    names: tuple[str, ...]
    listeners: tuple[str, ...]
    policy: Policy
    keep: int = 5
    probe_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """An immutable, stored pair directory: what it holds, without the keys.

    Args:
        site: the site's name.
        name: `<seq>-<digest12>`.
        chains: the DER chain of each pair, leaf first.
        meta: the content of meta.json (fingerprints, names, dates, origin, who, when).
    """

    site: str
    name: str
    chains: Mapping[KeyType, tuple[bytes, ...]]
    meta: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to prove: this name, at this listener, with this kind of key (None: whatever is served)."""

    site: str
    listener: str
    name: str
    key_type: KeyType | None = None

    def __str__(self) -> str:
        kind = f" ({self.key_type})" if self.key_type else ""
        return f"{self.name} at {self.listener}{kind}"


@dataclass(frozen=True, slots=True)
class Served:
    """What one fresh handshake showed.

    Args:
        target: what was asked.
        chain: DER certificates in the order sent; empty if the handshake failed.
        failure: why there was none, in words; empty if there was one.
    """

    target: Target
    chain: tuple[bytes, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Workers:
    """nginx's processes at one look.

    Args:
        master: pid of the master that a signal would reach; None when nginx is not running.
        active: (pid, start time) of every worker that accepts connections, those of a master in upgrade too.
        draining: the same for those titled "shutting down".
        upgrading: a binary upgrade is in flight: an old master (`.oldbin`) whose workers accept, or without a new one.
    """

    master: int | None
    active: frozenset[tuple[int, int]] = frozenset()
    draining: frozenset[tuple[int, int]] = frozenset()
    upgrading: bool = False


class Result(StrEnum):
    """How a rotation ended for a site."""

    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    ROTATED = "rotated"
    ROLLED_BACK = "rolled-back"
    STRANDED = "stranded"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended for one site: the one record that feeds log line, metrics, history and exit status.

    Args:
        site: the site's name.
        result: how it ended.
        at: when, UTC.
        reason: a stable kebab-case word (a problem's code, `nginx-down`, `listener`, `not-wired` …); empty if none.
        message: one or two sentences: what happened, which file or address.
        hint: the next step; empty where there is none.
        problems: all problems and warnings of the candidate.
        generation: the generation it was about; empty if none was stored.
        previous: the generation that was live before; empty if none.
        live: the generation that nginx's configuration names now; empty if none.
        proof: `workers` (the full rule), `handshake-only` (the master could not be seen), or empty (nothing proved).
        unproved: targets that had no veto and were not seen to serve it, in words.
        stages: seconds by stage: validate, test, store, apply, prove, rollback.
        nginx_words: what nginx itself said, line by line.
        retry_after: for `deferred`: how long to wait before the next try.
        explanation: for `rejected`: the judgement line by line, for the person who has to mend it.
    """

    site: str
    result: Result
    at: datetime
    reason: str = ""
    message: str = ""
    hint: str = ""
    problems: tuple[Problem, ...] = ()
    generation: str = ""
    previous: str = ""
    live: str = ""
    proof: str = ""
    unproved: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    nginx_words: tuple[str, ...] = ()
    retry_after: timedelta | None = None
    explanation: tuple[str, ...] = ()


def has_reloaded(result: str, reason: str, stages: Mapping[str, float]) -> bool:
    """Whether an outcome has cost nginx a reload: one that was refused, or told to nobody, leaves no old workers."""
    if not stages.get("apply") or reason == "nginx-refused":
        return False
    return result != Result.DEFERRED or reason == "not-wired"
