"""The problems of certificates and keys: their stable codes, their severity, and one reported refusal or warning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Every code of a problem: the single source for messages, metric labels, JSON and documentation."""

    # reading
    IO_ERROR = "io-error"
    PERMISSION = "permission"
    TOO_LARGE = "too-large"
    EMPTY_FILE = "empty-file"
    PARSE_ERROR = "parse-error"
    ENCODING = "encoding"
    CERT_MISSING = "cert-missing"
    KEY_MISSING = "key-missing"
    KEY_ENCRYPTED = "key-encrypted"
    BAD_PASSWORD = "bad-password"  # noqa: S105 - a code, not a password
    MULTIPLE_KEYS = "multiple-keys"
    KEY_FORMAT = "key-format"
    # key
    KEY_MISMATCH = "key-mismatch"
    KEY_INVALID = "key-invalid"
    KEY_TYPE = "key-type"
    WEAK_KEY = "weak-key"
    COMPROMISED_KEY = "compromised-key"
    # chain
    INCOMPLETE_CHAIN = "incomplete-chain"
    UNTRUSTED_ROOT = "untrusted-root"
    SELF_SIGNED = "self-signed"
    CHAIN_ORDER = "chain-order"
    BAD_SIGNATURE = "bad-signature"
    NOT_A_CA = "not-a-ca"
    PATHLEN = "pathlen"
    NAME_CONSTRAINTS = "name-constraints"
    EXPIRED_INTERMEDIATE = "expired-intermediate"
    EXPIRED_ROOT = "expired-root"
    AKI_MISMATCH = "aki-mismatch"
    NO_AKI = "no-aki"
    CHAIN_TOO_LONG = "chain-too-long"
    STORE_EMPTY = "store-empty"
    DISTRUSTED_ROOT = "distrusted-root"
    # leaf
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    BAD_VALIDITY = "bad-validity"
    TOO_LONG = "too-long"
    NAME_MISMATCH = "name-mismatch"
    NO_SAN = "no-san"
    BAD_SAN = "bad-san"
    BAD_EKU = "bad-eku"
    BAD_KEY_USAGE = "bad-key-usage"
    CA_LEAF = "ca-leaf"
    WEAK_SIGNATURE = "weak-signature"
    CRITICAL_EXTENSION = "critical-extension"
    BAD_VERSION = "bad-version"
    BAD_SERIAL = "bad-serial"
    DUPLICATE_EXTENSION = "duplicate-extension"
    PRECERTIFICATE = "precertificate"
    # evidence beside the roots
    REVOKED = "revoked"
    MUST_STAPLE = "must-staple"
    SCT_MISSING = "sct-missing"
    SCT_INVALID = "sct-invalid"
    SCT_DIVERSITY = "sct-diversity"
    # compared with the live pair
    DOWNGRADE = "downgrade"
    SAN_LOST = "san-lost"
    KEY_REUSE = "key-reuse"
    # in nginx
    NGINX_REFUSED = "nginx-refused"
    HANDSHAKE_FAILED = "handshake-failed"
    # warnings
    ROOT_INCLUDED = "root-included"
    UNUSED_CERT = "unused-cert"
    DUPLICATE_CERT = "duplicate-cert"
    EXPIRED_EXTRA = "expired-extra"
    KEY_IN_CERT_FILE = "key-in-cert-file"
    EXPIRES_SOON = "expires-soon"
    INTERMEDIATE_EXPIRES_FIRST = "intermediate-expires-first"
    KEY_TYPE_CHANGE = "key-type-change"
    KEY_REUSED = "key-reused"
    KEY_PERMISSIONS = "key-permissions"
    ORDER_SENSITIVE = "order-sensitive"
    ISSUER_CHANGE = "issuer-change"
    ISSUED_EARLIER = "issued-earlier"
    EXPIRES_EARLIER = "expires-earlier"
    CRL_UNUSABLE = "crl-unusable"
    CRL_STALE = "crl-stale"
    REVOCATION_UNKNOWN = "revocation-unknown"
    OCSP_STALE = "ocsp-stale"
    CN_NOT_IN_SAN = "cn-not-in-san"
    NO_EKU = "no-eku"
    NO_KEY_USAGE = "no-key-usage"
    SMALL_EXPONENT = "small-exponent"
    KEY_LARGE = "key-large"
    TRAILING_DATA = "trailing-data"
    SCT_UNVERIFIED = "sct-unverified"
    CLIENT_AUTH_EKU = "client-auth-eku"
    LOCAL_ROOT = "local-root"
    DISTRUST_AHEAD = "distrust-ahead"
    ROOT_STORE_STALE = "root-store-stale"


class Severity(StrEnum):
    """The effect of a problem on the verdict; one code may refuse in one case and warn in another."""

    REJECT = "reject"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal or warning.

    Args:
        code: the kind of problem.
        severity: whether it refuses the pair or only warns.
        message: one sentence for the person who corrects it.
        hint: the next step; empty if there is none.
        file: the input file that has the problem; empty if it concerns the pair as a whole.
        line: the 1-based line in that file; 0 if there is none.
    """

    code: Code
    severity: Severity
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0
