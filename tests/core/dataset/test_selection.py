"""``--episodes 3,5-9`` and ``--where``: which episodes they choose together."""

import pickle

import pytest

from rlhfblender_core.dataset.selection import EVERYTHING, parse_episode_numbers, parse_selection
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import EpisodeRecord


def episode(number: int, episode_return: float = 0.0) -> EpisodeRecord:
    return EpisodeRecord(
        experiment="E",
        checkpoint="random",
        number=number,
        seed=1,
        episode_return=episode_return,
        episode_length=5,
        terminated=True,
        truncated=False,
        request_digest="",
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", [3]),
        ("3,5-9", [3, 5, 6, 7, 8, 9]),
        (" 9 - 9 , 0", [0, 9]),
        ("5-9,3,7-12,4", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("1-3,1-8,2", [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_numbers_and_spans_are_read(text: str, numbers: list[int]) -> None:
    named = parse_episode_numbers(text)
    assert [number for number in range(20) if number in named] == numbers


def test_a_huge_span_is_small() -> None:
    named = parse_episode_numbers("0-999999999999999999")
    assert 123_456_789 in named
    assert len(named.spans) == 1


@pytest.mark.parametrize("text", ["", "a", "3,", "3;4", "-3", "1-2-3", "1.5", "9-5", "٣", "1" * 30, "3 4"])
def test_what_names_no_numbers_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidParameterError, match="--episodes") as caught:
        parse_episode_numbers(text)
    assert "\n" not in str(caught.value)


def test_both_have_to_be_met_and_nothing_given_is_everything() -> None:
    both = parse_selection("1-3", "return > 10")
    assert [both.matches(episode(n, r)) for n, r in ((1, 11), (1, 9), (4, 11))] == [True, False, False]
    assert str(both) == "--episodes 1-3 --where 'return > 10'"
    assert parse_selection() == EVERYTHING
    assert EVERYTHING.is_everything
    assert EVERYTHING.matches(episode(99))


def test_a_selection_travels_between_processes() -> None:
    arrived = pickle.loads(pickle.dumps(parse_selection("1-3", "return > 10")))
    assert str(arrived) == "--episodes 1-3 --where 'return > 10'"
    assert arrived.matches(episode(2, 11))
    assert not arrived.matches(episode(2, 9))
