"""Handing the data over: to RLHF-Blender's server, to Minari. One folder and one row (formats) for each format."""
