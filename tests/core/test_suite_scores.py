"""What a suite's score goes with."""

from typing import Any

import pytest
from pydantic import ValidationError
from synthetic_runs import TOY
from synthetic_searches import REACH

from urlbench.core.types import Normaliser, Suite


def changed(suite: Suite = TOY, **changes: Any) -> Suite:
    return Suite.model_validate(suite.model_dump() | changes)


@pytest.mark.parametrize(
    ("suite", "changes", "words"),
    [
        (TOY, {"score": "goals_found"}, "with score goals_found has no search in preset 'paper'"),
        (REACH, {"score": "success_rate"}, "with score success_rate has a search in preset 'paper'"),
        (TOY, {"normaliser": None}, "with score normalised_return has no normaliser"),
        (TOY, {"score": "success_rate"}, "with score success_rate has a normaliser"),
        (TOY, {"score": "subtasks", "normaliser": None}, "with score subtasks has no number of subtasks"),
        (TOY, {"subtasks": 4}, "with score normalised_return has a number of subtasks"),
    ],
)
def test_a_score_and_what_it_goes_with_belong_together(suite: Suite, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(suite, **changes)


def test_every_score_can_be_declared() -> None:
    assert changed(score="success_rate", normaliser=None).score == "success_rate"
    assert changed(score="subtasks", normaliser=None, subtasks=4).subtasks == 4
    assert (changed().score, changed(REACH).score) == ("normalised_return", "goals_found")


def test_a_score_is_never_left_open() -> None:
    whole = TOY.model_dump()
    del whole["score"]
    with pytest.raises(ValidationError, match="score"):
        Suite.model_validate(whole)


def test_a_normaliser_has_a_reference_of_every_task_above_its_floor() -> None:
    one: dict[str, Any] = {"name": "toy", "version": 1, "source": "made up"}
    assert Normaliser(**one, references={"a": 2.0}).floors == {}
    with pytest.raises(ValidationError, match="the reference 2 of a is not above 2"):
        Normaliser(**one, references={"a": 2.0}, floors={"a": 2.0})
    with pytest.raises(ValidationError, match="the floor of b has no reference beside it"):
        Normaliser(**one, references={"a": 2.0}, floors={"b": 1.0})
    with pytest.raises(ValidationError, match="has no reference of walker_run"):
        changed(normaliser={**one, "references": {"walker_walk": 1.0, "arm_left": 1.0}})
