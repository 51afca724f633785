"""What stands more than once, because the privileged step imports nothing, is the same everywhere."""

from __future__ import annotations

from rotator.config import value_parsers
from rotator.core.model import MAX_FILE
from rotator.privsep import apply as privileged
from rotator.system import files


def test_a_file_has_one_size_at_which_it_is_refused() -> None:
    assert privileged.MAX_FILE == MAX_FILE


def test_every_stored_file_that_the_privileged_step_accepts_can_be_read_back() -> None:
    assert privileged.MAX_FILE <= files.MAX_READ


def test_the_privileged_step_accepts_the_site_names_of_the_configuration_alone() -> None:
    for name in ("a", "a.b", "a-b_c.d", "0", "a" * 64, "A", "", "a" * 65, "pairs", "a..b", "a.conf", "a.", "-a", "é"):
        try:
            is_configured = value_parsers.site_name(name) == name
        except value_parsers.BadValueError:
            is_configured = False
        assert bool(privileged.SITE.match(name)) is is_configured, name
