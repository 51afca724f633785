"""The reader of a candidate: raw files in, certificates and keys out, and each leaf matched with its key.

A key belongs to a certificate if their public keys are equal and a signature proves it; file names do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.hints import command
from rotator.core.model import Candidate, KeyType, Secret, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place, shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.keys import MAX_COST, Key, cost_of, read_key
from rotator.x509.parse import read_certificate
from rotator.x509.pem import CERTIFICATE_LABELS, PKCS12, Block, read_blocks
from rotator.x509.pkcs import CONTAINER_LABELS, unpack

MAX_CHAIN = 64
"""The most certificates of one file."""

MAX_CERTIFICATES = 128
"""The most certificates of all files of a candidate together."""

MAX_READ = 512 * 1024
"""The most octets of certificates in all files: a chain has some 5 KiB, and extensions may be expensive to read."""

MAX_KEYS = 4
"""The most private keys that are read: those of a dual pair, and two more so that messages can describe them."""

Rank = tuple[bool, int, bool, datetime, datetime, str]
"""The sort key of certificates for the same key: see `_rank`."""

_KEY_TITLES = {KeyType.ECDSA: "ECDSA", KeyType.RSA: "RSA", KeyType.ED25519: "Ed25519"}


@dataclass(frozen=True, slots=True, eq=False)
class CandidateContents:
    """The certificates and keys of a candidate's files.

    Args:
        certificates: the certificates in the order of the files, without duplicates.
        keys: the private keys in the order of the files, without duplicates.
        problems: the problems of the files.
        key_seen: whether any file contains a private key, readable or not.
        sealed: whether a container could not be decrypted, so that its content is unknown.
    """

    certificates: tuple[Certificate, ...]
    keys: tuple[Key, ...]
    problems: tuple[Problem, ...]
    key_seen: bool
    sealed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class KeyMatch:
    """A leaf and its private key.

    Args:
        leaf: the leaf.
        key: the key with the leaf's public half; None if there is none.
    """

    leaf: Certificate
    key: Key | None


def read_candidate(candidate: Candidate) -> CandidateContents:
    """Reads all certificates and keys of a candidate, with all problems of its files.

    Args:
        candidate: the files, with the password for encrypted keys.
    """
    reader = _Reader(candidate.password, MAX_READ)
    for source in candidate.files:
        reader.read(source)
    certificates, keys = tuple(reader.certificates.values()), tuple(reader.keys.values())
    return CandidateContents(certificates, keys, tuple(reader.problems), reader.key_seen, reader.sealed)


@dataclass(slots=True)
class _Reader:
    """The state of reading a candidate: the result so far, and the remaining limits.

    Args:
        password: decrypts keys and containers; None if there is no password.
        left: the octets of certificates that may still be read.
        certificates: as in `CandidateContents`, by their DER.
        keys: as in `CandidateContents`, by their public half.
        problems: as in `CandidateContents`.
        key_seen: as in `CandidateContents`.
        sealed: as in `CandidateContents`.
        tried: the number of keys that were read or refused.
        spent: the rounds of a hash that decrypting has cost, of the `MAX_COST` that all files share.
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
        """Reads one file."""
        name = shown(source.name)
        outer_blocks, problems = read_blocks(source)
        self.problems += problems
        self.key_seen = self.key_seen or b"PRIVATE KEY" in source.data
        blocks = [inner for block in outer_blocks for inner in self._unpacked(block)]
        chain = [block for block in blocks if block.label in CERTIFICATE_LABELS]
        self.problems += _read_chain(chain, self.certificates, self.left)
        self.left -= sum(len(block.data) for block in chain)
        key_blocks = [block for block in blocks if block.label not in CERTIFICATE_LABELS]
        self._read_keys(key_blocks, name)
        with_chain = bool(chain) and not any(block.label == PKCS12 for block in outer_blocks)
        self.problems += _key_file_warnings(name, source.mode, key_blocks, with_chain=with_chain)

    def _unpacked(self, block: Block) -> list[Block]:
        """The block itself, or the blocks inside a container."""
        if block.label not in CONTAINER_LABELS:
            return [block]
        contents = unpack(block, self.password, MAX_COST - self.spent)
        self.spent += contents.spent
        self.problems += contents.problems
        if contents.problems:
            self.sealed = self.key_seen = True
        return contents.blocks

    def _read_keys(self, key_blocks: Sequence[Block], name: str) -> None:
        """Reads the keys of one file, within the limits that all files share."""
        self.key_seen = self.key_seen or bool(key_blocks)
        left = MAX_KEYS - self.tried
        for block in key_blocks[:left]:
            key = read_key(block, self.password, MAX_COST - self.spent)
            self.spent += min(cost_of(block, self.password), MAX_COST - self.spent)
            if isinstance(key, Problem):
                self.problems.append(key)
            else:
                self.keys.setdefault(key.spki, key)
        if len(key_blocks) > left:
            message = f"{name}: the files hold more than {MAX_KEYS} private keys."
            hint = "Keep only one key for each certificate."
            line = key_blocks[left].line
            self.problems.append(Problem(Code.MULTIPLE_KEYS, Severity.REJECT, message, hint, name, line))
        self.tried = min(MAX_KEYS, self.tried + len(key_blocks))


