"""The page of codes explains every reason that an outcome or an error can have."""

from __future__ import annotations

from rotator.core.problems import Code
from rotator.core.reasons import Reason
from tests.support.pages import between, page, words


def test_every_member_of_the_reasons_is_explained() -> None:
    explained = {*words(between(page("codes"), "reasons")), *words(between(page("codes"), "results"))}
    assert set(Reason) - explained - set(Code) == set()
