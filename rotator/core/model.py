"""The terms of the design as frozen values: candidate, pair, policy, site, generation, probe, outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from rotator.core.problems import Code, Problem
from rotator.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Secret:
    """The bytes of a private key or a password; `repr`, `str` and format strings hide them."""

    _value: bytes = field(repr=False)

    def reveal(self) -> bytes:
        """The bytes, for writing the key's file or for the library that signs or decrypts with them."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


class KeyType(StrEnum):
    """The types of key that a site may have side by side."""

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"


MAX_FILE = 256 * 1024
"""Bytes that one file with certificates or a key may hold."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file, read once: untrusted bytes.

    Args:
        name: the name for messages (the path as it was given, or the name in the drop).
        data: the content; it does not show in `repr`, as it may be a key.
        mode: the permission bits at the time of reading, e.g. 0o640.
        owner: the uid of the owner at the time of reading; -1 if unknown.
    """

    name: str
    data: bytes = field(repr=False)
    mode: int = 0o600
    owner: int = -1


@dataclass(frozen=True, slots=True)
class Candidate:
    """The raw, untrusted files of one drop or one command line.

    Args:
        files: the files in the given order.
        password: decrypts the encrypted keys among them; None if there is no password.
        notes: problems of the password's file.
    """

    files: tuple[SourceFile, ...]
    password: Secret | None = field(default=None, repr=False)
    notes: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents: an unchanged drop that is read again has the same digest.

        The password is left out, as the digest is stored in files that other users may read.
        """
        sha256 = hashlib.sha256()
        for source in sorted(self.files, key=lambda f: f.name):
            for part in (source.name.encode("utf-8", "surrogateescape"), source.data):
                sha256.update(len(part).to_bytes(8, "big"))
                sha256.update(part)
        return sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and the private key that was proved to belong to its leaf.

    Args:
        key_type: the type of the leaf's key.
        chain: DER certificates as nginx sends them: leaf first, each signed by the next, no root, no duplicate.
        key: the private key as unencrypted PKCS#8 PEM; None only in `rotator check` without a key.
        subject: the leaf's subject, for messages; may be empty (short-lived certificates have no common name).
        issuer: the leaf's issuer, for messages.
        serial: the leaf's serial number, lower-case hex.
        names: the leaf's DNS and IP subject alternative names, exactly as in the certificate.
        not_before: the leaf's notBefore, UTC.
        not_after: the leaf's notAfter, UTC.
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


def chains_digest(chains: Mapping[KeyType, tuple[bytes, ...]]) -> str:
    """SHA-256 (hex) over a site's chains.

    The whole chain counts: a renewed intermediate under the same leaf is a change. The private key is left out: the
    leaf contains its public half, so no part of a file name is derived from a private key.

    Args:
        chains: DER, leaf first, by kind of key.
    """
    sha256 = hashlib.sha256()
    for key_type in sorted(chains):
        sha256.update(key_type.encode())
        for der in chains[key_type]:
            sha256.update(len(der).to_bytes(8, "big"))
            sha256.update(der)
    return sha256.hexdigest()


def pairs_digest(pairs: tuple[Pair, ...]) -> str:
    """`chains_digest` of the chains of a site's pairs."""
    return chains_digest({pair.key_type: pair.chain for pair in pairs})


