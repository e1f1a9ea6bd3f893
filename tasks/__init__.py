"""The steps as Prefect tasks: retries, caching, names, logging. No domain logic; that is the core's."""
