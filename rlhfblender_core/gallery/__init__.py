"""The gallery: a static page in the data root for looking at episodes, made from the manifests.

The registry's index only spares reading manifests of episodes that the page has already.
"""

from rlhfblender_core.gallery.write import INDEX_PATH, GalleryReport, write_gallery

__all__ = ["INDEX_PATH", "GalleryReport", "write_gallery"]
