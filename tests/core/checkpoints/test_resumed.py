"""What ``training.json`` beside a checkpoint says of interruptions; anybody may have written it."""

import json

import pytest

from rlhfblender_core.checkpoints.resumed import resumptions_before


def test_only_what_came_before_the_checkpoint_counts() -> None:
    entries = [{"step": step, "not_bit_equal": ["x" * 1000]} for step in (10, 20, 30)]
    content = json.dumps({"resumed_at": entries}).encode()
    found = resumptions_before(30, content)
    assert [each.step for each in found] == [10, 20]
    assert found[0].not_bit_equal == ("x" * 200,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"resumed_at": 3}',
        b'{"resumed_at": [3]}',
        b'{"resumed_at": [{"step": "x", "not_bit_equal": []}]}',
        b'{"resumed_at": [{"step": 1e999, "not_bit_equal": []}]}',
        b'{"resumed_at": [{"step": 3, "not_bit_equal": 4}]}',
        b'{"resumed_at": ' + b" " * 5 * 2**20 + b"[]}",
    ],
)
def test_what_is_not_understood_says_nothing(content: bytes) -> None:
    assert resumptions_before(30, content) == ()
