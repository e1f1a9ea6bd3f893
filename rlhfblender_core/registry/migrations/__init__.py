"""The history of the registry's tables: Alembic's environment and one module per revision.

Listed here so that opening a registry of today's revision needs no Alembic; a test compares the list with the files.
"""

#: The tables that each revision makes, oldest first.
TABLES = {
    "0001": frozenset({"projects", "environments", "experiments", "checkpoints", "episodes"}),
    "0002": frozenset({"runs", "claims"}),
    "0003": frozenset({"unusable_checkpoints"}),
    "0004": frozenset(),
    "0005": frozenset(),
    "0006": frozenset(),
    "0007": frozenset(),
}
#: All revisions, oldest first.
REVISIONS = tuple(TABLES)
HEAD = REVISIONS[-1]

#: Not Alembic's default name: a team's database may hold Prefect's tables too, whose revisions are kept under that.
VERSION_TABLE = "rlhfblender_revision"


def tables_since(revision: str | None) -> frozenset[str]:
    """The tables that are made to bring a registry of that revision to today's; all of them for None."""
    done = 0 if revision is None else REVISIONS.index(revision) + 1
    return frozenset().union(*(TABLES[later] for later in REVISIONS[done:]))
