"""Worker processes, and how far they have got."""

#: Of Python's hashes of texts, which decide the order of sets: environments that go through one would differ between
#: two runs. Dask starts its workers with this seed, too.
HASH_SEED = "6640"
