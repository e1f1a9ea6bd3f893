"""The tasks that write the gallery and clips, found by the steps that they wrap."""

from collections.abc import Sequence

from prefect import get_run_logger

from rlhfblender_core.gallery.clip import ClipRequest, write_clip
from rlhfblender_core.gallery.write import GalleryReport, write_page
from rlhfblender_core.locations import Locations
from rlhfblender_core.wording import counted
from tasks.steps import task_for


@task_for(write_page, "write-gallery")
def _write_page(exp: Sequence[str], locations: Locations) -> GalleryReport:
    report = write_page(exp, locations)
    get_run_logger().info("%s shows %s", report.page, counted(report.episodes, "episode"))
    return report


@task_for(write_clip, "write-clip")
def _write_clip(request: ClipRequest, locations: Locations) -> str:
    written = write_clip(request, locations)
    get_run_logger().info("%s", written)
    return written
