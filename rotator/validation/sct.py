"""The rules of Certificate Transparency for a leaf with embedded SCTs (RFC 6962), as browsers apply them.

The signatures cover the precertificate (RFC 6962 section 3.2). The demands are those of the 2026 policies of Chrome,
Apple and Android on embedded SCTs; if they differ, the strictest counts: one SCT from a log that is accepted now; SCTs
from two distinct logs for a lifetime of up to 180 days, from three above; from at least two operators; one from a log
with the RFC 6962 interface. The logs come from a file in the format of Google and Apple (log_list.json, version 3); the
job that fetches the file checks the file's own signature.
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
"""The most bytes of a list of logs; Google's has about 100 KiB, and JSON takes 25 times as much in memory."""

MAX_SCTS = 32
"""The most SCTs of one certificate whose signatures are checked."""

LONG_LIVED = timedelta(days=180)
"""The lifetime above which three logs are demanded; the last second counts (RFC 5280 4.1.2.5, Apple)."""

ACCEPTED = frozenset({"qualified", "usable", "readonly"})
"""The states of a log whose SCTs count now; those of a retired log count if they are older than its retirement."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASK_CA = "Ask the CA for a certificate with SCTs of logs that browsers accept."


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """One log.

    Args:
        id: the SHA-256 of its public key.
        name: its name in messages.
        operator: its present operator.
        state: its state in the list, such as `usable` or `retired`.
        in_state_since: the start of that state, UTC; None if the list does not say.
        key: verifies its signatures; None for a key type that logs do not use.
        interval: it takes certificates with notAfter at or after the first and before the second time; None for all.
        previous_operators: the previous operators, each with the end of its time, oldest first.
        tiled: whether it has the tiled interface (static-ct-api) and not that of RFC 6962.
    """

    id: bytes = field(repr=False)
    name: str
    operator: str
    state: str
    in_state_since: datetime | None
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None = field(repr=False)
    interval: tuple[datetime, datetime] | None = None
    previous_operators: tuple[tuple[datetime, str], ...] = ()
    tiled: bool = False

    def operator_at(self, moment: datetime) -> str:
        """Its operator at that time."""
        return next((operator for end, operator in self.previous_operators if moment < end), self.operator)

    def objection(self, moment: datetime, not_after: datetime) -> str:
        """The reason for which an SCT does not count, as a clause; empty if it counts.

        Args:
            moment: the time of the SCT.
            not_after: the notAfter of the certificate.
        """
        if self.state == "retired":
            if self.in_state_since is None or moment >= self.in_state_since:
                return "the log was retired earlier"
        elif self.state not in ACCEPTED:
            return f"the log is {self.state or 'in an unknown state'}"
        if self.interval and not self.interval[0] <= not_after < self.interval[1]:
            return "the log does not take certificates with this notAfter"
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Logs:
    """The logs that browsers know.

    Args:
        name: the file of the list.
        digest: the SHA-256 (hex) of the file.
        by_id: the logs by their identifier.
    """

    name: str
    digest: str
    by_id: Mapping[bytes, Log] = field(repr=False)

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Logs:
        """Reads a list of logs.

        Args:
            data: the content of log_list.json, version 3.
            name: its name for messages.

        Raises:
            RotatorError: `parse-error` or `too-large`.
        """
        title = shown(name)
        if len(data) > MAX_LIST:
            raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_LIST >> 20} MiB.", exit=Exit.REJECTED)
        try:
            with contained():
                by_id = {log.id: log for operator in json.loads(data)["operators"] for log in _logs(operator)}
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            UnsupportedAlgorithm,
        ) as error:
            # the exact error does not help the reader of the message; the source of the list does
            hint = "Fetch https://www.gstatic.com/ct/log_list/v3/log_list.json again."
            message = f"{title} is no list of logs in the format log_list.json, version 3."
            raise RotatorError(Code.PARSE_ERROR, message, hint, Exit.REJECTED) from error
        if not by_id:
            raise RotatorError(Code.PARSE_ERROR, f"{title} lists no log.", "Name another list.", Exit.REJECTED)
        return cls(title, hashlib.sha256(data).hexdigest(), by_id)


def _logs(operator: Mapping[str, Any]) -> Sequence[Log]:
    entries = [
        *((entry, False) for entry in operator.get("logs", ())),
        *((entry, True) for entry in operator.get("tiled_logs", ())),
    ]
    return [_log(entry, str(operator["name"]), tiled=tiled) for entry, tiled in entries]


def _log(entry: Mapping[str, Any], operator: str, *, tiled: bool) -> Log:
    """One log from its JSON object; the exceptions of a wrong format are translated by `Logs.from_json`."""
    spki = base64.b64decode(entry["key"], validate=True)
    identifier = base64.b64decode(entry["log_id"], validate=True)
    if hashlib.sha256(spki).digest() != identifier:
        raise ValueError("log_id is not the hash of key")
    key = load_der_public_key(spki)
    states: Mapping[str, Mapping[str, Any]] = entry.get("state", {})
    if not isinstance(states, Mapping):
        raise TypeError("state is no object")
    state = next(iter(states), "")
    entered = states[state].get("timestamp") if state else None
    interval = entry.get("temporal_interval")
    previous_operators = [(_time(past["end_time"]), str(past["name"])) for past in entry.get("previous_operators", ())]
    return Log(
        id=identifier,
        name=shown(str(entry.get("description") or entry.get("url") or identifier.hex()[:16])),
        operator=operator,
        state=shown(state),
        in_state_since=_time(entered) if entered else None,
        key=key if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else None,
        interval=(_time(interval["start_inclusive"]), _time(interval["end_exclusive"])) if interval else None,
        previous_operators=tuple(sorted(previous_operators)),
        tiled=tiled,
    )


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class _CountedSct:
    """An SCT that counts: its log, and the log's operator at the time of the SCT."""

    log: Log
    operator: str


