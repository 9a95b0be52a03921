"""`ray list`, `ray get` and `ray summary`: the tables of `ray.util.state` in a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from ray.cli.errors import shown
from ray.util import state
from ray.util.state.common import StateSchema

_LISTS: dict[str, Callable[..., Sequence[StateSchema]]] = {
    "actors": state.list_actors,
    "jobs": state.list_jobs,
    "nodes": state.list_nodes,
    "objects": state.list_objects,
    "placement-groups": state.list_placement_groups,
    "tasks": state.list_tasks,
    "workers": state.list_workers,
}
_GETS: dict[str, Callable[..., Any]] = {
    "actors": state.get_actor,
    "jobs": state.get_job,
    "nodes": state.get_node,
    "objects": state.get_objects,
    "placement-groups": state.get_placement_group,
    "tasks": state.get_task,
    "workers": state.get_worker,
}
_SUMMARIES: dict[str, Callable[..., dict[str, Any]]] = {
    "actors": state.summarize_actors,
    "objects": state.summarize_objects,
    "tasks": state.summarize_tasks,
}
_FORMATS = ("default", "json", "yaml", "table")

_address = click.option("--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one here.")
_timeout = click.option(
    "--timeout", type=click.IntRange(1), default=30, show_default=True, help="Seconds for each node."
)


def _filter(text: str) -> tuple[str, str, str]:
    operator = re.search("!?=", text)  # the first: a value may have more of them
    if operator is not None:
        return text[: operator.start()].strip(), operator[0], text[operator.end() :].strip()
    raise click.BadParameter(f"{text!r} is not KEY=VALUE or KEY!=VALUE.", param_hint="--filter")


@contextlib.contextmanager
def _warnings_to_stderr() -> Iterator[None]:
    """Shows what is missing as a text of its own, without the place in the code that warns of it."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        yield
    for warning in given:
        click.echo(f"Warning: {warning.message}", err=True)


def _yaml(rows: Sequence[dict[str, Any]]) -> str:
    # What JSON writes on one line is YAML, too.
    lines = []
    for row in rows:
        for i, (column, value) in enumerate(row.items()):
            lines.append(f"{'-' if i == 0 else ' '}   {column}: {json.dumps(value, default=str)}")
    return "\n".join(lines) if lines else "[]"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "No resource in the cluster"
    columns = list(rows[0])
    cells = [["", *(column.upper() for column in columns)]]
    for i, row in enumerate(rows):
        values = (row[column] for column in columns)
        cells.append([str(i), *("" if v is None else v if isinstance(v, str) else json.dumps(v) for v in values)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns) + 1)]
    lines = (zip(line, widths, strict=True) for line in cells)
    return "\n".join("  ".join(f"{cell:{width}}" for cell, width in line).rstrip() for line in lines)


def _render(rows: Sequence[StateSchema], form: str, detail: bool) -> str:
    plain = [{column: row[column] for column in (row.columns() if detail else row.base_columns())} for row in rows]
    if form == "json":
        return json.dumps(plain, default=str)
    if form == "yaml" or (form == "default" and detail):
        return _yaml(plain)
    return _table(plain)


@click.command("list")
@click.argument("resource", type=click.Choice(list(_LISTS)))
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="default", help="Default: a table; yaml of details."
)
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="Also KEY!=VALUE. All must hold.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Show at most so many rows.")
@click.option("--detail", is_flag=True, help="Show all columns.")
@_timeout
@_address
def list_rows(
    resource: str, form: str, filters: Sequence[str], limit: int, detail: bool, timeout: int, address: str | None
) -> None:
    """Lists the actors, jobs, nodes, objects, placement groups, tasks or workers of a cluster."""
    with shown(), _warnings_to_stderr():
        rows = _LISTS[resource](
            address=address,
            filters=[_filter(text) for text in filters],
            limit=limit,
            timeout=timeout,
            detail=detail,
            raise_on_missing_output=False,
            _explain=True,
        )
    click.echo(_render(rows, form, detail))


@click.command("get")
@click.argument("resource", type=click.Choice(list(_GETS)))
@click.argument("id")
@_timeout
@_address
def get_row(resource: str, id: str, timeout: int, address: str | None) -> None:
    """Shows all that is known of one actor, job, node, object, placement group, task or worker."""
    with shown():
        found = _GETS[resource](id, address=address, timeout=timeout)
    rows = found if isinstance(found, list) else [found] if found is not None else []
    if not rows:
        raise click.ClickException(f"There is none of the {resource} with the id {id}.")
    click.echo(_render(rows, "yaml", detail=True))


@click.command()
@click.argument("resource", type=click.Choice(list(_SUMMARIES)))
@_timeout
@_address
def summary(resource: str, timeout: int, address: str | None) -> None:
    """Counts the actors of each class, the tasks of each name, or the objects of each place that makes some."""
    with shown(), _warnings_to_stderr():
        counted = _SUMMARIES[resource](address=address, timeout=timeout, raise_on_missing_output=False, _explain=True)[
            "cluster"
        ]
    groups = [{"group": name, **{k: v for k, v in of.items() if v != name}} for name, of in counted["summary"].items()]
    for name, value in counted.items():
        if name != "summary":
            click.echo(f"{name}: {value}")
    click.echo(_table(groups))
