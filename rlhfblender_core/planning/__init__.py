"""From what a user asks for to what will be done. Reads everywhere, writes nowhere."""
