"""The task that writes the gallery."""

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.gallery import GalleryReport, write_gallery
from rlhfblender_core.wording import counted
from tasks.config import Locations
from tasks.retries import RETRY_TRANSIENT


@task(name="write-gallery", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def write_page(experiments: Sequence[str], locations: Locations) -> GalleryReport:
    """Writes the page and its data from what is published now."""
    report = write_gallery(locations.open_root(), experiments)
    get_run_logger().info("%s shows %s", report.page, counted(report.episodes, "episode"))
    return report
