"""Episodes that were made elsewhere: found, checked file by file, converted to this data set's form, published.

Nothing in the source is changed, and nothing in it is executed.
"""

from rlhfblender_core.import_data.episodes import ImportedBatch, import_episodes
from rlhfblender_core.import_data.labels import import_action_labels
from rlhfblender_core.import_data.plan import ImportPlan, ImportRequest, plan_import

__all__ = [
    "ImportPlan",
    "ImportRequest",
    "ImportedBatch",
    "import_action_labels",
    "import_episodes",
    "plan_import",
]
