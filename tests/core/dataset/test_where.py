"""``--where``: what a condition chooses, that nothing is run by one, and what a bad one is told."""

import math
from typing import Any

import pytest

from rlhfblender_core.dataset.where import parse_where
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import EpisodeRecord


def episode(**fields: Any) -> EpisodeRecord:
    known: dict[str, Any] = {
        "experiment": "E",
        "checkpoint": "100000",
        "number": 7,
        "seed": 11,
        "episode_return": 120.5,
        "episode_length": 200,
        "terminated": True,
        "truncated": False,
        "request_digest": "",
    }
    return EpisodeRecord(**known | fields)


@pytest.mark.parametrize(
    "text",
    [
        "return>100 and length<500",
        "return > 100 and not truncated",
        "100 < return <= 120.5",
        "return > -1e3 or truncated",
        "(return > 1000 or length == 200) and terminated",
        "episode_return != 0 AND Return >= 120.5",
        "number in (3, 7) and number not in [8]",
        "number in 7",
        "number % 2 == 1 and return / length > 0.6",
        "seed == 11",
        "checkpoint == 100000 and checkpoint == '100000' and checkpoint > 20000",
        "checkpoint in ('best', 100000)",
        'experiment == "E"',
        "terminated == true and truncated == False",
        "truncated\n or terminated",
        "+return - 0.5 == 120",
    ],
)
def test_a_condition_chooses_the_episodes_that_meet_it(text: str) -> None:
    assert parse_where(text).matches(episode())
    assert not parse_where(f"not ({text})").matches(episode())


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("return < 0", {"episode_return": math.nan}),
        ("seed == 3", {"seed": None}),
        ("seed in (3, 4)", {"seed": None}),
        ("return / length > 1", {"episode_length": 0}),
        ("return * 0 == 1", {"episode_return": math.inf}),
        ("length % 0 == 1 and terminated", {}),
    ],
)
def test_neither_a_condition_nor_its_opposite_chooses_what_is_not_known(text: str, unknown: dict[str, Any]) -> None:
    assert not parse_where(text).matches(episode(**unknown))
    assert not parse_where(f"not ({text})").matches(episode(**unknown))


def test_what_is_decided_without_the_unknown_part_is_decided() -> None:
    without_seed = episode(seed=None)
    assert parse_where("seed == 3 or return > 100").matches(without_seed)
    assert parse_where("not (seed == 3 and return < 100)").matches(without_seed)


def test_the_best_checkpoint_is_neither_before_nor_after_a_step() -> None:
    best = episode(checkpoint="best")
    assert parse_where("checkpoint == 'best' and checkpoint != 5").matches(best)
    assert not parse_where("checkpoint < 5 or checkpoint >= 5").matches(best)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "give a condition"),
        ("   ", "give a condition"),
        ("retrun > 3", "did you mean return?"),
        ("lenght<500", "did you mean length?"),
        ("truncate", "did you mean truncated?"),
        ("reward > 3", "It knows return, length, number, seed"),
        ("checkpoint == best", "texts are quoted"),
        ("return = 3", "write '==' instead of '='"),
        ("return > 3 & length < 5", "write 'and' instead of '&'"),
        ("'keep' not in checkpoint", "'checkpoint' is no list of choices"),
        ("return > 3 || length < 5", "write 'or' instead of '||'"),
        ("!truncated", "write 'not' instead of '!'"),
        ("return", "is no condition"),
        ("return and terminated", "'return' is no condition"),
        ("3", "is no condition"),
        ("return > 'a'", "can't be compared"),
        ("terminated == 1", "'terminated' is true or false, '1' is a number"),
        ("experiment + 1 > 2", "'experiment' is no number"),
        ("return >", "can't be read"),
        ("return > 100 length < 5", "can't be read"),
        ("(return > 1", "can't be read"),
        ("return > 1\nimport os", "can't be read"),
        ("return ** 9 > 1", "has no meaning"),
        ("return is 3", "compare with"),
        ("abs(return) > 3", "has no meaning"),
        ("return.real > 3", "has no meaning"),
        ("__import__('os').system('true')", "has no meaning"),
        ("[terminated for terminated in (1,)]", "has no meaning"),
        ("(terminated := 1)", "has no meaning"),
        ("lambda: 1", "has no meaning"),
        ("terminated if truncated else terminated", "has no meaning"),
        ("return > 0x10", "has no meaning"),
        ("checkpoint == 'be\\x41'", "backslash"),
        ("checkpoint == f'{1}'", "has no meaning"),
        ("return > 1;", "has no meaning"),
        ("return > ½", "has no meaning"),
        ("return > 1" + " " * 1000, "at most 1,000 characters"),
        ("(" * 400 + "terminated" + ")" * 400, "can't be read"),
        ("not " * 200 + "terminated", "nested"),
        ("return > " + "-" * 900 + "1", "nested"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        parse_where(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "episode_return" not in str(caught.value)
