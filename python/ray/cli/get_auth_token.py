"""`ray get-auth-token`: the token that this user would show to a cluster."""

from __future__ import annotations

import click

from ray._runtime import security, session_dir
from ray.cli.errors import shown


@click.command(name="get-auth-token")
@click.option("--generate", is_flag=True, help="Make one in ~/.ray/auth_token if there is none.")
def get_auth_token(generate: bool) -> None:
    """Prints the token, without a newline: for RAY_AUTH_TOKEN or ~/.ray/auth_token on another machine."""
    running = [record for record in session_dir.live_records(session_dir.temp_root()) if record.auth_token_file]
    running.sort(key=lambda record: record.owned)
    with shown():
        click.echo(security.show_token(next(iter(running), None), generate=generate), nl=False)