@dataclass(frozen=True, slots=True)
class Policy:
    """The demands on a site's pairs.

    Args:
        profile: the preset that it was made from, `public` or `private-ca`; the roots come separately.
        names: every name that must be covered, as configured (IDN allowed; a wildcard is probed by a concrete name).
        key_types: the accepted types of leaf key.
        min_rsa_bits: the smallest accepted RSA modulus, in bits (CA/B BR 6.1.5: 2048).
        max_rsa_bits: the largest accepted RSA modulus, in bits.
        lifetime_caps: whether the CA/B Forum's caps on lifetime by date of issue apply (BR 6.3.2).
        allow_key_reuse: whether a renewal with the live key is accepted with a warning; it is refused otherwise.
        allow_san_loss: whether a renewal may drop a name that the live leaf covers and the configuration does not list.
        forbid_downgrade: whether a pair that both begins and expires earlier than the live one is refused.
        max_lifetime: the longest accepted lifetime in days, in addition to the caps; 0 for no other limit.
        min_life_left: the smallest accepted share of a renewal's lifetime that is left, in percent; with 0, a
            certificate close to its expiry only warns.
        require_crls: whether a certificate that no revocation list answers for is refused; it only warns otherwise.
        stapling: whether nginx is known to staple an OCSP answer in every handshake, so that must-staple (RFC 7633) is
            accepted.
        allow_local_roots: whether a chain to a root that was added on this host alone is accepted under the public
            profile with a warning; it is refused otherwise.
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
    allow_local_roots: bool = True

    @property
    def binds_public(self) -> bool:
        """Whether the rules that bind public CAs only apply."""
        return self.profile != "private-ca"


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "public": {"key_types": frozenset({KeyType.ECDSA, KeyType.RSA}), "lifetime_caps": True},
    "private-ca": {"key_types": frozenset(KeyType), "lifetime_caps": False},
}
"""The demands of each profile of a `Policy`: no public CA issues Ed25519 leaves, and the caps bind public CAs only."""


@dataclass(frozen=True, slots=True)
class Site:
    """One certificate of the configuration.

    Args:
        name: a name of a strict grammar (see `config`), as it becomes a directory and a file name.
        names: the host names that must be covered; each is proved on each listener.
        listeners: the addresses that serve it: `host:port`, `[v6]:port` or `unix:/path`.
        policy: the demands on its pairs.
        keep: the number of generations that stay in the store.
        probe_names: for each of `names`, in their order, the name to send in a handshake: the name itself, or for a
            wildcard a concrete name that it covers. Empty means the names themselves.
    """

    name: str
    names: tuple[str, ...]
    listeners: tuple[str, ...]
    policy: Policy
    keep: int = 5
    probe_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairRecord:
    """The facts about one stored pair that are known without its files, as `meta.json` holds them.

    Args:
        key_type: the kind of the leaf's key.
        fingerprint: SHA-256 of the leaf, lower-case hex.
        serial: the leaf's serial number, lower-case hex.
        subject: the leaf's subject; may be empty.
        issuer: the leaf's issuer.
        names: the leaf's subject alternative names.
        not_before: the leaf's, UTC.
        not_after: the leaf's, UTC.
        effective_not_after: the earliest notAfter on the served path, UTC.
        unknown: keys of a newer version, kept as they are.
    """

    key_type: KeyType
    fingerprint: str
    serial: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    effective_not_after: datetime
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, pair: Pair) -> PairRecord:
        """The record of a pair."""
        return cls(
            pair.key_type,
            pair.fingerprint,
            pair.serial,
            pair.subject,
            pair.issuer,
            pair.names,
            pair.not_before,
            pair.not_after,
            pair.effective_not_after,
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a generation came into the store.

    Args:
        origin: the names of the files that it was made from.
        who: the user, or `rotatord`.
        when: when it was stored, UTC; None where that is not recorded.
    """

    origin: tuple[str, ...] = ()
    who: str = ""
    when: datetime | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """The content of a generation's `meta.json`.

    Args:
        pairs: one for each kind of key.
        digest: `pairs_digest` of the chains.
        provenance: how it came into the store.
        schema_version: of the file.
        unknown: keys of a newer version, kept as they are.
    """

    pairs: tuple[PairRecord, ...] = ()
    digest: str = ""
    provenance: Provenance = Provenance()
    schema_version: int = 0
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Generation:
    """An immutable, stored pair directory, without its keys.

    Args:
        site: the site's name.
        name: `<seq>-<digest12>`.
        chains: the DER chain of each pair, leaf first.
        record: the content of `meta.json`.
    """

    site: str
    name: str
    chains: Mapping[KeyType, tuple[bytes, ...]]
    record: GenerationRecord = field(default=GenerationRecord(), repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One probe to make: a name, at a listener, with a type of key (None: the server chooses)."""

    site: str
    listener: str
    name: str
    key_type: KeyType | None = None

    def __str__(self) -> str:
        kind = f" ({self.key_type})" if self.key_type else ""
        return f"{self.name} at {self.listener}{kind}"


@dataclass(frozen=True, slots=True)
class Served:
    """The result of one fresh handshake.

    Args:
        target: the listener, name and key type that were asked for.
        chain: DER certificates in the order sent; empty if the handshake failed.
        failure: the reason for which there is no chain; empty if there is one.
    """

    target: Target
    chain: tuple[bytes, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Workers:
    """nginx's processes at one moment.

    Args:
        master: the pid of the master that a signal would reach; None if nginx is not running.
        active: (pid, start time) of every worker that accepts connections, including those of a master in upgrade.
        draining: (pid, start time) of every worker with the title "shutting down".
        upgrading: whether a binary upgrade is in flight: an old master (`.oldbin`) exists, and either its workers
            accept connections or there is no new master.
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
    """The end of a rotation for one site: the one record behind log line, metrics, history and exit status.

    Args:
        site: the site's name.
        result: how it ended.
        at: when, UTC.
        reason: why, as a word: a problem's code, or the state of something else.
        message: one or two sentences: what happened, which file or address.
        hint: the next step; empty where there is none.
        problems: all problems and warnings of the candidate.
        generation: the generation it was about; empty if none was stored.
        previous: the generation that was live before; empty if none.
        live: the generation that nginx's configuration names now; empty if none.
        proof: `workers` (the full proof), `handshake-only` (the master could not be seen), or empty (nothing proved).
        unproved: targets that had no veto and were not seen to serve it, in words.
        stages: seconds by stage: validate, test, store, apply, prove, rollback.
        nginx_words: the messages of nginx itself.
        explanation: for `rejected`: the verdict line by line, for the person who corrects the files.
    """

    site: str
    result: Result
    at: datetime
    reason: Reason | Code
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
    explanation: tuple[str, ...] = ()


def has_reloaded(result: str, reason: str, stages: Mapping[str, float]) -> bool:
    """Whether an outcome has cost nginx a reload: one that was refused, or reached no master, leaves no old workers."""
    if not stages.get("apply") or reason == Code.NGINX_REFUSED:
        return False
    return result != Result.DEFERRED or reason == Reason.NOT_WIRED
