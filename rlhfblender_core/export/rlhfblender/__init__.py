"""The export for RLHF-Blender's server."""
