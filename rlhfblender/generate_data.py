"""``python -m rlhfblender.generate_data``: what ``flows/generate.py`` does."""

if __name__ == "__main__":
    from flows.cli.process import start_command

    start_command("flows.generate")
