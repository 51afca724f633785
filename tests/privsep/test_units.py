"""The shipped units of root's programs: who may connect, what one connection may use, and no limit that refuses."""

from __future__ import annotations

import pytest

from rotator.config import schema
from rotator.privsep.connection import PROGRAM
from rotator.privsep.socket_client import APPLY_UNIT, SOCKETS, TEST_UNIT
from tests.support.root_programs import settings

UNITS = pytest.mark.parametrize("unit", [APPLY_UNIT, TEST_UNIT])


@UNITS
def test_a_socket_is_at_the_configured_default_and_for_one_user(unit: str) -> None:
    socket = settings(f"{unit}.socket")
    assert socket["ListenStream"] == f"{schema.NGINX['socket_dir'].default}/{SOCKETS[unit]}"
    assert (socket["Accept"], socket["SocketUser"], socket["SocketMode"]) == ("yes", "rotator", "0600")


@UNITS
def test_a_socket_has_few_connections_and_no_limit_that_would_stop_it(unit: str) -> None:
    socket = settings(f"{unit}.socket")
    assert 2 <= int(socket["MaxConnections"]) <= 8
    assert socket["TriggerLimitIntervalSec"] == "0"
    assert "PollLimitIntervalSec" not in socket  # it only delays, and systemd 252 does not know it


@UNITS
def test_a_program_has_the_connection_alone_as_its_input_and_little_to_use(unit: str) -> None:
    service = settings(f"{unit}@.service")
    assert (service["StandardInput"], service["StandardOutput"]) == ("socket", "journal")
    assert int(service["TasksMax"]) <= 16
    assert service["MemoryMax"].endswith(("M", "G"))
    assert service["ExecStart"].split()[:4] == ["/usr/bin/python3", "-I", "-S", PROGRAM]
    assert ("--test" in service["ExecStart"]) == (unit == TEST_UNIT)


@UNITS
def test_no_limit_on_starts_refuses_a_connection_and_no_failed_one_stays_behind(unit: str) -> None:
    service = settings(f"{unit}@.service")
    assert (service["StartLimitIntervalSec"], service["CollectMode"]) == ("0", "inactive-or-failed")


@UNITS
def test_the_daemon_brings_its_sockets_and_ends_before_the_programs(unit: str) -> None:
    daemon = settings("rotator.service")
    assert f"{unit}.socket" in daemon["Wants"].split()
    assert settings(f"{unit}@.service")["Before"] == "rotator.service"


def test_a_connection_to_the_port_of_the_metrics_starts_no_daemon_and_takes_no_limit() -> None:
    socket, service = settings("rotator-metrics.socket"), settings("rotator-metrics.service")
    assert (socket["Service"], socket["TriggerLimitIntervalSec"]) == ("rotator-metrics.service", "0")
    assert (service["RemainAfterExit"], service["ExecStart"]) == ("yes", "/bin/true")
    assert service["StartLimitIntervalSec"] == "0"
    assert settings("rotator.service")["Sockets"] == "rotator-metrics.socket"


def test_the_holder_of_the_metrics_port_ends_with_its_socket_which_could_not_start_beside_it() -> None:
    service = settings("rotator-metrics.service")
    assert service["BindsTo"] == service["After"] == "rotator-metrics.socket"


@UNITS
def test_refused_connections_do_not_fill_the_journal(unit: str) -> None:
    assert settings(f"{unit}.socket")["LogLevelMax"] == "err"
