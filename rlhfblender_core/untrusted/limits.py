"""How much a file of others may ask for. Every reader in this room spends from these, before memory or time is spent.

A limit is far above what honest files need (the figures are of 174 models and of RLHF-Blender's own data), and low
enough that a small file is refused within a second and 100 MB. What grows with a file may grow with its size alone.
"""

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30

# Archives ------------------------------------------------------------------------------------------------------------
MAX_ARCHIVE_BYTES = 4 * _GIB
#: A model has 6 members, an episode some 30.
MAX_MEMBERS = 1000
#: Of a zip's list of members, which Python reads whole when it opens one.
MAX_DIRECTORY_BYTES = 512 * _KIB
#: What an archive may unpack to: so much, and so many times its own size. Black frames shrink 200-fold.
SOME_UNPACKED_BYTES, UNPACKED_PER_BYTE = 64 * _MIB, 300
#: The same for a member that is held in memory: weights and base64 hardly shrink at all.
SOME_HELD_BYTES, HELD_PER_BYTE = 16 * _MIB, 20
MAX_WEIGHTS_BYTES = 2 * _GIB

# Texts ---------------------------------------------------------------------------------------------------------------
#: The ``data`` of a model; the largest honest ones hold a few stacked Atari frames.
MAX_JSON_BYTES = 64 * _MIB
#: Values in a JSON text, counted by its punctuation: an empty list takes two bytes there and 56 in memory.
MAX_JSON_VALUES = 500_000
MAX_MANIFEST_BYTES = 4 * _MIB
#: RL Zoo's settings have 2 kB; PyYAML reads some 100 kB in a second.
MAX_YAML_BYTES = 64 * _KIB
#: Of a YAML text with every alias and merge key written out.
MAX_YAML_VALUES = 10_000
MAX_YAML_DEPTH = 20
#: A Python literal in RLHF-Blender's database.
MAX_LITERAL_CHARACTERS = 100_000

# Pickles -------------------------------------------------------------------------------------------------------------
MAX_PICKLE_BYTES = 64 * _MIB
#: Pickled infos of 100,000 steps have some 20 MB.
MAX_OBJECTS_BYTES = 256 * _MIB
#: Pickled states of an environment, one per step; an emulator's have 15 kB.
MAX_STATES_BYTES = 256 * _MIB
#: Opcodes and copies: so many, and so many per byte of the pickle, and of what it has in an archive that compresses it.
SOME_WORK, WORK_PER_BYTE, WORK_PER_PACKED_BYTE, MAX_WORK = 100_000, 2, 8, 20_000_000
#: Values with everything that is shared written out, and likewise the bytes of arrays.
SOME_VALUES, VALUES_PER_BYTE, MAX_VALUES = 100_000, 8, 10_000_000
SOME_SHARED_BYTES, SHARED_PER_BYTE = 2 * _MIB, 16
MAX_DEPTH = 64
#: Numbers of generators' states have 128 bits.
MAX_INTEGER_BITS = 1024
#: Values in a key: ``hash`` visits all of them each time.
MAX_KEY_VALUES = 32
#: Python's own hash of an integer repeats from here on: keys could be chosen that all collide.
MAX_INTEGER_KEY = 2**61 - 2

# Arrays --------------------------------------------------------------------------------------------------------------
MAX_ARRAY_BYTES = 64 * _MIB
#: NumPy's.
MAX_DIMENSIONS = 64
MAX_SIDE = 2**40
#: Of an array that is held in memory as a whole: rewards, flags, texts. Observations stream through.
MAX_WHOLE_BYTES = 256 * _MIB
#: Bytes of a ``.npy`` file's header; NumPy writes 128.
MAX_NPY_HEADER_BYTES = 4096
#: Steps of an episode: ten times the longest that anybody records.
MAX_STEPS = 1_000_000
#: Infos of all steps, each as long as the longest. Of 100,000 steps with 500 characters each: 200 MB.
MAX_TEXTS_BYTES = _GIB

# Pictures and videos -------------------------------------------------------------------------------------------------
MAX_PICTURE_BYTES = 64 * _MIB
#: 3840×2160, and a little.
MAX_PICTURE_PIXELS = 2**23

# Databases -----------------------------------------------------------------------------------------------------------
#: Steps of SQLite's machine for one query: a view may count without end.
MAX_QUERY_STEPS = 5_000_000
MAX_QUERY_ROWS = 100
MAX_CELL_BYTES = _MIB

# Files of an episode -------------------------------------------------------------------------------------------------
#: By the folder that they lie in: what is larger isn't even hashed.
MAX_FILE_BYTES = {
    "episodes": MAX_ARCHIVE_BYTES,
    "rewards": MAX_WHOLE_BYTES,
    "uncertainty": MAX_WHOLE_BYTES,
    "renders": 16 * _GIB,
    "thumbnails": MAX_PICTURE_BYTES,
}
