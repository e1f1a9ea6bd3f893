"""The data set: its paths, its files, its manifests; writing, publishing and reading them."""
