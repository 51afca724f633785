"""The builder: turns a parsed TOML document into the configuration, or into the list of all its mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotator.config import schema
from rotator.config.schema import Key
from rotator.config.settings import Config, EvidenceFiles, Mistake, NginxConfig, SiteConfig
from rotator.config.system_roots import system_roots
from rotator.config.toml_document import Document, KeyPath
from rotator.config.value_parsers import BadElementsError, BadValueError, quoted
from rotator.core.model import PRESETS, Policy, Site


def build_config(document: Document, path: Path) -> tuple[Config | None, tuple[Mistake, ...]]:
    """The configuration and an empty tuple, or None and every mistake in the order of the lines.

    Args:
        document: the parsed file.
        path: the path of the file, which the configuration keeps.
    """
    builder = _Builder(document)
    config = builder.config(path)
    mistakes = tuple(sorted(builder.mistakes, key=lambda m: m.line))
    return (None if mistakes else config), mistakes


class _Builder:
    """One pass over the tables. It notes each wrong value and continues with its default, so that it finds them all."""

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
            # The unprivileged daemon writes to these directories. A file that root's nginx opens by its name, or a
            # socket that stands for root, must not be below them.
            for key, rule, example in (
                ("include_dir", "root's nginx must not read there", "/etc/nginx/rotator"),
                ("socket_dir", "root's sockets must not be there", "/run/rotator"),
            ):
                if nginx[key].is_relative_to(top[name]):
                    message = f"is inside {name} ({top[name]}), and {rule}"
                    self.add(("nginx", key), message, f'use another directory, such as "{example}"')
        return Config(
            path=path,
            **top,
            nginx=NginxConfig(**nginx),
            metrics_listen=metrics["listen"],
            metrics_hosts=metrics["hosts"],
            sites=sites,
        )

    def add(self, where: KeyPath, message: str, hint: str = "") -> None:
        """Notes one mistake."""
        key = ".".join(part for part in where if isinstance(part, str))
        self.mistakes.append(Mistake(self.document.line(where), key, message, hint))

    def table(
        self, where: KeyPath, keys: Mapping[str, Key], raw: object, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The parsed value of each key of one table.

        Args:
            where: the place of the table.
            keys: the keys that it may hold.
            raw: the table as TOML gave it.
            given: the values of keys that are missing or wrong; the schema's default applies to the rest.
        """
        given = given or {}
        parsed = {
            name: given[name] if name in given else key.read(key.default)
            for name, key in keys.items()
            if name in given or key.default is not None
        }
        if not isinstance(raw, Mapping):
            self.add(
                where,
                f"{quoted(raw)} is not a table",
                "write its name in brackets on a line of its own, and its keys below",
            )
            return parsed
        for name, value in raw.items():
            if name not in keys:
                self.unknown(where, name, keys, value)
                continue
            try:
                parsed[name] = keys[name].read(value)
            except BadElementsError as error:
                for index, element_error in error.errors.items():
                    self.add((*where, name, index), element_error.message, element_error.hint)
            except BadValueError as error:
                self.add((*where, name), error.message, error.hint)
        return parsed

    def unknown(self, where: KeyPath, name: str, keys: Mapping[str, Key], value: object) -> None:
        """Notes a key that its table may not hold, with the key or the table that was probably meant."""
        kind = "table" if isinstance(value, (Mapping, list)) and not where else "key"
        known = [*keys, *(() if where else schema.TABLES)]
        tables = {"": schema.TOP, **schema.TABLES, "site.policy": schema.POLICY}
        owner = next((table for table, its_keys in tables.items() if name in its_keys and its_keys is not keys), None)
        hint = ""
        if gone := schema.REMOVED.get((".".join(map(str, where)), name)):
            self.add((*where, name), "was removed in this release", gone)
            return
        if near := difflib.get_close_matches(name, known, 1, 0.6):
            hint = f"did you mean {quoted(near[0])}?"
        elif owner == "":
            hint = "it belongs at the top of the file, above the first [table]"
        elif owner is not None:
            hint = f"it belongs to {'each [[site]]' if owner == 'site' else f'the table {quoted(owner)}'}"
        self.add((*where, name), f"unknown {kind}", hint)

    def policy(self, where: KeyPath, raw: object, base: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a policy.

        Args:
            where: the place of the policy.
            raw: the name of a preset, or a table whose values go before those of a preset.
            base: the values that apply where the table names no preset.
        """
        profile = raw.get("profile") if isinstance(raw, Mapping) else raw
        if isinstance(profile, str) and profile in PRESETS:
            base = {"profile": profile, **PRESETS[profile]}
        policy = self.table(where, schema.POLICY, raw if isinstance(raw, Mapping) else {}, base)
        if policy["min_rsa_bits"] > policy["max_rsa_bits"]:
            self.add((*where, "min_rsa_bits"), "is larger than max_rsa_bits, so every RSA key would be rejected")
        return policy

    def sites(self, raw: object, defaults: Mapping[str, Any]) -> tuple[SiteConfig, ...]:
        """Every site, in the order of the file."""
        if not isinstance(raw, list):
            self.add(("site",), "is not an array of tables", "write [[site]], with two brackets, above each site")
            return ()
        if not raw:
            self.add((), "there is no [[site]], so there is nothing to rotate", "write one: see conf.example.toml")
        sites = [self.site(("site", number), table, defaults) for number, table in enumerate(raw)]
        self.demand_unique(sites)
        return tuple(sites)

    def site(self, where: KeyPath, raw: object, defaults: Mapping[str, Any]) -> SiteConfig:
        """One site."""
        inherited = {name: value for name, value in defaults.items() if name != "policy"}
        values = self.table(where, schema.SITE, raw, {"name": "", "policy": None, **inherited})
        written = raw if isinstance(raw, Mapping) else {}
        title = quoted(values["name"]) if values["name"] else "this site"
        if "name" not in written:
            self.add(where, "this site has no name", 'write name = "…" below its [[site]]')
        for key, example in (("names", "www.example.org"), ("listeners", "127.0.0.1:443")):
            if not values[key] and not written.get(key):
                self.add(
                    (*where, key),
                    f"{title} has no {key}, so nothing could be proved",
                    f'write {key} = ["{example}"]',
                )
        policy = dict(defaults["policy"])
        if values["policy"] is not None:
            policy = self.policy((*where, "policy"), values["policy"], policy)
        if policy["require_crls"] and values["crls"] is None:
            self.add(
                where,
                f"{title} has require_crls but no crls, so every renewal would be rejected",
                'write crls = "/…/crls"',
            )
        return SiteConfig(
            site=Site(
                name=values["name"],
                names=values["names"],
                listeners=values["listeners"],
                policy=Policy(names=values["names"], **policy | {"key_types": frozenset(policy["key_types"])}),
                keep=values["keep_generations"],
                probe_names=self.probe_names(where, values),
            ),
            source=values["source"],
            roots=values["roots"] or self.system_roots,
            line=self.document.line(where),
            evidence=EvidenceFiles(
                values["crls"], values["ct_logs"], values["blocklist"], values["ocsp"], values["root_store"]
            ),
            password_file=values["password_file"],
            pool=values["pool"],
            drop_group=values["drop_group"],
            drop_owner=values["drop_owner"],
        )

    def probe_names(self, where: KeyPath, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The host name to send for each name of a site: the name, or for a wildcard a `probe_name` that it covers."""
        candidates = list(values["probe_name"])
        chosen: list[str] = []
        for index, name in enumerate(values["names"]):
            if not name.startswith("*."):
                chosen.append(name)
                continue
            covered = [candidate for candidate in candidates if candidate.partition(".")[2] == name[2:]]
            if not covered:
                self.add(
                    (*where, "names", index),
                    f"{quoted(name)} is a wildcard; a handshake needs a name that it covers",
                    f"add a name that nginx serves with it: probe_name = {quoted('www' + name[1:])}",
                )
            chosen.append(covered[0] if covered else name)
        for index, candidate in enumerate(candidates):
            if candidate not in chosen:
                self.add(
                    (*where, "probe_name", index),
                    f"{quoted(candidate)} is not needed: no wildcard among the names covers it",
                    "correct it (a wildcard covers exactly one label) or remove it",
                )
        return tuple(chosen)

    def demand_unique(self, sites: list[SiteConfig]) -> None:
        """Notes each name of a site that is used twice, and each listener and host name that two sites claim.

        nginx serves only one certificate for a host name at a listener.
        """
        first_lines: dict[str, int] = {}
        claims: dict[tuple[str, str], SiteConfig] = {}
        for number, current in enumerate(sites):
            name = current.site.name
            if name and name in first_lines:
                self.add(
                    ("site", number, "name"),
                    f"{quoted(name)} is also the name of the site at line {first_lines[name]}",
                    "give one of them another name",
                )
            first_lines.setdefault(name, current.line)
            for index, host in enumerate(current.site.probe_names):
                claimed = [claims.setdefault((listener, host), current) for listener in current.site.listeners]
                conflict = next((n for n, claimant in enumerate(claimed) if claimant is not current), None)
                if conflict is not None:
                    other, listener = claimed[conflict], current.site.listeners[conflict]
                    self.add(
                        ("site", number, "names", index),
                        f"site {quoted(other.site.name)}, line {other.line}, already claims {quoted(host)}"
                        f" at {listener}",
                        "nginx serves one certificate there: keep it in one of the two sites only",
                    )
