"""The ledger: what arrived is accounted for to the last trade, or it says what is not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.ledger import Ledger, NotStored

LOST_BEFORE = ("malformed", "duplicates", "history_dropped", "out_of_band", "sampled_out", "already_stored", "refused")
COUNTS = ("received", *LOST_BEFORE, "accepted", "stored", "not_stored")
ALL_COUNTS = (*COUNTS, "spilled")


@st.composite
def balanced(draw: st.DrawFn) -> Ledger:
    """A ledger that balances."""
    count = st.integers(0, 2**40)
    lost = {name: draw(count) for name in LOST_BEFORE}
    stored, not_stored = draw(count), draw(count)
    cause = draw(st.sampled_from(list(NotStored)) if not_stored else st.none() | st.sampled_from(list(NotStored)))
    accepted = stored + not_stored
    return Ledger(
        received=sum(lost.values()) + accepted,
        **lost,
        accepted=accepted,
        stored=stored,
        not_stored=not_stored,
        spilled=draw(st.integers(0, not_stored)),
        cause=cause,
    )


@given(balanced())
def test_balanced_has_no_problem(ledger: Ledger) -> None:
    assert ledger.problems() == []


@given(balanced(), st.sampled_from(COUNTS), st.integers(-(2**20), 2**20).filter(bool))
def test_one_wrong_number_never_balances(ledger: Ledger, name: str, error: int) -> None:
    """G5: no count may be off by one unnoticed, whichever it is."""
    wrong = msgspec.structs.replace(ledger, **{name: getattr(ledger, name) + error})
    assert wrong.problems()


def test_empty_run_balances() -> None:
    assert Ledger().problems() == []


def test_the_sentences_say_what_is_missing() -> None:
    ledger = Ledger(received=10, malformed=1, accepted=8, stored=9)
    assert ledger.problems() == [
        "received 10, but malformed 1 + duplicates 0 + history_dropped 0 + out_of_band 0 + sampled_out 0"
        " + already_stored 0 + refused 0 + accepted 8 = 9: 1 unaccounted for",
        "accepted 8, but stored 9 + not_stored 0 = 9: 1 too many",
    ]


def test_not_stored_needs_a_cause() -> None:
    ledger = Ledger(received=3, accepted=3, stored=1, not_stored=2)
    assert ledger.problems() == ["2 accepted but not stored, and no cause is named"]
    for cause in NotStored:
        assert msgspec.structs.replace(ledger, cause=cause).problems() == []


def test_no_more_is_spilled_than_was_not_stored() -> None:
    ledger = Ledger(received=3, accepted=3, stored=1, not_stored=2, spilled=3, cause=NotStored.STORAGE_FAILED)
    assert ledger.problems() == ["spilled 3, but only 2 were not stored"]


@pytest.mark.parametrize("name", ALL_COUNTS)
def test_negative_is_a_problem_even_when_the_sums_agree(name: str) -> None:
    counts = dict.fromkeys(ALL_COUNTS, 0) | {name: -1}
    ledger = Ledger(**counts, cause=NotStored.CRASHED)
    assert f"{name} is negative: -1" in ledger.problems()


def test_as_dict_is_plain_and_in_order() -> None:
    ledger = Ledger(received=2, accepted=2, stored=1, not_stored=1, cause=NotStored.STORAGE_FAILED)
    assert list(ledger.as_dict()) == [*ALL_COUNTS, "cause"]
    assert ledger.as_dict()["cause"] == "the storage failed"
    assert type(ledger.as_dict()["cause"]) is str
    assert Ledger().as_dict()["cause"] is None
