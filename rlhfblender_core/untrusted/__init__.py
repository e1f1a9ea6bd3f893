"""Everything that reads bytes which others made, without running anything of them."""
