"""Export to one HDF5 file per checkpoint, with D4RL's keys."""
