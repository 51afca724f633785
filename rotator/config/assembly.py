"""From a parsed document to the configuration, or to all of its mistakes at once; no file is opened here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotator.config import schema
from rotator.config.schema import Key
from rotator.config.shape import Config, EvidenceFiles, Mistake, NginxConfig, SiteConfig
from rotator.config.text import Document, Where
from rotator.config.values import BadElementsError, BadValueError, quoted
from rotator.core.model import PRESETS, Policy, Site

SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL and their kin
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)
"""Where distributions keep the roots that clients of the public web trust, in the order they are looked for."""


def system_roots() -> Path:
    """The distribution's file of roots; the first of `SYSTEM_ROOTS` if there is none, for the message to name."""
    return next((p for p in map(Path, SYSTEM_ROOTS) if p.exists()), Path(SYSTEM_ROOTS[0]))


def assemble(document: Document, path: Path) -> tuple[Config | None, tuple[Mistake, ...]]:
    """The configuration, or None and every mistake, in the order of their lines."""
    assembly = _Assembly(document)
    config = assembly.config(path)
    mistakes = tuple(sorted(assembly.mistakes, key=lambda m: m.line))
    return (None if mistakes else config), mistakes


class _Assembly:
    """Goes through the tables once; a value that is wrong is noted and its default taken, so that all are found."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.system_roots = system_roots()
        self.mistakes: list[Mistake] = []

    def config(self, path: Path) -> Config:
        values = self.document.values
        tables = {name: values[name] for name in schema.TABLES if name in values}
        top = self.table((), schema.TOP, {k: v for k, v in values.items() if k not in schema.TABLES})
        if "state_dir" in values and "incoming" not in values:
            top["incoming"] = top["state_dir"] / "incoming"
        nginx = self.table(("nginx",), schema.NGINX, tables.get("nginx", {}))
        metrics = self.table(("metrics",), schema.METRICS, tables.get("metrics", {}))
        defaults = self.table(("defaults",), schema.DEFAULTS, tables.get("defaults", {}))
        defaults["policy"] = self.policy(("defaults", "policy"), defaults["policy"], {})
        sites = self.sites(tables.get("site", []), defaults)
        for name in ("state_dir", "incoming"):
            # What root's nginx opens by name, or root writes, must not stand where the unprivileged daemon may write.
            for key, use, example in (
                ("include_dir", "where root's nginx must not read", "/etc/nginx/rotator"),
                ("result_dir", "where root must not write", "/run/rotator-apply"),
            ):
                if nginx[key].is_relative_to(top[name]):
                    words = f"lies in {name} ({top[name]}), {use}"
                    self.add(("nginx", key), words, f'keep them apart, such as "{example}"')
        return Config(
            path=path,
            **top,
            nginx=NginxConfig(**nginx),
            metrics_listen=metrics["listen"],
            sites=sites,
        )

    def add(self, where: Where, message: str, hint: str = "") -> None:
        key = ".".join(part for part in where if isinstance(part, str))
        self.mistakes.append(Mistake(self.document.line(where), key, message, hint))

    def table(
        self, where: Where, keys: Mapping[str, Key], raw: object, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What each key of the table means; where it is not written or wrong, `given` or else its default."""
        given = given or {}
        meant = {
            name: given[name] if name in given else key.read(key.default)
            for name, key in keys.items()
            if name in given or key.default is not None
        }
        if not isinstance(raw, Mapping):
            self.add(where, f"{quoted(raw)} is not a table", f"write [{where[0]}] on a line of its own")
            return meant
        for name, value in raw.items():
            if name not in keys:
                self.unknown(where, name, keys, value)
                continue
            try:
                meant[name] = keys[name].read(value)
            except BadElementsError as error:
                for index, wrong in error.wrong.items():
                    self.add((*where, name, index), wrong.message, wrong.hint)
            except BadValueError as wrong:
                self.add((*where, name), wrong.message, wrong.hint)
        return meant

    def unknown(self, where: Where, name: str, keys: Mapping[str, Key], value: object) -> None:
        kind = "table" if isinstance(value, (Mapping, list)) and not where else "key"
        known = [*keys, *(() if where else schema.TABLES)]
        homes = {"": schema.TOP, **schema.TABLES, "site.policy": schema.POLICY}
        home = next((home for home, its in homes.items() if name in its and its is not keys), None)
        hint = ""
        if near := difflib.get_close_matches(name, known, 1, 0.6):
            hint = f'did you mean "{near[0]}"?'
        elif home == "":
            hint = "it belongs at the top of the file, above the first [table]"
        elif home is not None:
            hint = f"it belongs to {'each [[site]]' if home == 'site' else f'[{home}]'}"
        self.add((*where, name), f"unknown {kind}", hint)

    def policy(self, where: Where, raw: object, base: Mapping[str, Any]) -> dict[str, Any]:
        """A policy's values: a preset's name, or a table on top of the preset it names or else of `base`."""
        profile = raw.get("profile") if isinstance(raw, Mapping) else raw
        if isinstance(profile, str) and profile in PRESETS:
            base = {"profile": profile, **PRESETS[profile]}
        found = self.table(where, schema.POLICY, raw if isinstance(raw, Mapping) else {}, base)
        if found["min_rsa_bits"] > found["max_rsa_bits"]:
            self.add((*where, "min_rsa_bits"), "is larger than max_rsa_bits, so no RSA key would do")
        return found

    def sites(self, raw: object, defaults: Mapping[str, Any]) -> tuple[SiteConfig, ...]:
        if not isinstance(raw, list):
            self.add(("site",), "is not an array of tables", "write [[site]], with two brackets, above each site")
            return ()
        if not raw:
            self.add((), "there is no [[site]], so there is nothing to rotate", "write one: see conf.example.toml")
        sites = [self.site(("site", number), one, defaults) for number, one in enumerate(raw)]
        self.demand_unique(sites)
        return tuple(sites)

    def site(self, where: Where, raw: object, defaults: Mapping[str, Any]) -> SiteConfig:
        inherited = {name: value for name, value in defaults.items() if name != "policy"}
        found = self.table(where, schema.SITE, raw, {"name": "", "policy": None, **inherited})
        written = raw if isinstance(raw, Mapping) else {}
        shown = quoted(found["name"]) if found["name"] else "this site"
        if "name" not in written:
            self.add(where, "this site has no name", 'write name = "…" below its [[site]]')
        for key, example in (("names", "www.example.org"), ("listeners", "127.0.0.1:443")):
            if not found[key] and not written.get(key):
                self.add(
                    (*where, key), f"{shown} has no {key}, so nothing could be proved", f'write {key} = ["{example}"]'
                )
        policy = dict(defaults["policy"])
        if found["policy"] is not None:
            policy = self.policy((*where, "policy"), found["policy"], policy)
        if policy["require_crls"] and found["crls"] is None:
            self.add(
                where, f"{shown} has require_crls and no crls, so it would refuse everything", 'write crls = "/…/crls"'
            )
        return SiteConfig(
            site=Site(
                name=found["name"],
                names=found["names"],
                listeners=found["listeners"],
                policy=Policy(names=found["names"], **policy | {"key_types": frozenset(policy["key_types"])}),
                keep=found["keep_generations"],
                probe_names=self.probe_names(where, found),
            ),
            source=found["source"],
            roots=found["roots"] or self.system_roots,
            line=self.document.line(where),
            evidence=EvidenceFiles(found["crls"], found["ct_logs"], found["blocklist"], found["ocsp"]),
            password_file=found["password_file"],
            pool=found["pool"],
        )

    def probe_names(self, where: Where, found: Mapping[str, Any]) -> tuple[str, ...]:
        """What to send for each name: the name, or for a wildcard the one of `probe_name` that it covers."""
        given = list(found["probe_name"])
        chosen: list[str] = []
        for index, name in enumerate(found["names"]):
            if not name.startswith("*."):
                chosen.append(name)
                continue
            fitting = [one for one in given if one.partition(".")[2] == name[2:]]
            if not fitting:
                self.add(
                    (*where, "names", index),
                    f"{quoted(name)} is a wildcard; a handshake needs one of its names",
                    f"add a name that nginx serves with it: probe_name = {quoted('www' + name[1:])}",
                )
            chosen.append(fitting[0] if fitting else name)
        for index, one in enumerate(given):
            if one not in chosen:
                self.add(
                    (*where, "probe_name", index),
                    f"{quoted(one)} is not needed: no wildcard among the names covers it",
                    "correct it (a wildcard stands for one label) or leave it out",
                )
        return tuple(chosen)

    def demand_unique(self, sites: list[SiteConfig]) -> None:
        """No name twice, and no listener and name in two sites: only one certificate can be served there."""
        names: dict[str, int] = {}
        claims: dict[tuple[str, str], SiteConfig] = {}
        for number, one in enumerate(sites):
            if one.site.name and one.site.name in names:
                self.add(
                    ("site", number, "name"),
                    f"{quoted(one.site.name)} is the name of the site at line {names[one.site.name]} too",
                    "call one of them otherwise",
                )
            names.setdefault(one.site.name, one.line)
            for index, sent in enumerate(one.site.probe_names):
                told = False
                for listener in one.site.listeners:
                    other = claims.setdefault((listener, sent), one)
                    if other is not one and not told:
                        told = True
                        self.add(
                            ("site", number, "names", index),
                            f"{quoted(sent)} at {listener} is site {quoted(other.site.name)}'s, line {other.line}",
                            "nginx serves one certificate there: leave it in one of the two sites",
                        )
