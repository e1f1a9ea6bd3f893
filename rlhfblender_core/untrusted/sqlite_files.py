"""What lies beside an SQLite database, seen before SQLite opens it: what it does with that can't be turned off."""

import os
import stat
from pathlib import Path

#: Ends a rollback journal that names a file, which SQLite removes once it has rolled back.
_NAMES_A_FILE = bytes.fromhex("d9d505f920a163d7")


def journal_fault(database: Path) -> str | None:
    """Why SQLite mustn't open the database, as the end of a sentence; None where it may.

    A journal of transactions over several attached databases names a file that all of them share, and is rolled back
    whenever one of them is opened. This project attaches none, and of somebody else's journal that file may be any.

    Args:
        database: its file, there or not.
    """
    database = Path(os.path.realpath(database))  # as SQLite does; a link to itself is what it is
    for file in (database, *(database.with_name(f"{database.name}-{end}") for end in ("journal", "wal", "shm"))):
        try:
            if not stat.S_ISREG(file.lstat().st_mode):
                return f"{file.name} is no file"
        except OSError:  # not there, or SQLite says what is wrong with it
            continue
    try:
        with database.with_name(f"{database.name}-journal").open("rb") as journal:
            journal.seek(-len(_NAMES_A_FILE), os.SEEK_END)
            if journal.read() == _NAMES_A_FILE:
                return f"the journal {database.name}-journal would have SQLite remove another file"
    except OSError:  # there is none, or it is shorter
        pass
    return None
