import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.errors import InvalidNameError
from rlhfblender_core.names import MAX_NAME_BYTES, checked_name, path_segment, same_but_for_case

LEAVES_ITS_FOLDER = ["../x", "..", ".", "a/b", "/a", "a\\b", "~", ".hidden", "a/../../b", "x\0y", "a\nb", "-rf", "a."]
UNUSABLE = [
    "",
    " ",
    "x" * 300,
    "ü" * 65,
    " a",
    "a ",
    "a:b",
    "a*",
    "CON",
    "nul.txt",
    "COM¹",
    "lpt³.txt",
    "con .x",
    "a\u202eb",
    "\ud800",
    "😀",
]


@pytest.mark.parametrize("name", [*LEAVES_ITS_FOLDER, *UNUSABLE])
def test_bad_names_are_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        checked_name(name, "experiment")
    line = str(caught.value)
    assert line.startswith("The experiment name ")
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize(
    "name", ["CartPole-v1_random_experiment", "100000", "Über mich", "a", "x" * MAX_NAME_BYTES, "a=1"]
)
def test_usual_names_stay_as_they_are(name: str) -> None:
    assert checked_name(name, "experiment") == name


@pytest.mark.parametrize(
    ("env_id", "segment"),
    [("ALE/Pong-v5", "ALE-Pong-v5"), ("CartPole-v1", "CartPole-v1"), ("package:Id-v0", "package-Id-v0")],
)
def test_environment_ids_become_path_segments(env_id: str, segment: str) -> None:
    assert path_segment(env_id) == segment


@pytest.mark.parametrize("env_id", ["../x", "a/../b", "a//b", "/a", "a/", "", "a/.", "x" * 300])
def test_environment_ids_that_could_leave_the_data_root_are_refused(env_id: str) -> None:
    with pytest.raises(InvalidNameError):
        path_segment(env_id)


@given(st.text())
def test_no_text_becomes_a_segment_that_leaves_its_folder(name: str) -> None:
    try:
        segment = path_segment(name)
    except InvalidNameError:
        return
    assert segment not in ("", ".", "..")
    assert not set(segment) & set("/\\\0:")
    assert len(segment.encode()) <= MAX_NAME_BYTES


def test_accents_that_are_characters_of_their_own_are_refused_with_the_name_to_write() -> None:
    with pytest.raises(InvalidNameError, match="write 'café', which looks the same"):
        checked_name("cafe\u0301", "experiment")
    assert checked_name("caf\u00e9", "experiment") == "caf\u00e9"


@pytest.mark.parametrize(("name", "other"), [("study", "Study"), ("STRASSE", "straße"), ("É", "é")])
def test_names_that_differ_in_case_only_are_found(name: str, other: str) -> None:
    assert same_but_for_case(name, ["x", other]) == other
    assert same_but_for_case(name, ["x", name]) is None
