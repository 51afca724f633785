"""The shipped units: systemd knows every line of them, and each sandbox is as closed as the work allows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(path.name for path in SYSTEMD.glob("*.service"))
UNITS = sorted(path.name for path in SYSTEMD.glob("rotator*"))
MOST_EXPOSED = 13
"""The highest overall exposure of a unit, in tenths, as `systemd-analyze security` computes it (0 to 100)."""

EVERYWHERE = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ReadOnlyPaths": "/run",
    "TemporaryFileSystem": "/run/systemd:ro",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateMounts": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectControlGroups": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProcSubset": "pid",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RemoveIPC": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0077",
    "LimitCORE": "0",
    "MemorySwapMax": "0",
}
"""The lines of every service."""
REFUSED_CALLS = (
    "@privileged @resources io_uring_setup io_uring_enter io_uring_register "
    "process_vm_readv process_vm_writev userfaultfd"
)
SET_OR_EXPLAINED = {
    "User",
    "PrivateUsers",
    "PrivateNetwork",
    "IPAddressDeny",
    "ProtectHome",
    "ProtectProc",
    "RootDirectory",
}
"""What not every unit can have: each one sets it, or says in a comment why not."""


def settings(unit: str) -> dict[str, list[str]]:
    """The values of each setting of a unit, in their order."""
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (SYSTEMD / unit).read_text(), re.MULTILINE):
        values.setdefault(name, []).append(value)
    return values


def hidden(unit: str) -> set[str]:
    return {path.lstrip("-") for line in settings(unit).get("InaccessiblePaths", []) for path in line.split()}


@pytest.mark.parametrize("unit", SERVICES)
def test_the_exposure_of_a_unit_is_low(unit: str) -> None:
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", SYSTEMD / unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Overall exposure level" in rated.stdout, rated.stderr
    assert rated.returncode == 0, rated.stdout


def test_systemd_knows_every_line_of_the_units(tmp_path: Path) -> None:
    """systemd ignores a line that it does not know, and `verify` only warns: what counts is that it prints nothing."""
    for unit in UNITS:
        text = (SYSTEMD / unit).read_text()
        (tmp_path / unit).write_text(re.sub(r"^(Exec\w+=)/opt/rotator/bin/rotator", r"\1/bin/true", text, flags=re.M))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / unit for unit in UNITS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert [line for line in verified.stderr.splitlines() if "rotator" in line] == []
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_every_unit_has_what_no_work_contradicts(unit: str) -> None:
    values = settings(unit)
    assert {name: values.get(name, [""])[-1] for name in EVERYWHERE} == EVERYWHERE


@pytest.mark.parametrize("unit", SERVICES)
def test_no_unit_reaches_what_starts_processes_outside_of_it(unit: str) -> None:
    shown = {path.lstrip("-") for line in settings(unit).get("BindReadOnlyPaths", []) for path in line.split()}
    assert {"/run/dbus", "/run/user", "/dev/pts", "/dev/ptmx"} <= hidden(unit)
    assert shown <= {"/run/systemd/notify", "/run/systemd/journal/socket", "/run/systemd/resolve"}


@pytest.mark.parametrize("unit", SERVICES)
def test_only_the_privileged_step_may_make_one_privileged_system_call(unit: str) -> None:
    more = ["fchown"] if unit == "rotator-apply@.service" else []
    assert settings(unit)["SystemCallFilter"] == ["@system-service", f"~{REFUSED_CALLS}", *more]


@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_says_why_it_cannot_have_a_directive(unit: str) -> None:
    text = (SYSTEMD / unit).read_text()
    values = settings(unit)
    missing = {
        name for name in SET_OR_EXPLAINED - values.keys() if not re.search(rf"^#.*\b{name}=", text, re.MULTILINE)
    }
    assert missing - ({"User"} if values.get("DynamicUser") == ["yes"] else set()) == set()


@pytest.mark.parametrize("unit", ["rotator.service", "rotator-swap@.service"])
def test_what_parses_strangers_files_has_no_capability_and_sees_no_other_process_of_its_user(unit: str) -> None:
    values = settings(unit)
    wanted = {"User": "rotator", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "PrivateUsers": "yes"}
    assert {name: values[name][-1] for name in wanted} == wanted


def test_the_privileged_step_has_one_capability_and_makes_no_socket() -> None:
    values = settings("rotator-apply@.service")
    wanted = {
        "CapabilityBoundingSet": "CAP_DAC_READ_SEARCH",
        "RestrictAddressFamilies": "none",
        "PrivateNetwork": "yes",
        "ReadWritePaths": "/etc/nginx/rotator",
    }
    assert {name: values[name][-1] for name in wanted} == wanted


def test_the_test_of_nginx_runs_as_a_user_of_its_own_and_writes_nothing() -> None:
    values = settings("rotator-nginx-test@.service")
    assert (values["DynamicUser"], values["PrivateNetwork"], "ReadWritePaths" in values) == (["yes"], ["yes"], False)