def problems_of(leaf: Certificate, issuer: Certificate, logs: Logs, now: datetime) -> tuple[Problem, ...]:
    """The problems that browsers have with the SCTs of a leaf.

    Args:
        leaf: the certificate.
        issuer: its issuer, whose key is part of the signed data.
        logs: the known logs.
        now: the reference time, UTC.

    Returns:
        `sct-missing`, `sct-diversity`, `sct-invalid`, `sct-unverified`. An SCT that does not count refuses only if the
        others are not enough.
    """
    embedded = leaf.ext(x509.PrecertificateSignedCertificateTimestamps)
    wanted = 3 if leaf.not_after - leaf.not_before + timedelta(seconds=1) > LONG_LIVED else 2
    if embedded is None:
        if any(fault.code == Code.SCT_INVALID for fault in leaf.faults):
            return ()  # the extension is unreadable, and `leaf_rules` reports that
        reason = f"has no SCTs; browsers demand those of {wanted} logs"
        return (about(leaf, Code.SCT_MISSING, reason, _ASK_CA),)
    if not leaf.strict:
        reason = "has SCTs that could not be checked: a strict library does not read the whole certificate"
        return (about(leaf, Code.SCT_UNVERIFIED, reason, "", Severity.WARN),)
    counted: dict[bytes, _CountedSct] = {}
    invalid, unverified = [], []
    for sct in list(embedded)[:MAX_SCTS]:
        log, moment = logs.by_id.get(sct.log_id), _moment(sct)
        if log is None:
            unverified.append(f"{sct.log_id.hex()[:16]}…: a log that is not in {logs.name}")
        elif moment is None or not _verified(sct, log, leaf, issuer, moment):
            invalid.append(f"{log.name}: the signature is wrong")
        elif moment > now:
            invalid.append(f"{log.name}: its time, {moment:%Y-%m-%d %H:%M}Z, is in the future")
        elif objection := log.objection(moment, leaf.not_after):
            unverified.append(f"{log.name}: {objection}")
        else:
            counted[log.id] = _CountedSct(log, log.operator_at(moment))
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


def _lacking(leaf: Certificate, counted: Mapping[bytes, _CountedSct], wanted: int) -> list[Problem]:
    """The refusal if too few SCTs count, or from too few operators."""
    if len(counted) < wanted or not any(sct.log.state in ACCEPTED for sct in counted.values()):
        names = ", ".join(sct.log.name for sct in counted.values())
        count = f"{len(counted)} log{'s' * (len(counted) != 1)}"
        reason = f"has SCTs that count of {count}{f' ({names})' if names else ''}; browsers demand {wanted}"
        reason += ", one of them accepted now" if len(counted) >= wanted else ""
        return [about(leaf, Code.SCT_MISSING, reason, _ASK_CA)]
    operators = sorted({sct.operator for sct in counted.values()})
    if len(operators) < 2:
        reason = f"has SCTs of one operator only ({shown(operators[0])}); browsers demand two"
        return [about(leaf, Code.SCT_DIVERSITY, reason, _ASK_CA)]
    if all(sct.log.tiled for sct in counted.values()):
        reason = "has SCTs of tiled logs only; browsers demand one of a log with the interface of RFC 6962"
        return [about(leaf, Code.SCT_DIVERSITY, reason, _ASK_CA)]
    return []


def earliest_sct(leaf: Certificate) -> datetime | None:
    """The earliest time of all embedded SCTs, UTC, whether or not they count; None without any."""
    embedded = leaf.ext(x509.PrecertificateSignedCertificateTimestamps)
    moments = (_moment(sct) for sct in list(embedded or ())[:MAX_SCTS])
    return min((moment for moment in moments if moment is not None), default=None)


def _moment(sct: ct.SignedCertificateTimestamp) -> datetime | None:
    """The time of an SCT, UTC; None for a time beyond the calendar."""
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
