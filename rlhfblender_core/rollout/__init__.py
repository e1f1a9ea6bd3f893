"""Episodes being made: one after the other, in files that wait to be published."""
