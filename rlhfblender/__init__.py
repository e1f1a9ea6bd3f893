"""Commands by the names that RLHF-Blender's documentation gives them (``docs/rlhfblender.md``)."""
