"""Run by test_claims.py: many processes claim the same episodes at one moment.

Usage: python claim_race.py URL PROCESSES EPISODES. Prints one line per process: the numbers it got. A script of its
own, so that it can fork before any thread exists.
"""

import multiprocessing
import random
import sys
from multiprocessing.synchronize import Barrier

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.runs.claims import open_claims

KEY = CheckpointKey("E", "random")


def run(url: str, episodes: int, start: Barrier, answers: "multiprocessing.SimpleQueue[str]") -> None:
    got: list[int] = []
    with open_claims(url, None, "E", {"random": "digest"}) as claims:
        start.wait()
        for first in random.sample(range(0, episodes, 10), episodes // 10):
            # Parts that overlap: the second half of each is the first of the next.
            got += claims.claim(KEY, range(first, min(first + 20, episodes))).free
        start.wait()  # what a run holds when it ends would be free for those that still claim
    answers.put(" ".join(map(str, sorted(set(got)))))


if __name__ == "__main__":
    url, processes, episodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(processes), context.SimpleQueue()
    arguments = (url, episodes, start, answers)
    workers = [context.Process(target=run, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for _ in workers:
        print(answers.get(), flush=True)
    for worker in workers:
        worker.join()
