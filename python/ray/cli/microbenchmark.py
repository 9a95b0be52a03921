"""`ray microbenchmark`: how fast small operations are on this machine."""

from __future__ import annotations

import click

from ray.cli.errors import shown


@click.command()
def microbenchmark() -> None:
    """Measures small operations on clusters of its own on this machine; takes some ten minutes.

    TESTS_TO_RUN in the environment leaves only rows whose name has that text, TESTS_TO_SKIP leaves those out.
    """
    from ray.cli import benchmark  # its functions are remote ones, and it needs numpy

    with shown():
        benchmark.main()
