"""How a command starts, talks and ends."""
