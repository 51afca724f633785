"""The table of client support: for each defect of a served chain, the clients that refuse it and those that accept it.

The diagnosis, `check --json`, `probe` and the documentation use this table, and `tests/clients` runs real clients
against each of its lines. Clients that no test can run are listed by their documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from rotator.core.problems import Code, Problem, Severity


class Client(StrEnum):
    """The clients with a verifier, or a way to complete chains, of their own."""

    CHROME = "chrome"
    FIREFOX = "firefox"
    OPENSSL = "openssl"
    CURL = "curl"
    PYTHON = "python"
    NODE = "node"
    MOSQUITTO = "mosquitto"
    GO = "go"
    JAVA = "java"
    ANDROID = "android"
    PLATFORM = "windows-macos"


TITLES: Mapping[Client, str] = MappingProxyType(
    {
        Client.CHROME: "Chrome",
        Client.FIREFOX: "Firefox",
        Client.OPENSSL: "OpenSSL",
        Client.CURL: "curl",
        Client.PYTHON: "Python",
        Client.NODE: "Node",
        Client.MOSQUITTO: "mosquitto",
        Client.GO: "Go",
        Client.JAVA: "Java",
        Client.ANDROID: "Android apps",
        Client.PLATFORM: "Windows, macOS",
    }
)
"""The names of the clients in messages."""

BY_ROOT_STORE = frozenset({Code.DISTRUSTED_ROOT})
"""The defects that no test can make: a browser applies them to the roots of its own root store only."""

DOCUMENTED = frozenset({Client.ANDROID, Client.PLATFORM})
"""The clients that no test runs: Conscrypt (apps on Android), and users of Schannel or Security.framework."""


class Compatibility(StrEnum):
    """Whether a client accepts a chain. `unknown` means neither tested nor documented."""

    ACCEPTS = "accepts"
    DEPENDS = "depends"
    UNKNOWN = "unknown"
    FAILS = "fails"


class Condition(StrEnum):
    """The condition under which a client accepts a chain, for `depends`."""

    FETCH = "fetch"
    """It can fetch the missing certificate from the CA's address in the certificate (RFC 5280 4.2.2.1)."""
    MEMORY = "memory"
    """It has the intermediate already: Firefox loads those of the public CAs in advance, and fetches none."""
    VERSION = "version"
    """Its version is older: Python refuses it since 3.13."""
    STORE = "store"
    """Its own root store still trusts the root for this certificate; the message names the one that does not."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: the effect of a defect on each client.

    Args:
        title: the defect in a few words.
        source: the documentation of the behaviour, in addition to the tests.
        accepts: the clients that accept the chain.
        depends: the clients that accept it under a condition.
        unknown: the clients whose behaviour is unknown. All others refuse the chain.
    """

    title: str
    source: str
    accepts: frozenset[Client] = frozenset()
    depends: Mapping[Client, Condition] = field(default_factory=lambda: MappingProxyType({}))
    unknown: frozenset[Client] = frozenset()

    def compatibility(self, client: Client) -> Compatibility:
        """Whether a client accepts a chain with this defect."""
        if client in self.depends:
            return Compatibility.DEPENDS
        if client in self.accepts:
            return Compatibility.ACCEPTS
        return Compatibility.UNKNOWN if client in self.unknown else Compatibility.FAILS


_ALL = frozenset(Client)
_OPENSSL = frozenset({Client.OPENSSL, Client.CURL, Client.PYTHON, Client.NODE, Client.MOSQUITTO})
_OTHERS = _ALL - _OPENSSL - DOCUMENTED
_UNTIDY = "RFC 8446 4.4.2: clients should be ready for superfluous certificates and any order"
_PATH = "RFC 5280 6.1"

