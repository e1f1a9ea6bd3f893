"""What chooses actions: the protocol all policies share, the random policy, and policies from checkpoints.

Importing this package never imports torch.
"""

from rlhfblender_core.policies.protocol import Policy, PolicyStep, UncertaintyKind
from rlhfblender_core.policies.random_policy import RandomPolicy

__all__ = ["Policy", "PolicyStep", "RandomPolicy", "UncertaintyKind"]
