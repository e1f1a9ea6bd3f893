"""Whose words about environments are acted on: the one gate between a data root and code that runs.

A registry and manifests may be somebody else's. What they say an environment is made from (a module in its id, an
entry point, packages, keyword arguments) counts only where an installed package declares it, this user has named it
before, or the operator of this machine trusts the package. Importing a package is running it, so nothing that is
named is imported to find out. What the user names now is remembered outside the data root, in a file of the user's
own, with the place of the registry: a copied registry elsewhere is another one.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gymnasium.envs.registration import EnvSpec

from rlhfblender_core.environments.packages import PACKAGES
from rlhfblender_core.environments.parse import env_kwarg_text
from rlhfblender_core.environments.registration import (
    entry_point_text,
    known_registration,
    known_registrations,
    split_module,
)
from rlhfblender_core.environments.spec import EnvironmentSpec, JSONValue
from rlhfblender_core.errors import EnvironmentNotTrustedError

#: Groups of entry points by which distributions declare environments; Gymnasium imports them by itself.
_PLUGINS = "gymnasium.envs"
#: Of one flag in a message.
_MOST_SHOWN = 500
#: Texts in an agent's settings that can't name a module, an attribute or a file.
_WORD = re.compile(r"[\w -]*")


@dataclass(frozen=True)
class _Claim:
    """One thing that is said about how an environment is made."""

    kind: str
    name: str
    value: JSONValue = None


@dataclass(frozen=True)
class Trust:
    """What may be made, besides what installed packages declare.

    Attributes:
        registry: where the registry is (:func:`rlhfblender_core.registry.registry_location`).
        memory: the user's file of what was named before; None remembers nothing.
        packages: those whose environments may be made as any registry says, by the name that Python imports.
    """

    registry: str = ""
    memory: Path | None = None
    packages: frozenset[str] = frozenset()

    def admit(self, spec: EnvironmentSpec, named: EnvironmentSpec | None = None) -> None:
        """Lets an environment be made, and remembers what the user has named of it.

        Args:
            spec: how it would be made.
            named: what of it the user has named just now; None for nothing.

        Raises:
            EnvironmentNotTrustedError: some of it is only the registry's or a manifest's word.
        """
        asked = {_digest(named.env_id, claim) for claim in _claims(named)} if named is not None else set()
        self._check(spec, asked)
        self._remember(asked)

    def admit_agent_kwargs(self, spec: EnvironmentSpec, kwargs: Mapping[str, JSONValue]) -> None:
        """Lets an environment be made with keyword arguments that a checkpoint's settings name.

        Numbers and plain words can't name code or files and pass; anything else is as in :meth:`admit`.

        Args:
            spec: the environment as admitted; its own keyword arguments win.
            kwargs: the settings' ones.

        Raises:
            EnvironmentNotTrustedError: one of them could name code or a file.
        """
        doubtful = {
            name: value for name, value in kwargs.items() if name not in spec.kwargs and not _is_plain_value(value)
        }
        if not doubtful:
            return
        whole = replace(spec, kwargs={**doubtful, **spec.kwargs})
        self._check(whole, {_digest(spec.env_id, claim) for claim in _claims(spec)})

    def admit_agent(self, entry_point: str, kwargs: Mapping[str, JSONValue], *, is_named: bool) -> None:
        """Lets an agent of a user's own code be made, and remembers it where the user has named it.

        Args:
            entry_point: ``package.module:factory``.
            kwargs: for the factory.
            is_named: whether the user has named it and its arguments just now, and not the registry alone.

        Raises:
            EnvironmentNotTrustedError: only the registry says so.
        """
        digest = _digest(entry_point, _Claim("agent", entry_point, dict(kwargs)))
        if is_named:
            self._remember({digest})
        elif not self._is_trusted_package(entry_point) and self._keyed(digest) not in self._remembered():
            words = ["--agent", entry_point]
            if kwargs:
                words += ["--agent-kwargs", *(env_kwarg_text(name, value) for name, value in kwargs.items())]
            raise EnvironmentNotTrustedError(
                "The experiment's agent is named by the registry alone, which is somebody's code until you say "
                f"otherwise. If you trust it, name it once: {_shell(words)}"
            )

    def _check(self, spec: EnvironmentSpec, asked: Set[str]) -> None:
        unknown = [claim for claim in _claims(spec) if _digest(spec.env_id, claim) not in asked]
        known = self._remembered() if unknown else set()
        unknown = [claim for claim in unknown if self._keyed(_digest(spec.env_id, claim)) not in known]
        if any(not self._is_declared(spec, claim) for claim in unknown):
            raise EnvironmentNotTrustedError(
                f"{_printable(spec.env_id)} would be made with what only the registry or a manifest names, which is "
                "somebody's code until you say otherwise. If you trust it, name it once: "
                f"`python flows/register.py {_flags(spec)}`."
            )

    def _is_declared(self, spec: EnvironmentSpec, claim: _Claim) -> bool:
        if claim.kind == "keyword argument":
            return self._is_declared_kwarg(spec, claim)
        if self._is_trusted_package(claim.name):
            return True
        return (
            _is_declared_entry_point(claim.name) if claim.kind == "entry point" else claim.name in _declared_modules()
        )

    def _is_declared_kwarg(self, spec: EnvironmentSpec, claim: _Claim) -> bool:
        registration = known_registration(spec.env_id)
        maker = spec.entry_point or (registration and entry_point_text(registration.entry_point))
        if maker and self._is_trusted_package(maker):
            return True
        if registration is None or _declared_maker(registration) is None or claim.name not in registration.kwargs:
            return False
        return bool(registration.kwargs[claim.name] == claim.value)

    def _is_trusted_package(self, dotted: str) -> bool:
        module = dotted.partition(":")[0]
        return any(module == package or module.startswith(f"{package}.") for package in self.packages)

    def _keyed(self, digest: str) -> str:
        return hashlib.sha256(f"{self.registry}\n{digest}".encode()).hexdigest()

    def _remembered(self) -> set[str]:
        if self.memory is None:
            return set()
        with contextlib.suppress(OSError, UnicodeDecodeError):  # no memory is an empty one
            return set(self.memory.read_text().split())
        return set()

    def _remember(self, digests: Iterable[str]) -> None:
        new = {self._keyed(digest) for digest in digests} - self._remembered()
        if self.memory is None or not new:
            return
        # Where it can't be kept (a container's home), what is named counts for this command alone.
        with contextlib.suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # One small write that appends: commands that do this at the same moment lose nothing.
            descriptor = os.open(self.memory, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, "".join(f"{line}\n" for line in sorted(new)).encode())
            finally:
                os.close(descriptor)


#: Nothing is named and nothing remembered: what installed packages declare, and no more.
ONLY_DECLARED = Trust()


def _claims(spec: EnvironmentSpec) -> Iterator[_Claim]:
    module, _ = split_module(spec.env_id)
    if module is not None:
        yield _Claim("module", module)
    if spec.entry_point is not None:
        yield _Claim("entry point", spec.entry_point)
    for package in spec.additional_packages:
        yield _Claim("package", package)
    for name, value in spec.kwargs.items():
        yield _Claim("keyword argument", name, value)


def _digest(env_id: str, claim: _Claim) -> str:
    said = [env_id, claim.kind, claim.name, claim.value]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@cache
def _declared_modules() -> frozenset[str]:
    """Modules that register environments, as installed distributions and our own table say."""
    declared = [entry_point.module for entry_point in importlib.metadata.entry_points(group=_PLUGINS)]
    modules = [*declared, *(package.module for package in PACKAGES if package.module is not None)]
    return frozenset({*modules, *(module.partition(".")[0] for module in modules)})


def _is_declared_entry_point(entry_point: str) -> bool:
    return any(_declared_maker(known) == entry_point for known in known_registrations())


def _declared_maker(registration: EnvSpec) -> str | None:
    """The entry point of what Gymnasium or a declared package registered.

    A module that was imported in this process because another request named it may have registered environments, too.
    """
    maker = entry_point_text(registration.entry_point)
    is_declared = maker is not None and maker.partition(":")[0].partition(".")[0] in {"gymnasium", *_declared_modules()}
    return maker if is_declared else None


def _is_plain_value(value: JSONValue) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, list):
        return all(map(_is_plain_value, value))
    if isinstance(value, dict):
        return all(map(_is_plain_value, value.values()))
    return True


def _flags(spec: EnvironmentSpec) -> str:
    """The flags that name all of it, as a shell takes them."""
    words = ["--env", spec.env_id]
    if spec.entry_point is not None:
        words += ["--env-gym-entrypoint", spec.entry_point]
    if spec.additional_packages:
        words += ["--additional-gym-packages", *spec.additional_packages]
    if spec.kwargs:
        words += ["--env-kwargs", *(env_kwarg_text(name, value) for name, value in spec.kwargs.items())]
    return _shell(words)


def _shell(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(_printable(word)) for word in words)


def _printable(word: str) -> str:
    """The word without control characters, and without its end where it is endless: it is somebody else's."""
    shown = word if word.isprintable() else ascii(word)[1:-1]
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
