"""A client that is not installed is named: as a skip, and in CI as a failure."""

from __future__ import annotations

import pytest

from tests.clients.conftest import require

NAMED = "apt-get install --no-install-recommends chromium libnss3-tools"


def test_a_missing_client_is_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=NAMED):
        require("chromium", "certutil")


def test_in_ci_a_missing_client_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=NAMED):
        require("chromium", "certutil")