def _key_file_warnings(name: str, mode: int, key_blocks: Sequence[Block], *, with_chain: bool) -> list[Problem]:
    """The warnings of a file that contains a key."""
    problems: list[Problem] = []
    if key_blocks and with_chain:
        message = f"{name} holds the private key beside certificates; they are stored separately."
        hint = "Keep the key in a file of its own: chain files are readable by everyone."
        problems.append(Problem(Code.KEY_IN_CERT_FILE, Severity.WARN, message, hint, name, key_blocks[0].line))
    if key_blocks and mode & 0o007:
        message = f"{name} holds a private key and is accessible to every user of the host (mode {mode & 0o777:04o})."
        hint = command("chmod o=", name)
        problems.append(Problem(Code.KEY_PERMISSIONS, Severity.WARN, message, hint, name, key_blocks[0].line))
    return problems


def _read_chain(blocks: Sequence[Block], into: dict[bytes, Certificate], left: int) -> list[Problem]:
    """Reads the certificates of one file.

    Args:
        blocks: the certificates of the file.
        into: the certificates of all files, to which these are added.
        left: the octets of certificates that may still be read.
    """
    problems: list[Problem] = []
    room = min(MAX_CHAIN, MAX_CERTIFICATES - len(into))
    if len(blocks) > room:
        extra = blocks[room]
        message = f"{extra.file} holds {len(blocks)} certificates; rotator reads {MAX_CHAIN} of one file and "
        message += f"{MAX_CERTIFICATES} of all."
        hint = "Keep only the leaf and the intermediates of its chain; a bundle of roots does not belong in this file."
        problems.append(Problem(Code.CHAIN_TOO_LONG, Severity.REJECT, message, hint, extra.file, extra.line))
        blocks = blocks[:room]
    lines_in_file: dict[bytes, int] = {}
    for block in blocks:
        left -= len(block.data)
        if left < 0:
            message = (
                f"{place(block.file, block.line)}: the files hold more than {MAX_READ >> 10} KiB of certificates; "
            )
            message += "the rest is ignored."
            hint = "Keep only the leaf and the intermediates of its chain."
            problems.append(Problem(Code.TOO_LARGE, Severity.REJECT, message, hint, block.file, block.line))
            break
        certificate, read_problems = read_certificate(block.data, block.file, block.line)
        problems += read_problems
        if certificate is None:
            continue
        if certificate.raw in lines_in_file:
            lines = f" (line {lines_in_file[certificate.raw]} and {block.line})" if block.line else ""
            reason = f"occurs twice in {block.file}{lines}; one copy is kept"
            problems.append(about(certificate, Code.DUPLICATE_CERT, reason, "", Severity.WARN))
        lines_in_file.setdefault(certificate.raw, block.line)
        into.setdefault(certificate.raw, certificate)
    return problems


def match_keys(
    contents: CandidateContents, names: Sequence[str], now: datetime, *, need_key: bool = True
) -> tuple[tuple[KeyMatch, ...], tuple[Problem, ...]]:
    """Finds the leaves and the key of each, at most one pair of each key type.

    Args:
        contents: the certificates and keys of the files.
        names: the required names; they decide between several leaves.
        now: the reference time; it decides between several leaves.
        need_key: whether a leaf without a key is a problem.

    Returns:
        The pairs, and the problems: `cert-missing`, `key-missing`, `key-mismatch`, `key-invalid` or `multiple-keys`.
    """
    if not contents.certificates:
        return (), _no_certificate(contents)
    if _unreadable(contents) and all(c.is_ca for c in contents.certificates):
        return (), ()  # validating a CA certificate as the leaf would hide the real problem
    leaves = leaf_like(contents.certificates)

    def rank(certificate: Certificate) -> Rank:
        return _rank(certificate, names, now, leaves)

    owners = {key: [c for c in contents.certificates if key.fits(c)] for key in contents.keys}
    best, problems = _best_pairs(owners, rank)
    paired = bool(best)
    for leaf in sorted(leaves, key=rank, reverse=True):
        if leaf.key_type in best or (paired and not _counterpart(leaf, best.values(), now)):
            continue
        best[leaf.key_type] = KeyMatch(leaf, None)
    matches = list(best.values())
    problems += _failed_proofs(matches)
    if need_key or contents.keys:
        ownerless = [key for key, owned in owners.items() if not owned]
        problems += _ownerless_keys(contents, matches, ownerless)
        if need_key and not ownerless:
            problems += _missing_keys(contents, matches)
    return tuple(matches), tuple(problems)


