"""Alembic's entry: runs revisions on the connection, and in the transaction, that the caller holds."""

from alembic import context

from rlhfblender_core.registry.migrations import VERSION_TABLE
from rlhfblender_core.registry.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite can't alter a table in place: Alembic copies it instead.
    render_as_batch=True,
    # True on SQLite too, as transactions are begun by our engine and not by the driver (see engine.py).
    transactional_ddl=True,
)
context.run_migrations()
