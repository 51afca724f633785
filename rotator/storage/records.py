"""The records of the store as types, each with one reader and one writer: bytes in, record out, and back.

The rules that every record keeps, so that versions of rotator can follow each other on one disk in either direction:

1. A file holds one JSON object with a `schema_version`; one without it is of version 0, as rotator 0.1 wrote it. A key
   is added, never removed, and never changes its type or its meaning. The version rises with each such change.
2. A key that this version does not know is kept: a record that is read and written again still has it.
3. A record of a newer version is used as far as it is understood, and `Intent.caveat` reports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from rotator.core.model import GenerationRecord, KeyType, PairRecord, Provenance
from rotator.core.text import escaped
from rotator.core.times import rfc3339_millis
from rotator.storage import fields
from rotator.storage.fields import Keys

GENERATION_VERSION = 1
INTENT_VERSION = 1

ANYTHING = "*"
"""The digest of a hold on every content of the drop."""
NOT_UNDERSTOOD = "a decision that this version of rotator does not understand"
"""The holder of a drop whose recorded decision cannot be read."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The decision of an operator that the content of the drop is not installed until it changes.

    Args:
        by: the user who made it.
        since: when, RFC 3339; empty where that is not known.
        digest: the candidate that it is about; empty for a drop that could not be read; `ANYTHING` for every content.
        unknown: keys of a newer version, kept as they are.
    """

    by: str
    since: str
    digest: str = ""
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    def covers(self, digest: str, *, readable: bool) -> bool:
        """Whether it is about this content of the drop.

        Args:
            digest: the candidate's.
            readable: whether the drop could be read; a hold on an unreadable drop lasts until it can be read.
        """
        return self.digest in (digest, ANYTHING) or (not self.digest and not readable)

    def __str__(self) -> str:
        return f"held by {escaped(self.by)}" + (f" since {escaped(self.since)}" if self.since else "")


@dataclass(frozen=True, slots=True)
class Intent:
    """The last decision about a site's drop.

    Args:
        digest: of the candidate last decided on.
        result: how that ended (`Result`; a newer version may have others).
        reason: the outcome's word.
        policy: digest of policy and roots at that time.
        next_try: RFC 3339; empty if none is due.
        hold: see `Hold`.
        caveat: a note for the user about a damaged record or one of another version; empty if there is none.
        schema_version: of the file.
        unknown: keys of a newer version, kept as they are.
    """

    digest: str = ""
    result: str = ""
    reason: str = ""
    policy: str = ""
    next_try: str = ""
    hold: Hold | None = None
    caveat: str = field(default="", compare=False)
    schema_version: int = field(default=INTENT_VERSION, compare=False)
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    def replacing(self, earlier: Intent) -> Intent:
        """This decision in place of an earlier one, whose unknown keys and newer schema version it keeps."""
        version = max(self.schema_version, earlier.schema_version)
        return replace(self, schema_version=version, unknown={**earlier.unknown, **self.unknown})


# -- readers: bytes in, record out ------------------------------------------------------------------------------------


def read_generation(data: bytes) -> GenerationRecord:
    """The content of a `meta.json`.

    Raises:
        ValueError: it is no such record, or lacks what a generation is used for; with the reason.
    """
    keys = Keys.of(data)
    version = keys.version(GENERATION_VERSION)
    pairs: tuple[PairRecord, ...] = keys.take("pairs", _pairs, ())
    digest = keys.take("digest", fields.text, "")
    origin: tuple[str, ...] = keys.take("origin", fields.texts, ())
    who = keys.take("who", fields.text, "")
    when = keys.take("when", fields.time, None)
    if not pairs:
        newer = f"; it is of schema_version {version}, this rotator knows {GENERATION_VERSION}"
        raise ValueError(f"its pairs cannot be read{newer if version > GENERATION_VERSION else ''}")
    return GenerationRecord(pairs, digest, Provenance(origin, who, when), version, keys.unknown)


def read_intent(data: bytes) -> Intent:
    """The content of an `intent.json`.

    A hold is never lost: if the file has a hold in an unknown form, or is of a newer version and lacks or changes a key
    that this version needs, the drop counts as held, with any content.

    Raises:
        ValueError: it is no JSON object.
    """
    keys = Keys.of(data)
    version = keys.version(INTENT_VERSION)
    hold = keys.take("hold", _hold, None)
    decision = Intent(
        keys.take("digest", fields.text, ""),
        keys.take("result", fields.text, ""),
        keys.take("reason", fields.text, ""),
        keys.take("policy", fields.text, ""),
        keys.take("next_try", fields.text, ""),
        hold,
        schema_version=version,
        unknown=keys.unknown,
    )
    newer = version > INTENT_VERSION
    written = f"intent.json was written by a newer rotator (schema_version {version}; this one knows {INTENT_VERSION})"
    if "hold" in keys.faulty or (newer and (keys.faulty or keys.missing)):
        not_understood = ", ".join(dict.fromkeys((*keys.faulty, *keys.missing)))
        caveat = f"{written if newer else 'intent.json is not as rotator writes it'}; not understood: {not_understood}"
        return replace(decision, hold=hold or Hold(NOT_UNDERSTOOD, "", ANYTHING), caveat=caveat)
    return replace(decision, caveat=f"{written}; the keys that this one does not know are kept") if newer else decision


def undecided(reason: str) -> Intent:
    """No decision, where an `intent.json` is damaged: it must not keep a renewal from going live.

    Args:
        reason: what is wrong with it.
    """
    return Intent(caveat=f"intent.json counts as no decision, and a hold in it as ended: {reason}")


def unreadable_intent(reason: str) -> Intent:
    """The decision that counts while an `intent.json` cannot be read: it may have a hold, so the drop is held.

    Args:
        reason: why it cannot be read.
    """
    caveat = f"intent.json cannot be read, and may have a hold: {reason}"
    return Intent(hold=Hold(NOT_UNDERSTOOD, "", ANYTHING), caveat=caveat)


# -- writers: record in, JSON object out ------------------------------------------------------------------------------


def generation_object(record: GenerationRecord) -> dict[str, object]:
    """The JSON object of a `meta.json`."""
    provenance = record.provenance
    return {
        **record.unknown,
        "schema_version": max(record.schema_version, GENERATION_VERSION),
        "origin": list(provenance.origin),
        "who": provenance.who,
        "when": rfc3339_millis(provenance.when) if provenance.when else "",
        "digest": record.digest,
        "pairs": {
            str(pair.key_type): {
                **pair.unknown,
                "fingerprint_sha256": pair.fingerprint,
                "serial": pair.serial,
                "subject": pair.subject,
                "issuer": pair.issuer,
                "names": list(pair.names),
                "not_before": rfc3339_millis(pair.not_before),
                "not_after": rfc3339_millis(pair.not_after),
                "effective_not_after": rfc3339_millis(pair.effective_not_after),
            }
            for pair in record.pairs
        },
    }


def intent_object(intent: Intent) -> dict[str, object]:
    """The JSON object of an `intent.json`."""
    hold = intent.hold
    return {
        **intent.unknown,
        "schema_version": max(intent.schema_version, INTENT_VERSION),
        "digest": intent.digest,
        "result": intent.result,
        "reason": intent.reason,
        "policy": intent.policy,
        "next_try": intent.next_try,
        "hold": {**hold.unknown, "by": hold.by, "since": hold.since, "digest": hold.digest} if hold else None,
    }


# -- values -----------------------------------------------------------------------------------------------------------


def _hold(value: Mapping[str, object] | None) -> Hold | None:
    if value is None:
        return None
    keys = Keys(value)
    hold = Hold(
        keys.take("by", fields.text, ""),
        keys.take("since", fields.text, ""),
        keys.take("digest", fields.text, ""),
        keys.unknown,
    )
    if keys.faulty or keys.missing:
        raise ValueError("no hold")
    return hold


def _pairs(value: Mapping[str, Mapping[str, object]]) -> tuple[PairRecord, ...]:
    return tuple(_pair(KeyType(kind), raw) for kind, raw in value.items())


def _pair(kind: KeyType, raw: Mapping[str, object]) -> PairRecord:
    keys, epoch = Keys(raw), datetime.fromtimestamp(0, UTC)
    pair = PairRecord(
        kind,
        keys.take("fingerprint_sha256", fields.text, ""),
        keys.take("serial", fields.text, ""),
        keys.take("subject", fields.text, ""),
        keys.take("issuer", fields.text, ""),
        keys.take("names", fields.texts, ()),
        keys.take("not_before", fields.time, epoch),
        keys.take("not_after", fields.time, epoch),
        keys.take("effective_not_after", fields.time, epoch),
        keys.unknown,
    )
    if keys.faulty or keys.missing:
        raise ValueError("no pair")
    return pair
