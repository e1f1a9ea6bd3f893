"""What verify finds, and what repair needs to know of it: checks, and how episodes are made again."""
