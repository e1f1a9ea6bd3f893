"""What Prefect itself costs: one flow with one task that does nothing."""

from prefect import flow, task


@task
def nothing() -> int:
    return 0


@flow
def empty() -> int:
    return nothing()


if __name__ == "__main__":
    empty()
