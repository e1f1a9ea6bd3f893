"""What Prefect's UI shows."""
