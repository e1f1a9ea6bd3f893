"""The gallery: a static page in the data root for looking at episodes. It reads manifests, never the registry."""

from rlhfblender_core.gallery.write import INDEX_PATH, GalleryReport, write_gallery

__all__ = ["INDEX_PATH", "GalleryReport", "write_gallery"]
