"""Draws docs/images/architecture.svg from the imports: rooms on floors, each above what it imports.

``python docs/draw_architecture.py`` writes the picture; a test compares it with what is there.
"""

from collections import defaultdict
from html import escape
from pathlib import Path

import grimp

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "images" / "architecture.svg"
PACKAGES = ("flows", "tasks", "rlhfblender_core")
COLOURS = {"flows": "#dbeafe", "tasks": "#dcfce7", "rlhfblender_core": "#f3f4f6"}
WIDTH, BOX_HEIGHT, FLOOR = 1000, 34, 74

Imports = dict[str, set[str]]


def room_of(module: str) -> str | None:
    """The room of a module: a folder, or a module beside the folders; None for a package itself."""
    package, *inside = module.split(".")
    if package == "tasks" or (package == "flows" and not (REPOSITORY / "flows" / "".join(inside[:1])).is_dir()):
        return package
    return f"{package}.{inside[0]}" if inside else (None if package == "rlhfblender_core" else package)


def imports_between_rooms() -> Imports:
    """Which rooms each room imports."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: Imports = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            here, there = room_of(module), room_of(imported)
            if here and there and here != there:
                found[here].add(there)
                found[there] |= set()
    return dict(found)


def floors(imports: Imports) -> dict[str, int]:
    """The floor of each room: one above the highest room that it imports."""
    known: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in known:
            known[room] = 1 + max((floor(other) for other in imports[room]), default=-1)
        return known[room]

    for room in imports:
        floor(room)
    return known


def without_shortcuts(imports: Imports) -> Imports:
    """The imports that no chain of others stands for."""

    def reachable(room: str) -> set[str]:
        return imports[room].union(*(reachable(other) for other in imports[room]))

    return {
        room: {other for other in others if not any(other in reachable(third) for third in others - {other})}
        for room, others in imports.items()
    }


def draw() -> str:
    """The picture as SVG."""
    imports = imports_between_rooms()
    on_floor: dict[int, list[str]] = defaultdict(list)
    for room, floor in sorted(floors(imports).items()):
        on_floor[floor].append(room)
    highest = max(on_floor)
    boxes: dict[str, tuple[float, float, float]] = {}
    for floor, rooms in on_floor.items():
        for number, room in enumerate(rooms):
            width = 30 + 8.2 * len(label(room))
            boxes[room] = (WIDTH * (number + 0.5) / len(rooms), 20 + FLOOR * (highest - floor), width)
    lines = [
        f'<path d="M{boxes[a][0]:.0f} {boxes[a][1] + BOX_HEIGHT:.0f} L{boxes[b][0]:.0f} {boxes[b][1]:.0f}"/>'
        for a, others in sorted(without_shortcuts(imports).items())
        for b in sorted(others)
    ]
    rectangles = [box(room, *boxes[room]) for room in sorted(boxes)]
    height = 20 + FLOOR * (highest + 1)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            '<g stroke="#9ca3af" stroke-width="1.2" fill="none">',
            *lines,
            "</g>",
            *rectangles,
            "</svg>\n",
        )
    )


def label(room: str) -> str:
    """``planning``, ``flows/cli``."""
    return room.removeprefix("rlhfblender_core.").replace(".", "/")


def box(room: str, x: float, y: float, width: float) -> str:
    """A room's rectangle with its name."""
    colour = COLOURS[room.partition(".")[0]]
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{colour}" stroke="#374151"/>'
        f'<text x="{x:.0f}" y="{y + 22:.0f}" font-size="14" text-anchor="middle">{escape(label(room))}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
