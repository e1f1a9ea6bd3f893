"""What a person or a schedule starts: one module per flow, each with its command line."""
