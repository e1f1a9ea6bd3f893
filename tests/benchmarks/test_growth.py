"""The benchmark of growth does by commands what it does by the library."""

from pathlib import Path

from benchmarks.growth import command_of


def test_a_command_has_the_functions_arguments_as_flags() -> None:
    asked = {"env": "E-v0", "checkpoints": ["1", "all"], "num_episodes": 3, "random": True, "no_render": False}
    script, *words = command_of("generate", asked)
    assert Path(script).is_file()
    assert words == ["--env", "E-v0", "--checkpoints", "1", "all", "--num-episodes", "3", "--random"]
    assert command_of("export", {"to": "hdf5", "out": "/x"})[1:] == ["/x", "--to", "hdf5"]
    assert command_of("delete", {"exp": "E"})[1:] == ["--exp", "E", "--yes"]
    assert command_of("register --list", {"data_root": "d"})[1:] == ["--list", "--data-root", "d"]
