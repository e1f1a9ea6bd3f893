"""``flows/generate.py`` by the name that RLHF-Blender's documentation gives it (``docs/rlhfblender.md``)."""

if __name__ == "__main__":
    from flows.cli.process import start_command

    start_command("flows.generate")
