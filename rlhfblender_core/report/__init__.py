"""What a run achieved: in numbers, and as pictures."""
