"""From a candidate's raw files to certificates and keys, and to which of them belong together; no trust is judged here.

Keys and certificates find each other by the key, never by a file's name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.model import Candidate, KeyType, Secret, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place, shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.keys import MAX_COST, Key, cost_of, read_key
from rotator.x509.parse import read_certificate
from rotator.x509.pem import CERTIFICATE_LABELS, PKCS12, Block, read_blocks
from rotator.x509.pkcs import CONTAINER_LABELS, unpack

MAX_CHAIN = 64
"""Certificates that one file may hold."""

MAX_CERTIFICATES = 128
"""Certificates that all files of a candidate together may hold."""

MAX_READ = 512 * 1024
"""Octets of certificates that are read of all files together: a chain has some 5 KiB, its extensions may cost much."""

MAX_KEYS = 4
"""Private keys that are looked at: those of a dual pair, and two more to say what they are."""

_KINDS = {KeyType.ECDSA: "ECDSA", KeyType.RSA: "RSA", KeyType.ED25519: "Ed25519"}


@dataclass(frozen=True, slots=True, eq=False)
class CandidateContents:
    """What a candidate's files hold.

    Args:
        certificates: each once, in the order found.
        keys: each once, in the order found.
        problems: what is wrong with the files.
        key_seen: whether any file shows a private key, be it one that cannot be read.
        sealed: whether a file that may hold anything could not be opened.
    """

    certificates: tuple[Certificate, ...]
    keys: tuple[Key, ...]
    problems: tuple[Problem, ...]
    key_seen: bool
    sealed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class KeyMatch:
    """A leaf and the key that was proved to be its own; None where none was found or needed."""

    leaf: Certificate
    key: Key | None


def read_candidate(candidate: Candidate) -> CandidateContents:
    """Read all certificates and keys of a candidate, gathering every problem of its files.

    Args:
        candidate: the files as they were read, with the password for encrypted keys.
    """
    reader = _Reader(candidate.password, MAX_READ)
    for source in candidate.files:
        reader.read(source)
    certificates, keys = tuple(reader.certificates.values()), tuple(reader.keys.values())
    return CandidateContents(certificates, keys, tuple(reader.problems), reader.key_seen, reader.sealed)


@dataclass(slots=True)
class _Reader:
    """What has been read of a candidate so far, and what that has cost.

    Args:
        password: for what is encrypted; None if none is known.
        left: octets of certificates that may still be read.
        certificates: as in `CandidateContents`, by their bytes.
        keys: as in `CandidateContents`, by their public half.
        problems: as in `CandidateContents`.
        key_seen: as in `CandidateContents`.
        sealed: as in `CandidateContents`.
        tried: keys that were looked at.
        spent: rounds of a hash that decrypting has taken, of the `MAX_COST` that all files share.
    """

    password: Secret | None
    left: int
    certificates: dict[bytes, Certificate] = field(default_factory=dict)
    keys: dict[bytes, Key] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    key_seen: bool = False
    sealed: bool = False
    tried: int = 0
    spent: int = 0

    def read(self, source: SourceFile) -> None:
        """One file."""
        name = shown(source.name)
        stood, found = read_blocks(source)
        self.problems += found
        self.key_seen = self.key_seen or b"PRIVATE KEY" in source.data
        blocks = [inner for block in stood for inner in self._opened(block)]
        chain = [block for block in blocks if block.label in CERTIFICATE_LABELS]
        self.problems += _read_chain(chain, self.certificates, self.left)
        self.left -= sum(len(block.data) for block in chain)
        held = [block for block in blocks if block.label not in CERTIFICATE_LABELS]
        self._read_keys(held, name)
        together = bool(chain) and not any(block.label == PKCS12 for block in stood)
        self.problems += _key_file(name, source.mode, held, with_chain=together)

    def _opened(self, block: Block) -> list[Block]:
        """A block, or what is in it if it holds others."""
        if block.label not in CONTAINER_LABELS:
            return [block]
        unpacked = unpack(block, self.password, MAX_COST - self.spent)
        self.spent += unpacked.spent
        self.problems += unpacked.problems
        if unpacked.problems:
            self.sealed = self.key_seen = True
        return unpacked.blocks

    def _read_keys(self, held: Sequence[Block], name: str) -> None:
        """The keys of one file, as far as the bounds on all of them reach."""
        self.key_seen = self.key_seen or bool(held)
        left = MAX_KEYS - self.tried
        for block in held[:left]:
            key = read_key(block, self.password, MAX_COST - self.spent)
            self.spent += min(cost_of(block, self.password), MAX_COST - self.spent)
            if isinstance(key, Problem):
                self.problems.append(key)
            else:
                self.keys.setdefault(key.spki, key)
        if len(held) > left:
            reason = f"{name}: the files hold more than {MAX_KEYS} private keys."
            hint = "Leave one key for each certificate."
            self.problems.append(Problem(Code.MULTIPLE_KEYS, Severity.REJECT, reason, hint, name, held[left].line))
        self.tried = min(MAX_KEYS, self.tried + len(held))


def _key_file(name: str, mode: int, held: Sequence[Block], *, with_chain: bool) -> list[Problem]:
    """What is unwise about a file that holds a key."""
    problems: list[Problem] = []
    if held and with_chain:
        reason = f"{name} holds the private key beside certificates; they are stored apart."
        hint = "Keep the key in a file of its own: chain files are readable by everyone."
        problems.append(Problem(Code.KEY_IN_CERT_FILE, Severity.WARN, reason, hint, name, held[0].line))
    if held and mode & 0o007:
        reason = f"{name} holds a private key and is open to every user of the host (mode {mode & 0o777:04o})."
        problems.append(Problem(Code.KEY_PERMISSIONS, Severity.WARN, reason, f"chmod o= {name}", name, held[0].line))
    return problems


def _read_chain(blocks: Sequence[Block], into: dict[bytes, Certificate], left: int) -> list[Problem]:
    """Read the certificates of one file into the ones of all files; `left` is how many octets may still be read."""
    problems: list[Problem] = []
    room = min(MAX_CHAIN, MAX_CERTIFICATES - len(into))
    if len(blocks) > room:
        extra = blocks[room]
        reason = (
            f"{extra.file} holds {len(blocks)} certificates; {MAX_CHAIN} in a file, {MAX_CERTIFICATES} in all are read."
        )
        hint = "Leave the leaf and the intermediates of its chain; a bundle of roots does not belong there."
        problems.append(Problem(Code.CHAIN_TOO_LONG, Severity.REJECT, reason, hint, extra.file, extra.line))
        blocks = blocks[:room]
    here: dict[bytes, int] = {}
    for block in blocks:
        left -= len(block.data)
        if left < 0:
            reason = f"{place(block.file, block.line)}: the files hold more than {MAX_READ >> 10} KiB of certificates; "
            reason += "what stands from here on is not looked at."
            hint = "Leave the leaf and the intermediates of its chain."
            problems.append(Problem(Code.TOO_LARGE, Severity.REJECT, reason, hint, block.file, block.line))
            break
        certificate, found = read_certificate(block.data, block.file, block.line)
        problems += found
        if certificate is None:
            continue
        if certificate.raw in here:
            lines = f" (line {here[certificate.raw]} and {block.line})" if block.line else ""
            reason = f"stands twice in {block.file}{lines}; once is kept"
            problems.append(about(certificate, Code.DUPLICATE_CERT, reason, "", Severity.WARN))
        here.setdefault(certificate.raw, block.line)
        into.setdefault(certificate.raw, certificate)
    return problems


def match_keys(
    contents: CandidateContents, names: Sequence[str], now: datetime, *, need_key: bool = True
) -> tuple[tuple[KeyMatch, ...], tuple[Problem, ...]]:
    """Find the leaves and the key of each, at most one pair of each kind of key.

    Args:
        contents: what the files hold.
        names: the names that are wanted, to choose between leaves by.
        now: the reference time, for the same.
        need_key: whether a leaf without a key is a problem.

    Returns:
        The pairs, and `cert-missing`, `key-missing`, `key-mismatch`, `key-invalid` or `multiple-keys`.
    """
    if not contents.certificates:
        return (), _nothing(contents)
    if _broken(contents) and all(c.is_ca for c in contents.certificates):
        return (), ()  # to judge an authority as if it were the leaf would hide what is wrong
    problems: list[Problem] = []
    leaves = leaf_like(contents.certificates)
    owners: dict[Key, list[Certificate]] = {
        key: [c for c in contents.certificates if key.fits(c)] for key in contents.keys
    }
    best: dict[KeyType | None, KeyMatch] = {}
    for key, owned in owners.items():
        if not owned:
            continue
        found = KeyMatch(max(owned, key=lambda c: _rank(c, names, now, leaves)), key)
        rival = best.get(key.kind)
        if rival is not None:
            reason = "the files hold two pairs of one kind of key; the better one is taken."
            problems.append(
                Problem(Code.MULTIPLE_KEYS, Severity.WARN, reason, "Remove the old pair.", key.file, key.line)
            )
        if rival is None or _rank(found.leaf, names, now, leaves) > _rank(rival.leaf, names, now, leaves):
            best[key.kind] = found
    paired = bool(best)
    for leaf in sorted(leaves, key=lambda c: _rank(c, names, now, leaves), reverse=True):
        if leaf.key_type in best or (paired and not _counterpart(leaf, best.values(), now)):
            continue
        best[leaf.key_type] = KeyMatch(leaf, None)
    problems += _proofs(best.values())
    if need_key or contents.keys:
        orphans = [key for key, owned in owners.items() if not owned]
        problems += _orphans(contents, list(best.values()), orphans, need_key=need_key)
    return tuple(best.values()), tuple(problems)


def _broken(contents: CandidateContents) -> bool:
    """Whether something in the files that may have been the certificate could not be read."""
    return contents.sealed or any(
        p.severity is Severity.REJECT and not p.code.startswith(("key", "multiple")) for p in contents.problems
    )


def _nothing(contents: CandidateContents) -> tuple[Problem, ...]:
    if _broken(contents):
        return ()  # the files say by themselves why there is none
    reason = "None of the files holds a certificate."
    return (Problem(Code.CERT_MISSING, Severity.REJECT, reason, "Add the certificate that the CA issued, as PEM."),)


def leaf_like(certificates: Sequence[Certificate]) -> list[Certificate]:
    """The leaves: no authority, and no other one's issuer by name; without any, what nginx would take for one."""
    issuers = {c.outline.issuer for c in certificates if not c.self_issued}
    found = [
        c for c in certificates if not c.is_ca and (c.outline.subject not in issuers or c.outline.subject == b"0\0")
    ]
    found = found or [c for c in certificates if not c.is_ca]
    return found or [certificates[0]]


