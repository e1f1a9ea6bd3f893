"""Which checkpoint a model is, from its file's name and those of its neighbours.

RL Zoo's and Stable-Baselines3's own names are known; in those of other trainers the training steps are the one number
that varies. Pure: nothing is opened here.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.dataset.layout import BEST, FINAL, RANDOM
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError
from rlhfblender_core.names import checked_name, path_segment

BEST_MODEL = "best_model"
#: Where the steps stand in a pattern of a user.
STEP_FIELD = "{step}"

_STEPS = re.compile(r"(?P<prefix>.*?)_?(?P<step>\d{1,15})_steps")
#: 10_000, 1e6, 10000, 500k, 1.5M; 0.99, which is no number of steps.
_NUMBER = re.compile(
    r"(?<!\d)(?<!\d[_,])(?P<grouped>\d{1,3}(?:[_,]000)+)(?!\d)"
    r"|(?<![A-Za-z0-9.])(?P<power>\d+(?:\.\d+)?[eE]\+?\d{1,2})(?![A-Za-z0-9])"
    r"|(?P<digits>\d+(?:\.\d+)?)(?P<unit>[kKmM](?![A-Za-z0-9]))?"
)
_UNITS = {"k": 10**3, "m": 10**6}
_STEPS_BEFORE = re.compile(r"(?i)(?:^|[^a-z])(?:time)?steps?[ _=-]*$")
_STEPS_AFTER = re.compile(r"(?i)[ _-]*(?:time)?steps?(?![a-z])")
#: A day, and the time of day after it: 2024-01-05, 20240105_123000. Seconds since 1970, too.
_DAY = re.compile(r"(?<!\d)(?:(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])|1[4-9]\d{8})(?!\d)")
_TIME = re.compile(_DAY.pattern + r"(?:[-_T ]+(?:[01]\d|2[0-3])([-_.:]?)[0-5]\d\2[0-5]\d(?!\d))?")
#: What is before a number of a seed, or in the name of a folder before that of a run.
_SEED_BEFORE = re.compile(r"(?i)(?:^|[^a-z])(?:seed|rank)[ _=-]*$")
_RUN_BEFORE = re.compile(rf"(?i)(?:^|[^a-z])(?:run|trial|exp|experiment|{'|'.join(Algorithm)})[ _=-]*$")
#: RL Zoo's folders, ``CartPole-v1_1``, have the number of a run, which is short.
_ZOO_RUN_BEFORE, _MOST_RUN_DIGITS = re.compile(r"-v\d{1,4}_$"), 3
_EXTENSION = re.compile(r"(?i)\.(zip|pkl|pth?)$")
_VERSION = re.compile(r"-v\d+$")
_MOST_DIGITS = 15
#: Each multiplies the ways in which a name may match; a registry's pattern is somebody else's.
_MOST_STARS = 3
_DEEPEST = 99
#: Labels that mean something by themselves.
_TAKEN = (BEST, FINAL, RANDOM, "all")
#: A number that stands alone among a model's neighbours: below, it is rather a seed or the number of a run.
_LEAST_LONE_STEP = 1000
_WORDS = {"best": BEST, "final": FINAL, "last": FINAL, "latest": FINAL}


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model's place among its neighbours.

    Attributes:
        label: ``"100000"``, ``"final"``, ``"best"``.
        step: training steps, None where the name doesn't say.
    """

    label: str
    step: int | None


def stem_of(name: str) -> str:
    """A model's name without ``.zip`` and the like; ``model.v2`` stays whole."""
    return _EXTENSION.sub("", name)


def callback_step(stem: str) -> re.Match[str] | None:
    """``<prefix>_<step>_steps``, as Stable-Baselines3's callback writes it, with those groups."""
    return _STEPS.fullmatch(stem)


def named_models(models: Collection[str], environment_id: str, pattern: str | None = None) -> dict[str, NamedModel]:
    """What the models of one folder are; those whose names say nothing are called by them.

    Args:
        models: paths in the folder, of files or of folders that hold a model each.
        environment_id: the environment that the agent is wanted for.
        pattern: the user's, with ``{step}`` in it, which leaves out models without; None to find the steps.

    Raises:
        CheckpointNotUsableError: more than one number varies in the names.
        InvalidParameterError: the pattern is none.
    """
    final = final_model(models, environment_id)
    named = {name: NamedModel(FINAL, None) for name in models if name == final}
    steps = _steps([name for name in models if name != final], pattern)
    named |= {name: NamedModel(str(step), step) for name, step in steps.items()}
    unnamed = [name for name in models if name not in named]
    for name in unnamed:
        word = _word(name)
        if word == BEST or (word == FINAL and final is None):
            named[name] = NamedModel(word, None)
    others = [name for name in models if name not in named]
    if pattern is None and len(others) == 1 and not any(known.label == FINAL for known in named.values()):
        named[others[0]] = NamedModel(FINAL, None)
    elif pattern is None:
        named |= {name: _by_its_name(name) for name in others}
    return _nearest(named)


