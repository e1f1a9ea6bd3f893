"""Episodes of RL agents for human feedback: the domain, usable as a plain library. Never imports Prefect."""
