"""Training agents: RL Zoo's hyperparameters, its folder of checkpoints, and going on from the last of them."""
