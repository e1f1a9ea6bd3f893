"""Pickles that reach for their reader, or cost more than they weigh. Controls: Python's own unpickler gives way."""

import io
import pickle
from typing import Any

import pytest

from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError, load_inert, load_restricted
from rlhfblender_core.untrusted.placeholders import ORDERED_DICT, Builder
from tests.support.hostile_files import (
    bounded,
    colliding_keys,
    copying_pickle,
    setting_state,
    state_of_shared_classes,
    unfolding_key,
    unfolding_pickle,
)

DICT_STATE = b"}U\x06originU\x04evils"
SLOT_STATE = b"N}U\x06originU\x04evils\x86"
NAMES = ["numpy.dtype", "gymnasium.spaces.box.Box", "collections.OrderedDict", "builtins.set", "_codecs.encode"]


def function_of_ours() -> None:
    """What a pickle shouldn't change."""


class _Looking(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return function_of_ours


@pytest.mark.parametrize("state", [DICT_STATE, SLOT_STATE])
def test_state_of_what_a_name_stands_for_can_not_be_set(state: bytes) -> None:
    content = setting_state("some.function", state)
    _Looking(io.BytesIO(content)).load()
    assert function_of_ours.__dict__.pop("origin") == "evil", "the control changed nothing: this test shows nothing"
    with pytest.raises(DamagedPickleError, match="it changes a"):
        load_restricted(io.BytesIO(content), lambda _: function_of_ours)
    assert not function_of_ours.__dict__


@pytest.mark.parametrize("name", [*NAMES, "no.such.name"])
@pytest.mark.parametrize("state", [DICT_STATE, SLOT_STATE, b"K\x01", b"N", b")"])
def test_no_pickle_changes_what_is_shared(name: str, state: bytes) -> None:
    before = state_of_shared_classes()
    with pytest.raises(DamagedPickleError):
        load_inert(setting_state(name, state))
    assert state_of_shared_classes() == before


def test_state_is_set_once_and_never_of_a_container() -> None:
    made = b"cgymnasium.spaces.box\nBox\n)\x81"
    assert load_inert(b"\x80\x02" + made + b"}b.").state == {}
    for content in (made + b"}b}b", b"]}b", b")}b", b"U\x01a}b"):
        with pytest.raises(DamagedPickleError, match="it changes"):
            load_inert(b"\x80\x02" + content + b".")


def test_attributes_of_an_ordered_dict_are_passed_over() -> None:
    """Torch's have some; one called ``items`` would be called by whoever reads the dict."""
    held = load_inert(b"\x80\x02ccollections\nOrderedDict\n)R(U\x01aK\x01u}U\x05itemsK\x02sb.")
    assert held == {"a": 1}
    assert type(held) is dict


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(unfolding_pickle(), id="list of the same list"),
        pytest.param(unfolding_pickle(leaf=b"]"), id="empty lists"),
        pytest.param(unfolding_pickle(2, 60), id="narrow and deep"),
        pytest.param(unfolding_key(), id="key"),
        pytest.param(copying_pickle(), id="copies"),
        pytest.param(colliding_keys(), id="colliding keys"),
        pytest.param(b"\x80\x04" + b"(" * 200_000, id="marks without end"),
        pytest.param(b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".", id="deep"),
        pytest.param(b"\x80\x04]\x94h\x00a.", id="itself"),
        pytest.param(b"\x80\x04)" + b"\x85" * 100_000 + b".", id="nested tuples"),
        pytest.param(b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.", id="nested tuples as a key"),
        pytest.param(b"\x80\x04\x8b" + (10_000).to_bytes(4, "little") + b"\x7f" * 10_000 + b".", id="large number"),
        pytest.param(b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".", id="claims bytes"),
        pytest.param(b"\x80\x04\x82\x01.", id="extension"),
        pytest.param(b"\x80\x04(" + b"\x8f" * 200_000 + b"t" * 2 + b".", id="sets"),
    ],
)
def test_what_unfolds_is_refused_before_it_does(content: bytes) -> None:
    with bounded(), pytest.raises(DamagedPickleError):
        load_inert(content)


def test_shared_bytes_are_counted_as_often_as_they_are_named() -> None:
    """An array of a megabyte under a thousand names would become a gigabyte."""
    content = b"\x80\x04B" + (2**20).to_bytes(4, "little") + bytes(2**20) + b"\x94(" + b"h\x00" * 1000 + b"t."
    with bounded(), pytest.raises(DamagedPickleError, match="too many bytes"):
        load_inert(content)


def test_only_placeholders_and_builders_can_be_called() -> None:
    for value in (print, dict, object(), "text"):
        with pytest.raises(DamagedPickleError, match="it calls"):
            load_restricted(io.BytesIO(b"\x80\x02ca\nb\n)R."), lambda _, value=value: value)
    with pytest.raises(RefusedPickleError, match=r"os\.system"):
        load_inert(b"\x80\x02cos\nsystem\nU\x04true\x85R.")
    assert load_restricted(io.BytesIO(b"\x80\x02ca\nb\n)R."), lambda _: Builder("b", lambda: 3)) == 3
    assert isinstance(ORDERED_DICT, tuple)


def test_refused_name_can_not_break_the_line() -> None:
    with pytest.raises(RefusedPickleError, match=r"^a\?b\.c\?\[31m$"):
        load_inert(b"\x80\x04\x8c\x03a\nb\x8c\x06c\x1b[31m\x93)R.")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read_as_python_reads_it(protocol: int) -> None:
    value = {
        "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**70, 1.5, float("inf"), True, False, None],
        "texts": ["", "a", "\N{SNOWMAN}" * 100, "x" * 300, b"", bytes(300), ("t", ("u",)), (1, 2, 3, 4)],
        "nested": {"a": {(1, 2): [set(), {1, 2}]}, 3: [[], {}, ()]},
    }
    value["again"] = value["numbers"]
    if protocol < 4:  # older ones write sets and bytes by calling functions of other names
        value["texts"], value["nested"] = ["", "a", "\N{SNOWMAN}"], {"a": (1, [2])}
    content = pickle.dumps(value, protocol)
    assert load_inert(content) == pickle.loads(content)