RULES: Mapping[Code, Rule] = MappingProxyType(
    {
        Code.INCOMPLETE_CHAIN: Rule(
            "intermediate missing",
            "RFC 5280 4.2.2.1; Chromium, net/cert/internal/cert_issuer_source_aia.cc; Mozilla wiki, Intermediate "
            "Preloading; Android, Security with network protocols; Microsoft, CertGetCertificateChain; Apple, "
            "SecTrustSetNetworkFetchAllowed",
            depends=MappingProxyType(
                {
                    Client.CHROME: Condition.FETCH,
                    Client.FIREFOX: Condition.MEMORY,
                    Client.PLATFORM: Condition.FETCH,
                }
            ),
        ),
        Code.EXPIRED_INTERMEDIATE: Rule(
            "intermediate expired, no other path",
            f"{_PATH}.3 a 2; Chromium, net/cert/internal/cert_issuer_source_aia.cc",
            depends=MappingProxyType({Client.CHROME: Condition.FETCH, Client.FIREFOX: Condition.MEMORY}),
            unknown=DOCUMENTED,
        ),
        Code.ORDER_SENSITIVE: Rule(
            "a path to an expired root comes before the good one",
            "OpenSSL, openssl-verification-options: the first path is taken, without going back",
            accepts=_OTHERS,
            unknown=DOCUMENTED,
        ),
        Code.EXPIRED_EXTRA: Rule(
            "expired cross-certificate beside a valid path",
            "OpenSSL, x509_vfy.c: among issuers of one name a valid one is preferred",
            accepts=_ALL - DOCUMENTED,
            unknown=DOCUMENTED,
        ),
        Code.AKI_MISMATCH: Rule(
            "key identifier is not the issuer's",
            "RFC 5280 4.2.1.1 has it for finding paths only; OpenSSL, X509_check_issued demands it",
            accepts=_OTHERS,
            unknown=DOCUMENTED,
        ),
        Code.EXPIRED_ROOT: Rule(
            "root expired",
            "RFC 5280 6.1.1 d: an anchor is a name and a key; Java's PKIX demands nothing else",
            accepts=frozenset({Client.JAVA}),
            unknown=DOCUMENTED,
        ),
        Code.CHAIN_ORDER: Rule("wrong order behind the leaf", _UNTIDY, accepts=_ALL - DOCUMENTED, unknown=DOCUMENTED),
        Code.ROOT_INCLUDED: Rule("root sent along", _UNTIDY, accepts=_ALL),
        Code.UNUSED_CERT: Rule("unneeded certificate sent", _UNTIDY, accepts=_ALL - DOCUMENTED, unknown=DOCUMENTED),
        Code.DUPLICATE_CERT: Rule("certificate sent twice", _UNTIDY, accepts=_ALL - DOCUMENTED, unknown=DOCUMENTED),
        Code.UNTRUSTED_ROOT: Rule("root not trusted", f"{_PATH}.1 d"),
        Code.DISTRUSTED_ROOT: Rule(
            "root distrusted by a browser",
            "Mozilla, NSSCertDBTrustDomain::IsChainValid; Chromium, net/cert/root_store.proto; RFC 5280 6.1.1 d has no "
            "such condition",
            accepts=_ALL - DOCUMENTED - {Client.CHROME, Client.FIREFOX},
            depends=MappingProxyType({Client.CHROME: Condition.STORE, Client.FIREFOX: Condition.STORE}),
            unknown=DOCUMENTED,
        ),
        Code.SELF_SIGNED: Rule("self-signed, not trusted", f"{_PATH}.1 d"),
        Code.BAD_SIGNATURE: Rule("signature of another key", f"{_PATH}.3 a 1"),
        Code.NOT_A_CA: Rule("issued by a certificate that is no CA", f"{_PATH}.4 k"),
        Code.PATHLEN: Rule("too many intermediates", f"{_PATH}.4 m"),
        Code.NAME_CONSTRAINTS: Rule("name outside the CA's constraints", f"{_PATH}.3 b"),
        Code.NO_AKI: Rule(
            "no authority key identifier",
            "RFC 5280 4.2.1.1; Python, ssl.create_default_context sets VERIFY_X509_STRICT since 3.13",
            accepts=_ALL - DOCUMENTED - {Client.PYTHON},
            depends=MappingProxyType({Client.PYTHON: Condition.VERSION}),
            unknown=DOCUMENTED,
        ),
        Code.EXPIRED: Rule("leaf expired", f"{_PATH}.3 a 2"),
        Code.NOT_YET_VALID: Rule("not valid yet", f"{_PATH}.3 a 2"),
        Code.NAME_MISMATCH: Rule("another name", "RFC 9525 6"),
        Code.NO_SAN: Rule(
            "common name only",
            "RFC 9525 2: the common name counts for nothing; OpenSSL and Java still look at it",
            accepts=_OPENSSL | {Client.JAVA},
            unknown=DOCUMENTED,
        ),
        Code.BAD_EKU: Rule("not for TLS servers", "RFC 5280 4.2.1.12"),
    }
)
"""The table, by the code of the problem."""