def _nearest(named: Mapping[str, NamedModel]) -> dict[str, NamedModel]:
    """Of several of one label the nearest keeps it: ``backup/best_model.zip`` isn't the folder's best."""
    depths: dict[str, int] = {}
    for name, known in named.items():
        depths[known.label] = min(name.count("/"), depths.get(known.label, _DEEPEST))
    return {
        name: known if name.count("/") == depths[known.label] else _by_its_name(name) for name, known in named.items()
    }


def _by_its_name(name: str) -> NamedModel:
    plain = unicodedata.normalize("NFC", stem_of(name).replace("/", "-"))
    label = re.sub(r"[^\w.+=@()\[\], -]", "-", plain).strip("-. ")
    if label in _TAKEN or re.fullmatch(r"[\d:+-]*", label):
        label = f"model {label}".rstrip()
    return NamedModel(checked_name(label, "checkpoint"), None)


def _steps(models: list[str], pattern: str | None) -> dict[str, int]:
    """Training steps by name, for those whose names tell."""
    if pattern is not None:
        expression = step_pattern(pattern)
        # The extension may be left out on either side: unzipped models have none.
        stems = {name: stem_of(name) for name in models}
        found = {
            name: expression.fullmatch(stem) or expression.fullmatch(f"{stem}.zip") for name, stem in stems.items()
        }
        return {name: int(match[1]) for name, match in found.items() if match}
    steps: dict[str, int] = {}
    families: dict[str, dict[str, list[int | None]]] = defaultdict(dict)
    for name in models:
        stem = stem_of(name)
        if conventional := callback_step(stem):
            steps[name] = int(conventional["step"])
        elif numbers := _numbers(stem):
            families[_NUMBER.sub("\0", stem)][name] = numbers
    for family in families.values():
        steps |= _lone_step(*family) if len(family) == 1 else _varying_number(family)
    return steps


def _lone_step(name: str) -> dict[str, int]:
    """The number in a name without neighbours, if it can only be a number of steps."""
    stem = stem_of(name)
    alone = [part for part in stem.split("/") if part.isascii() and part.isdigit()]
    if len(alone) == 1:
        return {name: int(alone[0])} if len(alone[0]) <= _MOST_DIGITS else {}
    told = _called_steps(stem)
    if told is not None:
        numbers = _numbers(stem)
        return {name: step} if numbers and (step := numbers[told]) is not None else {}
    timeless = _TIME.sub(" ", stem)
    apart = [_value(number) for number in _NUMBER.finditer(timeless) if not _touches_letters(timeless, number)]
    large = [value for value in apart if value is not None and value >= _LEAST_LONE_STEP]
    return {name: large[0]} if len(large) == 1 else {}


def own_step(name: str) -> int | None:
    """The steps that a name tells without neighbours, as that of a folder around a model; None for none."""
    conventional = callback_step(name)
    return int(conventional["step"]) if conventional else _lone_step(name).get(name)


def _called_steps(stem: str) -> int | None:
    """Which number is called steps, None if none is or several are: the first in ``step=100-loss=3``."""
    numbers = list(enumerate(_NUMBER.finditer(stem)))
    before = [n for n, number in numbers if _STEPS_BEFORE.search(stem[: number.start()])]
    found = before or [n for n, number in numbers if _STEPS_AFTER.match(stem[number.end() :])]
    return found[0] if len(found) == 1 else None


def _touches_letters(stem: str, number: re.Match[str]) -> bool:
    before, after = stem[: number.start()][-1:], stem[number.end() :][:1]
    return before.isalnum() or after.isalnum()


def _varying_number(family: Mapping[str, list[int | None]]) -> dict[str, int]:
    """The one number in which these names differ, if it can be a number of steps.

    Raises:
        CheckpointNotUsableError: they differ in several.
    """
    columns = list(zip(*family.values(), strict=True))
    varying = [n for n, column in enumerate(columns) if len(set(column)) > 1]
    # Names that differ in how a number is written (007 and 7) have none that varies; their labels clash later.
    found = [n for n in varying or [len(columns) - 1] if None not in columns[n]]
    first = stem_of(next(iter(family)))
    told = _called_steps(first)
    if len(found) > 1 and told in found:
        found = [told]
    if len(found) > 1:
        some = " and ".join(repr(name) for name in sorted(family)[:2])
        is_each_once = len(set(columns[-1])) == len(family)
        raise CheckpointNotUsableError(
            f"The names {some} differ in {len(varying)} numbers: which are the training steps? Say it with "
            f"--checkpoint-pattern, for example {example_pattern(sorted(family)[0], of_all=is_each_once)!r}."
        )
    steps = zip(family, columns[found[0]], strict=True) if found and not _is_something_else(first, found[0]) else ()
    return {name: step for name, step in steps if step is not None}


