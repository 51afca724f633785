"""The schema: every table and key of the configuration, with its default and its parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rotator.config import addresses, value_parsers
from rotator.core.model import PRESETS

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    Args:
        default: the value of a key that the file does not hold, as TOML would give it; None: the file must hold it.
        read: parses the value that TOML gave; it raises `value_parsers.BadValueError`.
    """

    default: object
    read: Callable[[object], Any]


def _policy(value: object) -> object:
    """The name of a preset, or a table. The builder reads the table by `POLICY`, once the preset is known."""
    return value if isinstance(value, Mapping) else value_parsers.choice(*PRESETS)(value)


def _concrete_names(value: object) -> tuple[str, ...]:
    """One name without a wildcard, or an array of them; the empty string is an empty array."""
    if isinstance(value, list):
        return value_parsers.array(addresses.concrete_name)(value)
    return () if value == "" else (addresses.concrete_name(value),)


TOP: Mapping[str, Key] = {
    "state_dir": Key("/var/lib/rotator", value_parsers.path),
    "incoming": Key("/var/lib/rotator/incoming", value_parsers.path),
    "scan_interval": Key("15s", value_parsers.duration(0.1, DAY)),
    "settle": Key("10s", value_parsers.duration(0, DAY)),
}

_SOCKET_HINT = 'write apply = "socket", and install and start rotator-apply.socket'

NGINX: Mapping[str, Key] = {
    "command": Key(["nginx"], value_parsers.command),
    "include_dir": Key("/etc/nginx/rotator", value_parsers.plain_path),
    "apply": Key("socket", value_parsers.choice("socket", "direct", removed="systemd", hint=_SOCKET_HINT)),
    "socket_dir": Key("/run/rotator", value_parsers.path),
    "unit": Key("nginx.service", value_parsers.unit),
    "pid_file": Key("/run/nginx.pid", value_parsers.path),
    "error_log": Key("/var/log/nginx/error.log", value_parsers.optional(value_parsers.path)),
    "key_group": Key("", lambda value: value_parsers.optional(value_parsers.group)(value) or ""),
    "min_reload_interval": Key("0s", value_parsers.duration(0, DAY)),
    "drain_budget": Key(0, value_parsers.whole(0, 100_000, "workers")),
    "prove_within": Key("auto", value_parsers.optional(value_parsers.duration(0.1, 3600), "auto")),
}

REMOVED: Mapping[tuple[str, str], str] = {
    ("nginx", "result_dir"): "remove this line; root's program answers on a socket in socket_dir (/run/rotator)",
}
"""The keys of earlier releases, by table and name, with what to do instead."""

METRICS: Mapping[str, Key] = {
    "listen": Key("127.0.0.1:9847", addresses.bind_address),
    "hosts": Key([], value_parsers.array(addresses.concrete_name)),
}

POLICY: Mapping[str, Key] = {
    "profile": Key("public", value_parsers.choice(*PRESETS)),
    "key_types": Key(sorted(PRESETS["public"]["key_types"]), value_parsers.array(value_parsers.key_type, least=1)),
    "min_rsa_bits": Key(2048, value_parsers.whole(2048, 8192, "bits")),
    "max_rsa_bits": Key(8192, value_parsers.whole(2048, 8192, "bits")),
    "lifetime_caps": Key(True, value_parsers.boolean),
    "allow_key_reuse": Key(True, value_parsers.boolean),
    "allow_san_loss": Key(False, value_parsers.boolean),
    "forbid_downgrade": Key(True, value_parsers.boolean),
    "max_lifetime": Key(0, value_parsers.whole(0, 36500, "days")),
    "min_life_left": Key(0, value_parsers.whole(0, 95, "percent")),
    "require_crls": Key(False, value_parsers.boolean),
    "stapling": Key(False, value_parsers.boolean),
    "allow_local_roots": Key(True, value_parsers.boolean),
}

DEFAULTS: Mapping[str, Key] = {
    "listeners": Key([], value_parsers.array(addresses.listener)),
    "policy": Key("public", _policy),
    "roots": Key("system", value_parsers.optional(value_parsers.path, "system")),
    "crls": Key("", value_parsers.optional(value_parsers.path)),
    "ct_logs": Key("", value_parsers.optional(value_parsers.path)),
    "blocklist": Key("", value_parsers.optional(value_parsers.path)),
    "ocsp": Key("", value_parsers.optional(value_parsers.path)),
    "root_store": Key("", value_parsers.optional(value_parsers.path)),
    "keep_generations": Key(5, value_parsers.whole(2, 1000, "generations")),
    "password_file": Key("", value_parsers.optional(value_parsers.path)),
    "pool": Key("", value_parsers.optional(value_parsers.path)),
    "drop_group": Key("", lambda value: value_parsers.optional(value_parsers.group)(value) or ""),
    "drop_owner": Key("", lambda value: value_parsers.optional(value_parsers.user)(value) or ""),
}
"""The keys that a [[site]] may hold and that [defaults] may hold for all sites."""

SITE: Mapping[str, Key] = {
    "name": Key(None, value_parsers.site_name),
    "names": Key([], value_parsers.array(addresses.name)),
    "probe_name": Key("", _concrete_names),
    "source": Key("", value_parsers.optional(value_parsers.path)),
    **DEFAULTS,
}

TABLES: Mapping[str, Mapping[str, Key]] = {"nginx": NGINX, "metrics": METRICS, "defaults": DEFAULTS, "site": SITE}
"""The tables of the file; `site` is an array of tables."""
