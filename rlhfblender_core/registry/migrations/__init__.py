"""The history of the registry's tables: Alembic's environment and one module per revision.

Listed here so that opening a registry of today's revision needs no Alembic; a test compares the list with the files.
"""

#: All revisions, oldest first.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]

#: Not Alembic's default name: a team's database may hold Prefect's tables too, whose revisions are kept under that.
VERSION_TABLE = "rlhfblender_revision"