def _rank(
    leaf: Certificate, names: Sequence[str], now: datetime, leaves: Sequence[Certificate]
) -> tuple[bool, int, bool, datetime, datetime, str]:
    """What makes one certificate the leaf rather than another of the same key; larger is better."""
    covered = leaf.covered_names
    count = sum(covered.covers(name) for name in names)
    current = leaf.not_before <= now <= leaf.not_after
    return leaf in leaves, count, current, leaf.not_before, leaf.not_after, leaf.fingerprint


def _counterpart(leaf: Certificate, matches: Collection[KeyMatch], now: datetime) -> bool:
    """Whether a leaf without a key looks like the other half of a dual pair, rather than like something left over."""
    return leaf.not_after >= now and any(set(leaf.dns_names) & set(m.leaf.dns_names) for m in matches)


def _proofs(matches: Collection[KeyMatch]) -> list[Problem]:
    problems: list[Problem] = []
    for found in matches:
        if found.key is not None and not found.key.proves(found.leaf):
            reason = (
                f"{place(found.key.file, found.key.line)}: a signature made with this key does not verify with the "
            )
            reason += f"certificate {found.leaf.title}: the private part is damaged."
            hint = "Restore the key from where it was made; without it the certificate has to be issued again."
            problems.append(Problem(Code.KEY_INVALID, Severity.REJECT, reason, hint, found.key.file, found.key.line))
    return problems


