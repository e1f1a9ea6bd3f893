"""The export for Minari."""
