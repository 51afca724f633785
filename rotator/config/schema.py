"""Every table and key that the configuration may hold, with its default and its reader; the only list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rotator.config import addresses, values
from rotator.core.model import PRESETS

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    Args:
        default: what it is where it is not written, as TOML would give it; None: it must be written.
        read: from TOML's value to what is meant; raises `values.BadValueError`.
    """

    default: object
    read: Callable[[object], Any]


def _policy(value: object) -> object:
    """A preset's name, or a table that is read by `POLICY` where the preset is known."""
    return value if isinstance(value, Mapping) else values.choice(*PRESETS)(value)


def _concrete_names(value: object) -> tuple[str, ...]:
    """One concrete name, or an array of them; the empty string is none."""
    if isinstance(value, list):
        return values.array(addresses.concrete_name)(value)
    return () if value == "" else (addresses.concrete_name(value),)


TOP: Mapping[str, Key] = {
    "state_dir": Key("/var/lib/rotator", values.path),
    "incoming": Key("/var/lib/rotator/incoming", values.path),
    "scan_interval": Key("15s", values.duration(0.1, DAY)),
    "settle": Key("10s", values.duration(0, DAY)),
}

NGINX: Mapping[str, Key] = {
    "command": Key(["nginx"], values.command),
    "include_dir": Key("/etc/nginx/rotator", values.plain_path),
    "apply": Key("systemd", values.choice("systemd", "direct")),
    "result_dir": Key("/run/rotator-apply", values.path),
    "unit": Key("nginx.service", values.unit),
    "pid_file": Key("/run/nginx.pid", values.path),
    "error_log": Key("/var/log/nginx/error.log", values.optional(values.path)),
    "key_group": Key("", lambda value: values.optional(values.group)(value) or ""),
    "min_reload_interval": Key("0s", values.duration(0, DAY)),
    "drain_budget": Key(0, values.whole(0, 100_000, "workers")),
    "prove_within": Key("auto", values.optional(values.duration(0.1, 3600), "auto")),
}

METRICS: Mapping[str, Key] = {
    "listen": Key("127.0.0.1:9847", addresses.bind_address),
}

POLICY: Mapping[str, Key] = {
    "profile": Key("public", values.choice(*PRESETS)),
    "key_types": Key(sorted(PRESETS["public"]["key_types"]), values.array(values.key_type, least=1)),
    "min_rsa_bits": Key(2048, values.whole(2048, 8192, "bits")),
    "max_rsa_bits": Key(8192, values.whole(2048, 8192, "bits")),
    "lifetime_caps": Key(True, values.boolean),
    "allow_key_reuse": Key(True, values.boolean),
    "allow_san_loss": Key(False, values.boolean),
    "forbid_downgrade": Key(True, values.boolean),
    "max_lifetime": Key(0, values.whole(0, 36500, "days")),
    "min_life_left": Key(0, values.whole(0, 95, "percent")),
    "require_crls": Key(False, values.boolean),
    "stapling": Key(False, values.boolean),
}

DEFAULTS: Mapping[str, Key] = {
    "listeners": Key([], values.array(addresses.listener)),
    "policy": Key("public", _policy),
    "roots": Key("system", values.optional(values.path, "system")),
    "crls": Key("", values.optional(values.path)),
    "ct_logs": Key("", values.optional(values.path)),
    "blocklist": Key("", values.optional(values.path)),
    "ocsp": Key("", values.optional(values.path)),
    "keep_generations": Key(5, values.whole(2, 1000, "generations")),
    "password_file": Key("", values.optional(values.path)),
    "pool": Key("", values.optional(values.path)),
}
"""What [[site]] may say and [defaults] may say for all of them."""

SITE: Mapping[str, Key] = {
    "name": Key(None, values.site_name),
    "names": Key([], values.array(addresses.name)),
    "probe_name": Key("", _concrete_names),
    "source": Key("", values.optional(values.path)),
    **DEFAULTS,
}

TABLES: Mapping[str, Mapping[str, Key]] = {"nginx": NGINX, "metrics": METRICS, "defaults": DEFAULTS, "site": SITE}
"""The tables at the top; `site` is an array of them."""