def _orphans(
    contents: CandidateContents, matches: Sequence[KeyMatch], orphans: Sequence[Key], *, need_key: bool
) -> list[Problem]:
    """Keys without a leaf, and leaves without a key."""
    problems: list[Problem] = []
    keyless = [m.leaf for m in matches if m.key is None]
    for key in orphans:
        if not keyless or len(contents.keys) > len(matches):
            reason = f"{place(key.file, key.line)}: this {_KINDS[key.kind]} key belongs to none of the certificates."
            hint = "Leave exactly one key for each certificate."
            problems.append(Problem(Code.MULTIPLE_KEYS, Severity.REJECT, reason, hint, key.file, key.line))
        if keyless:
            leaf = keyless[0]
            reason = f"{place(key.file, key.line)}: this {_KINDS[key.kind]} key is not the key of {leaf.title} "
            reason += f"({place(leaf.file, leaf.line)})"
            if leaf.key_type is not key.kind:
                reason += f", whose key is {_KINDS[leaf.key_type] if leaf.key_type else 'of another kind'}"
            reason += "."
            hint = "Find the key that the certificate was ordered with, or order the certificate again for this key."
            problems.append(Problem(Code.KEY_MISMATCH, Severity.REJECT, reason, hint, key.file, key.line))
    # a key that stands there and cannot be read is told as that; a comment that speaks of one is no key
    told = contents.key_seen and any(p.severity is Severity.REJECT for p in contents.problems)
    if need_key and keyless and not orphans and (not told or len(keyless) < len(matches)):
        for leaf in keyless:
            hint = "Add the private key that it was ordered with."
            problems.append(about(leaf, Code.KEY_MISSING, "has no private key in these files", hint))
    return problems
