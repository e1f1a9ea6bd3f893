"""``python -m rlhfblender.register``: what ``flows/register.py`` does."""

if __name__ == "__main__":
    from flows.cli.process import start_command

    start_command("flows.register", is_flow=False)
