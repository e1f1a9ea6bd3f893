"""What a user's agent is, for the digest: its code and the files that it is given, by content and not by place.

Nothing is imported: imports are read from the code. Code that is found no other way (C extensions, names that are put
together while it runs) isn't seen; ``version`` on the factory is the way to say what such an agent is.
"""

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.manifests import canonical_digest, file_digest
from rlhfblender_core.errors import InvalidParameterError

#: Files of a folder that is named; a checkpoint has a handful.
_MOST_FILES = 10_000


def code_digest(module: str) -> str:
    """Sha256 in hex over a module's code and that of the modules beside it that it imports.

    Of an installed package, the modules of the same package count; of other code, all that lie below the same folder.

    Args:
        module: importable, by its dotted name.
    """
    origin = _origin(module)
    if origin is None:
        return canonical_digest([module])
    root = origin.parents[module.count(".") + (origin.name == "__init__.py")]
    only = module.partition(".")[0] if root in _installed() else None
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for part in _with_parents(name):
            file = _file(root, part)
            if part not in found and file is not None and (only is None or part.partition(".")[0] == only):
                found[part] = file_digest(file)
                waiting += _imports(file, part)
    return canonical_digest(found)


def _origin(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None or not Path(spec.origin).is_file() else Path(spec.origin)


def _installed() -> set[Path]:
    return {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _file(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def _imports(file: Path, name: str) -> Iterator[str]:
    """Names of modules that the code may import; some are attributes of modules, which have no file."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing it tells what is wrong
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*filter(None, base), *([node.module] if node.module else [])])
            if source:
                yield source
            yield from (f"{source}.{alias.name}" if source else alias.name for alias in node.names)


def content_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments with the sha256 of each file or folder in place of its path.

    Raises:
        InvalidParameterError: a folder has very many files.
    """
    return {name: _content(value, name) for name, value in kwargs.items()}


def with_absolute_paths(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments with the files and folders that they name as absolute paths: found from anywhere."""
    return {name: str(path.absolute()) if (path := _path(value)) else value for name, value in kwargs.items()}


def _path(value: Any) -> Path | None:
    """The file or folder that a text names, if it is a path: with a separator, or an extension, and there."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    path = Path(value).expanduser()
    try:
        return path if (path.is_file() or (path.is_dir() and "/" in value)) else None
    except OSError:  # too long for a name
        return None


def _content(value: Any, name: str) -> Any:
    path = _path(value)
    if path is None:
        return value
    if path.is_file():
        return {"sha256": file_digest(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if len(files) > _MOST_FILES:
        raise InvalidParameterError(f"--agent-kwargs {name}: {value} has more than {_MOST_FILES:,} files.")
    return {"sha256": canonical_digest({str(file.relative_to(path)): file_digest(file) for file in files})}
