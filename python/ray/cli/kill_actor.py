"""`ray kill-actor`: ends a named actor."""

from __future__ import annotations

import click

from ray.api import get_actor, init, kill, shutdown, wait
from ray.cli.errors import shown
from ray.util import list_named_actors


@click.command(name="kill-actor")
@click.option(
    "--address", metavar="HOST:PORT", help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine."
)
@click.option("--name", required=True, help="Of the actor.")
@click.option("--namespace", help="That it has its name in. Default: the only one that has an actor of that name.")
@click.option("--force", is_flag=True, help="Kill its process at once. Default: it ends after the calls that it has.")
@click.option("--no-restart", is_flag=True, help="With --force: it is not restarted.")
def kill_actor(address: str | None, name: str, namespace: str | None, force: bool, no_restart: bool) -> None:
    """Ends a named actor."""
    if no_restart and not force:
        raise click.UsageError("--no-restart is for --force: an actor that ends by itself is not restarted.")
    with shown():
        init(address or "auto", log_to_driver=False, logging_level="ERROR")
        try:
            found = namespace or _namespace_of(name)
            actor = get_actor(name, namespace=found)
            if force:
                kill(actor, no_restart=no_restart)
            else:
                click.echo(f"Requested graceful termination of actor {name!r} of namespace {found!r}; it ends ...")
                wait([actor.__ray_terminate__.remote()])  # which would be lost with this process
        finally:
            shutdown()
    click.echo(f"Actor {name!r} of namespace {found!r} is {'killed' if force else 'terminated'}.")


def _namespace_of(name: str) -> str:
    found = sorted(row["namespace"] for row in list_named_actors(all_namespaces=True) if row["name"] == name)
    if not found:
        raise ValueError(f"No actor is named {name!r}, in any namespace.")
    if len(found) > 1:
        raise ValueError(f"Several namespaces have an actor named {name!r}, --namespace says which: {found}.")
    return str(found[0])
