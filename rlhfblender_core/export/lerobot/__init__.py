"""Export to LeRobot's format v3: parquet, concatenated H.264 videos, statistics, tasks."""
