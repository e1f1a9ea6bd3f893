"""How many requests work on object storage costs: counted between us and a server."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.delete import delete_all
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.run import export_all
from rlhfblender_core.gallery.write import write_page
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verify import verify_all
from tests.support.fault_proxy import FaultProxy
from tests.support.generating import generate, locations_of, request

pytestmark = pytest.mark.xdist_group("object-storage")


def test_explore(s3_root: DataRoot, fault_proxy: FaultProxy, tmp_path: Path, trained_cartpole: Path) -> None:
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    db = f"sqlite:///{tmp_path / 'registry.db'}"
    loc = locations_of(root, db)

    def count(what, do):
        fault_proxy.requests.clear()
        do()
        c = Counter(m if "list-type" not in p else "LIST" for m, p in fault_proxy.requests)
        print("COUNT", what, sum(c.values()), dict(c), flush=True)
        if len(fault_proxy.requests) < 25:
            print([f"{m} {p[:90]}" for m, p in fault_proxy.requests])

    N = 30
    count("new 30", lambda: generate(root, db, request(N)))
    count("re-run", lambda: generate(root, db, request(N)))
    count("ten more", lambda: generate(root, db, request(N + 10)))
    trained = request_from_flags({"env": "CartPole-v1", "exp": "T", "model_path": str(trained_cartpole), "checkpoints": ["all"], "num_episodes": 5, "no_render": True, "max_steps_per_episode": 10})
    count("3 checkpoints x 5, 4 files", lambda: generate(root, db, trained))
    count("again", lambda: generate(root, db, trained))
    count("verify quick", lambda: verify_all(None, LocalRunner(), loc, quick=True))
    count("verify", lambda: verify_all("E", LocalRunner(), loc))
    out = str(tmp_path / "out")
    count("export hdf5 T", lambda: export_all(out, "hdf5", ["T"], ExportOptions(), LocalRunner(), loc))
    count("export hdf5 T again", lambda: export_all(out, "hdf5", ["T"], ExportOptions(), LocalRunner(), loc))
    out2 = str(tmp_path / "out2")
    count("export rlhf E", lambda: export_all(out2, "rlhfblender", ["E"], ExportOptions(), LocalRunner(), loc))
    count("export rlhf E again", lambda: export_all(out2, "rlhfblender", ["E"], ExportOptions(), LocalRunner(), loc))
    count("gallery", lambda: write_page((), loc))
    count("gallery again", lambda: write_page((), loc))
    count("delete ten", lambda: delete_all("E", [], LocalRunner(), loc, parse_selection("30-39")))
    count("gallery after", lambda: write_page((), loc))
    count("delete E", lambda: delete_all("E", [], LocalRunner(), loc))
