"""Which environment this process is about to make, told to who may outlive it: some end the process they are in."""

from collections.abc import Callable


class _Witness:
    tell: Callable[[str], None] | None = None


_witness = _Witness()


def call_witness(tell: Callable[[str], None]) -> None:
    """Has each environment's id told before it is made in this process.

    Args:
        tell: gets the id.
    """
    _witness.tell = tell


def tell_witness(env_id: str) -> None:
    """Tells the witness, if there is one."""
    if _witness.tell is not None:
        _witness.tell(env_id)
