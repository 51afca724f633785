"""Certificate transparency: a list of logs and the SCTs embedded in a leaf in, what browsers would object to out.

The signatures are those of RFC 6962 section 3.2 over the precertificate. What must be there is what the policies of
Chrome, Apple and Android of 2026 say of embedded SCTs: one from a log that is accepted now; from distinct logs two for
a lifetime of up to 180 days and three above; from two operators at least; one from a log that is read by RFC 6962.
Where they differ the strictest counts. Logs are known from a file in the format that Google and Apple publish
(log_list.json, version 3); its own signature is a matter for whoever fetches it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import certificate_transparency as ct

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.panics import contained

MAX_LIST = 1024 * 1024
"""Bytes that a list of logs may hold; Google's has about 100 KiB, and JSON takes 25 times as much in memory."""

MAX_SCTS = 32
"""SCTs of one certificate whose signatures are checked."""

LONG_LIVED = timedelta(days=180)
"""Above this lifetime three logs are asked for instead of two; its last second counts (RFC 5280 4.1.2.5, Apple)."""

ACCEPTED = frozenset({"qualified", "usable", "readonly"})
"""States of a log whose SCTs count now; those of a retired one count if they are older than its retirement."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASK_CA = "Ask the CA for a certificate with SCTs of logs that browsers accept."


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """One log.

    Args:
        id: SHA-256 of its public key.
        name: for messages.
        operator: who runs it now.
        state: its state in the list, such as `usable` or `retired`.
        since: when it got there, UTC; None if the list does not say.
        key: checks its signatures; None for a kind that logs do not use.
        interval: it takes certificates whose notAfter is not before the first, and before the second; None for all.
        before: earlier operators with the moment until which they ran it, oldest first.
        tiled: whether it is read by tiles (static-ct-api) rather than by RFC 6962.
    """

    id: bytes = field(repr=False)
    name: str
    operator: str
    state: str
    since: datetime | None
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None = field(repr=False)
    interval: tuple[datetime, datetime] | None = None
    before: tuple[tuple[datetime, str], ...] = ()
    tiled: bool = False

    def operator_at(self, moment: datetime) -> str:
        """Who ran it then."""
        return next((operator for end, operator in self.before if moment < end), self.operator)

    def objection(self, moment: datetime, not_after: datetime) -> str:
        """Why an SCT of that moment for a certificate of that end does not count; empty if it does."""
        if self.state == "retired":
            if self.since is None or moment >= self.since:
                return "the log was retired before"
        elif self.state not in ACCEPTED:
            return f"the log is {self.state or 'in no known state'}"
        if self.interval and not self.interval[0] <= not_after < self.interval[1]:
            return "the log does not take certificates that end then"
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Logs:
    """The logs that browsers know.

    Args:
        name: the file that they came from.
        digest: its SHA-256 (hex).
        by_id: the logs by their id.
    """

    name: str
    digest: str
    by_id: Mapping[bytes, Log] = field(repr=False)

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Logs:
        """Read a list of logs.

        Args:
            data: log_list.json, version 3.
            name: what to call it in messages.

        Raises:
            RotatorError: `parse-error` or `too-large`.
        """
        title = shown(name)
        if len(data) > MAX_LIST:
            raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_LIST >> 20} MiB.", exit=Exit.REJECTED)
        try:
            with contained():
                found = {log.id: log for operator in json.loads(data)["operators"] for log in _logs(operator)}
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            UnsupportedAlgorithm,
        ) as error:
            # which of them says nothing to whoever reads it; where the list comes from does
            hint = "Fetch https://www.gstatic.com/ct/log_list/v3/log_list.json again."
            reason = f"{title} is no list of logs in the format log_list.json, version 3."
            raise RotatorError(Code.PARSE_ERROR, reason, hint, Exit.REJECTED) from error
        if not found:
            raise RotatorError(Code.PARSE_ERROR, f"{title} lists no log.", "Name another list.", Exit.REJECTED)
        return cls(title, hashlib.sha256(data).hexdigest(), found)


def _logs(operator: Mapping[str, Any]) -> Sequence[Log]:
    entries = [
        *((one, False) for one in operator.get("logs", ())),
        *((one, True) for one in operator.get("tiled_logs", ())),
    ]
    return [_log(one, str(operator["name"]), tiled=tiled) for one, tiled in entries]


def _log(one: Mapping[str, Any], operator: str, *, tiled: bool) -> Log:
    """Raises what `from_json` translates."""
    spki = base64.b64decode(one["key"], validate=True)
    identifier = base64.b64decode(one["log_id"], validate=True)
    if hashlib.sha256(spki).digest() != identifier:
        raise ValueError("log_id is not the hash of key")
    key = load_der_public_key(spki)
    states: Mapping[str, Mapping[str, Any]] = one.get("state", {})
    if not isinstance(states, Mapping):
        raise TypeError("a state that is none")
    state = next(iter(states), "")
    entered = states[state].get("timestamp") if state else None
    interval = one.get("temporal_interval")
    before = [(_time(past["end_time"]), str(past["name"])) for past in one.get("previous_operators", ())]
    return Log(
        id=identifier,
        name=shown(str(one.get("description") or one.get("url") or identifier.hex()[:16])),
        operator=operator,
        state=shown(state),
        since=_time(entered) if entered else None,
        key=key if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else None,
        interval=(_time(interval["start_inclusive"]), _time(interval["end_exclusive"])) if interval else None,
        before=tuple(sorted(before)),
        tiled=tiled,
    )


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class _Counted:
    """An SCT that counts: its log, and who ran that when it was made."""

    log: Log
    operator: str


def problems_of(leaf: Certificate, issuer: Certificate, logs: Logs, now: datetime) -> tuple[Problem, ...]:
    """What browsers would object to in the SCTs of a leaf.

    Args:
        leaf: the certificate.
        issuer: its issuer, whose key is part of what was signed.
        logs: the known logs.
        now: the reference time, UTC.

    Returns:
        `sct-missing`, `sct-diversity`, `sct-invalid`, `sct-unverified`; what does not count is a refusal only where
        the rest does not do.
    """
    embedded = leaf.ext(x509.PrecertificateSignedCertificateTimestamps)
    wanted = 3 if leaf.not_after - leaf.not_before + timedelta(seconds=1) > LONG_LIVED else 2
    if embedded is None:
        if any(fault.code == Code.SCT_INVALID for fault in leaf.faults):
            return ()  # it cannot be read, which is told for the leaf
        reason = f"has no SCTs; browsers want those of {wanted} logs"
        return (about(leaf, Code.SCT_MISSING, reason, _ASK_CA),)
    if not leaf.strict:
        reason = "has SCTs that could not be checked: a strict library does not read the whole certificate"
        return (about(leaf, Code.SCT_UNVERIFIED, reason, "", Severity.WARN),)
    counted: dict[bytes, _Counted] = {}
    invalid, unverified = [], []
    for sct in list(embedded)[:MAX_SCTS]:
        log, moment = logs.by_id.get(sct.log_id), _moment(sct)
        if log is None:
            unverified.append(f"{sct.log_id.hex()[:16]}…: a log that {logs.name} does not know")
        elif moment is None or not _verified(sct, log, leaf, issuer, moment):
            invalid.append(f"{log.name}: the signature is wrong")
        elif moment > now:
            invalid.append(f"{log.name}: it is of {moment:%Y-%m-%d %H:%M}Z, which is yet to come")
        elif objection := log.objection(moment, leaf.not_after):
            unverified.append(f"{log.name}: {objection}")
        else:
            counted[log.id] = _Counted(log, log.operator_at(moment))
    problems = _lacking(leaf, counted, wanted)
    short = any(p.severity is Severity.REJECT for p in problems)
    if invalid:
        reason = f"has SCTs that are wrong ({'; '.join(invalid)})"
        problems.append(about(leaf, Code.SCT_INVALID, reason, _ASK_CA, Severity.REJECT if short else Severity.WARN))
    if unverified:
        reason = f"has SCTs that do not count ({'; '.join(unverified)})"
        hint = "If the list of logs is old, fetch it again." if short else ""
        problems.append(about(leaf, Code.SCT_UNVERIFIED, reason, hint, Severity.WARN))
    return tuple(problems)


def _lacking(leaf: Certificate, counted: Mapping[bytes, _Counted], wanted: int) -> list[Problem]:
    """Whether there are enough SCTs that count, of enough operators."""
    if len(counted) < wanted or not any(one.log.state in ACCEPTED for one in counted.values()):
        names = ", ".join(one.log.name for one in counted.values())
        count = f"{len(counted)} log{'s' * (len(counted) != 1)}"
        reason = f"has SCTs that count of {count}{f' ({names})' if names else ''}; browsers want {wanted}"
        reason += ", one of them accepted now" if len(counted) >= wanted else ""
        return [about(leaf, Code.SCT_MISSING, reason, _ASK_CA)]
    operators = sorted({one.operator for one in counted.values()})
    if len(operators) < 2:
        reason = f"has SCTs of one operator only ({shown(operators[0])}); browsers want two"
        return [about(leaf, Code.SCT_DIVERSITY, reason, _ASK_CA)]
    if all(one.log.tiled for one in counted.values()):
        reason = "has SCTs of tiled logs only; browsers want one of a log that is read by RFC 6962"
        return [about(leaf, Code.SCT_DIVERSITY, reason, _ASK_CA)]
    return []


def _moment(sct: ct.SignedCertificateTimestamp) -> datetime | None:
    """When it was made, UTC; None for a time that no calendar has."""
    try:
        return sct.timestamp.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _verified(
    sct: ct.SignedCertificateTimestamp, log: Log, leaf: Certificate, issuer: Certificate, moment: datetime
) -> bool:
    """Whether a log's key made an SCT for this leaf (RFC 6962 3.2: `digitally-signed struct`, a precert_entry)."""
    try:
        body = leaf.loaded.tbs_precertificate_bytes
        extensions = sct.extension_bytes
        signed = b"".join(
            (
                bytes((0, 0)),  # version 1, certificate_timestamp
                ((moment - _EPOCH) // timedelta(milliseconds=1)).to_bytes(8, "big"),
                (1).to_bytes(2, "big"),  # precert_entry
                hashlib.sha256(issuer.outline.spki).digest(),
                len(body).to_bytes(3, "big") + body,
                len(extensions).to_bytes(2, "big") + extensions,
            )
        )
        if not isinstance(sct.signature_hash_algorithm, hashes.SHA256):
            return False
        if isinstance(log.key, ec.EllipticCurvePublicKey):
            log.key.verify(sct.signature, signed, ec.ECDSA(hashes.SHA256()))
        elif isinstance(log.key, rsa.RSAPublicKey):
            log.key.verify(sct.signature, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, OverflowError):
        return False
    return True
