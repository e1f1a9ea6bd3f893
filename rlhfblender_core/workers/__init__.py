"""Worker processes, and how far they have got."""