def _is_something_else(stem: str, place: int) -> bool:
    """Whether a name's number is that of a seed, of a run's folder, or a part of a day."""
    number = list(_NUMBER.finditer(stem))[place]
    before, after = stem[: number.start()], stem[number.end() :]
    is_zoo_run = len(number[0]) <= _MOST_RUN_DIGITS and _ZOO_RUN_BEFORE.search(before)
    is_run = after.startswith("/") and (is_zoo_run or _RUN_BEFORE.search(before))
    is_day = any(day.start() <= number.start() < day.end() for day in _DAY.finditer(stem))
    return bool(is_run or is_day or _SEED_BEFORE.search(before))


def example_pattern(name: str, *, of_all: bool = True) -> str:
    """A pattern that the last number of a name would be the steps of.

    Args:
        name: of one model.
        of_all: whether it stands for names with other numbers before, too: several runs have the same steps.
    """
    numbers = [number for number in _NUMBER.finditer(stem_of(name)) if _value(number) is not None]
    if not numbers:
        return STEP_FIELD
    last = numbers[-1]
    before = _NUMBER.sub("*", name[: last.start()]) if of_all else name[: last.start()]
    return f"{before}{STEP_FIELD}{name[last.end() :]}"


def step_pattern(pattern: str) -> re.Pattern[str]:
    """What a user's pattern matches: ``{step}`` is the number, ``*`` anything.

    Raises:
        InvalidParameterError: it has not exactly one ``{step}``, or very many stars.
    """
    if pattern.count(STEP_FIELD) != 1:
        raise InvalidParameterError(
            f"--checkpoint-pattern needs {STEP_FIELD} once, where the training steps stand in the names, not "
            f"{pattern[:80]!r}. Example: 'ppo_vec_{STEP_FIELD}.zip'"
        )
    if pattern.count("*") > _MOST_STARS:
        raise InvalidParameterError(f"--checkpoint-pattern takes at most {_MOST_STARS} stars, not {pattern[:80]!r}.")
    before, after = (".*".join(map(re.escape, part.split("*"))) for part in pattern.split(STEP_FIELD))
    # The number is whole: "*{step}" doesn't leave its first digits to the star.
    return re.compile(rf"{before}(?<!\d)(\d{{1,{_MOST_DIGITS}}})(?!\d){after}")


def _numbers(stem: str) -> list[int | None]:
    found = list(_NUMBER.finditer(stem))
    return [_value(number) for number in found] if all(len(number[0]) <= _MOST_DIGITS for number in found) else []


def _value(number: re.Match[str]) -> int | None:
    """The number; None for one that isn't whole."""
    if number["grouped"] is not None:
        return int(re.sub("[_,]", "", number["grouped"]))
    if number["power"] is not None:
        return round(float(number["power"]))
    if "." not in number["digits"] and number["unit"] is None:
        return int(number["digits"])
    return None if number["unit"] is None else round(float(number["digits"]) * _UNITS[number["unit"].lower()])


def _word(name: str) -> str | None:
    words = re.split(r"[^a-z]+", stem_of(name).lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def final_model(models: Iterable[str], environment_id: str) -> str | None:
    """The model that is named after the environment, in any version and maybe behind a prefix; None for none.

    Raises:
        CheckpointNotUsableError: several are, and none more than the others.
    """
    others = [name for name in models if stem_of(name) != BEST_MODEL and not callback_step(stem_of(name))]
    segment = path_segment(environment_id)
    # Without its namespace too: Pong-v5 for ALE/Pong-v5.
    for wanted in dict.fromkeys((segment, path_segment(environment_id.rpartition("/")[2]))):
        for fits in (_is_same, _has_same_base, _ends_with_base):
            matching = [name for name in others if fits(stem_of(name), wanted)]
            # Of several versions, the newest.
            newest = [name for name in matching if _version(name) == max(map(_version, matching))]
            if len(newest) > 1:
                raise CheckpointNotUsableError(
                    f"Both {newest[0]!r} and {newest[1]!r} are named after {environment_id}. Give the path of one."
                )
            if newest:
                return newest[0]
    return None


def _is_same(stem: str, wanted: str) -> bool:
    return stem == wanted


def _has_same_base(stem: str, wanted: str) -> bool:
    return base_of(stem) == base_of(wanted)


def _ends_with_base(stem: str, wanted: str) -> bool:
    """``ppo-CartPole-v1``, as models on hubs are named, and ``ppo_CartPole-v1``."""
    return base_of(stem).endswith((f"-{base_of(wanted)}", f"_{base_of(wanted)}"))


def base_of(name: str) -> str:
    """An id, or a folder's name that is one, without its version."""
    return _VERSION.sub("", name)


def _version(name: str) -> int:
    match = re.search(r"-v(\d{1,9})$", stem_of(name))
    return int(match[1]) if match else -1