def _best_pairs(
    owners: Mapping[Key, Sequence[Certificate]],
    rank: Callable[[Certificate], Rank],
) -> tuple[dict[KeyType | None, KeyMatch], list[Problem]]:
    """The best pair of each key type, with a warning if there is a second one.

    Args:
        owners: for each key, the certificates with its public half.
        rank: the sort key of certificates; the largest is the best.
    """
    best: dict[KeyType | None, KeyMatch] = {}
    problems: list[Problem] = []
    for key, owned in owners.items():
        if not owned:
            continue
        match = KeyMatch(max(owned, key=rank), key)
        rival = best.get(key.key_type)
        if rival is not None:
            message = "The files hold two pairs of one key type; the better one is taken."
            problems.append(
                Problem(Code.MULTIPLE_KEYS, Severity.WARN, message, "Remove the old pair.", key.file, key.line)
            )
        if rival is None or rank(match.leaf) > rank(rival.leaf):
            best[key.key_type] = match
    return best, problems


def _unreadable(contents: CandidateContents) -> bool:
    """Whether a part of the files is unreadable that may contain the certificate."""
    return contents.sealed or any(
        p.severity is Severity.REJECT and not p.code.startswith(("key", "multiple")) for p in contents.problems
    )


def _no_certificate(contents: CandidateContents) -> tuple[Problem, ...]:
    if _unreadable(contents):
        return ()  # the problems of the files already explain it
    message = "None of the files holds a certificate."
    return (Problem(Code.CERT_MISSING, Severity.REJECT, message, "Add the certificate that the CA issued, as PEM."),)


def leaf_like(certificates: Sequence[Certificate]) -> list[Certificate]:
    """The leaves among certificates: no CA, and not named as the issuer of another one.

    Without any, the certificates that are no CA; without these, the first one, which nginx would take for the leaf.
    """
    issuers = {c.outline.issuer for c in certificates if not c.self_issued}
    no_ca = [c for c in certificates if not c.is_ca]
    leaves = [c for c in no_ca if c.outline.subject not in issuers or c.outline.subject == b"0\0"]
    return leaves or no_ca or [certificates[0]]


def _rank(leaf: Certificate, names: Sequence[str], now: datetime, leaves: Sequence[Certificate]) -> Rank:
    """The sort key of certificates for the same key; the largest one is the leaf."""
    covered = leaf.covered_names
    count = sum(covered.covers(name) for name in names)
    current = leaf.not_before <= now <= leaf.not_after
    return leaf in leaves, count, current, leaf.not_before, leaf.not_after, leaf.fingerprint


def _counterpart(leaf: Certificate, matches: Collection[KeyMatch], now: datetime) -> bool:
    """Whether a leaf without a key looks like the other half of a dual pair: it is valid and shares a name."""
    return leaf.not_after >= now and any(set(leaf.dns_names) & set(m.leaf.dns_names) for m in matches)


def _failed_proofs(matches: Collection[KeyMatch]) -> list[Problem]:
    """The refusal of each key whose signature does not verify with its certificate."""
    problems: list[Problem] = []
    for match in matches:
        key = match.key
        if key is not None and not key.proves(match.leaf):
            message = f"{place(key.file, key.line)}: a signature made with this key does not verify with the "
            message += f"certificate {match.leaf.title}: the private part is damaged."
            hint = "Restore the key from its origin, or have the certificate issued again for a new key."
            problems.append(Problem(Code.KEY_INVALID, Severity.REJECT, message, hint, key.file, key.line))
    return problems


def _ownerless_keys(
    contents: CandidateContents, matches: Sequence[KeyMatch], ownerless: Sequence[Key]
) -> list[Problem]:
    """The refusal of each key that belongs to no certificate."""
    problems: list[Problem] = []
    leaf = next((m.leaf for m in matches if m.key is None), None)
    for key in ownerless:
        title = f"{place(key.file, key.line)}: this {_KEY_TITLES[key.key_type]} key"
        if leaf is None or len(contents.keys) > len(matches):
            message = f"{title} belongs to none of the certificates."
            hint = "Keep exactly one key for each certificate."
            problems.append(Problem(Code.MULTIPLE_KEYS, Severity.REJECT, message, hint, key.file, key.line))
        if leaf is not None:
            message = f"{title} is not the key of {leaf.title} ({place(leaf.file, leaf.line)})"
            if leaf.key_type is not key.key_type:
                message += f", whose key is {_KEY_TITLES[leaf.key_type] if leaf.key_type else 'of another type'}"
            message += "."
            hint = "Find the key that the certificate was ordered with, or order the certificate again for this key."
            problems.append(Problem(Code.KEY_MISMATCH, Severity.REJECT, message, hint, key.file, key.line))
    return problems


def _missing_keys(contents: CandidateContents, matches: Sequence[KeyMatch]) -> list[Problem]:
    """The refusal of each leaf without a key, unless a problem of the files already explains it."""
    keyless = [m.leaf for m in matches if m.key is None]
    # an unreadable key is reported as such, not as missing; a comment that mentions a key is no key
    explained = contents.key_seen and any(p.severity is Severity.REJECT for p in contents.problems)
    if explained and len(keyless) == len(matches):
        return []
    hint = "Add the private key that it was ordered with."
    return [about(leaf, Code.KEY_MISSING, "has no private key in these files", hint) for leaf in keyless]