@dataclass(frozen=True, slots=True)
class ClientSupport:
    """The prediction for one client.

    Args:
        compatibility: the worst effect of any problem.
        condition: the condition, for `depends`.
        codes: the codes of the problems with this effect.
        url: for `fetch`, the address that must be reachable.
    """

    compatibility: Compatibility
    condition: Condition | None = None
    codes: tuple[Code, ...] = ()
    url: str = ""


def predict(problems: Iterable[Problem], url: str = "") -> dict[Client, ClientSupport]:
    """The prediction for every client if a chain with these problems is served unchanged.

    Args:
        problems: the problems of the chain; warnings count if the table has them, refusals always.
        url: the address of the missing or expired certificate (`http:` only, as clients fetch no others); if it is
            empty, clients that would fetch it fail.
    """
    codes = dict.fromkeys(p.code for p in problems if p.code in RULES or p.severity is Severity.REJECT)
    return {client: _worst([_effect(code, client, url) for code in codes]) for client in Client}


def who_breaks(problem: Problem, url: str = "") -> list[str]:
    """The sentences about the clients that one problem breaks; empty if none is known to break."""
    if problem.code not in RULES:
        return []
    predictions = predict([problem], url)
    broken = [TITLES[c] for c, p in predictions.items() if p.compatibility is Compatibility.FAILS]
    if len(broken) == len(Client):
        return ["Who breaks: every client."]
    lines = [f"{', '.join(broken)}."] if broken else []
    for condition, sentence in _CONDITIONS.items():
        names = [TITLES[c] for c, p in predictions.items() if p.condition is condition]
        if names:
            lines.append(sentence.format(who=", ".join(names), url=url))
    return [f"Who breaks: {lines[0]}", *lines[1:]] if lines else []


_CONDITIONS = {
    Condition.FETCH: "{who}: only if {url} cannot be reached at that moment.",
    Condition.MEMORY: "{who}: only if it does not know the intermediate yet; it loads those of public CAs in advance.",
    Condition.VERSION: "{who}: since 3.13.",
    Condition.STORE: "{who}: only if its own root store distrusts the root.",
}


def _effect(code: Code, client: Client, url: str) -> ClientSupport:
    rule = RULES.get(code)
    if rule is None:
        return ClientSupport(Compatibility.UNKNOWN, None, (code,))
    compatibility, condition = rule.compatibility(client), rule.depends.get(client)
    if condition is Condition.FETCH:
        if not url.startswith("http://"):
            return ClientSupport(Compatibility.FAILS, None, (code,))
        return ClientSupport(compatibility, condition, (code,), url)
    return ClientSupport(compatibility, condition, () if compatibility is Compatibility.ACCEPTS else (code,))


_SEVERITY = {Compatibility.ACCEPTS: 0, Compatibility.DEPENDS: 1, Compatibility.UNKNOWN: 2, Compatibility.FAILS: 3}


def _worst(effects: list[ClientSupport]) -> ClientSupport:
    if not effects:
        return ClientSupport(Compatibility.ACCEPTS)
    worst = max(effects, key=lambda effect: _SEVERITY[effect.compatibility])
    same = [effect for effect in effects if effect.compatibility is worst.compatibility]
    return ClientSupport(
        worst.compatibility, worst.condition, tuple(code for effect in same for code in effect.codes), worst.url
    )
