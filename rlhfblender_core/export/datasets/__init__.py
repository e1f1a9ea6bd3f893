"""Export to folders of parquet that Hugging Face's ``datasets`` loads, and to those that ``imitation`` loads."""
