"""How processes of a cluster prove to each other that they belong together: the token, and TLS.

Every TCP listener wants the cluster's token. It is looked for in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH
names, then, on the machine and for the user that started the cluster, in its session directory, and in
~/.ray/auth_token. Only gcs_server and raylet read it, from a file; workers and drivers never hold it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ray._runtime import addresses, private_file
from ray.exceptions import AuthenticationError

if TYPE_CHECKING:
    from ray._runtime.session_dir import ProcessRecord

TOKEN, DISABLED = "token", "disabled"
_TOKEN_FILE = "auth_token"
_HELP = (
    "Set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to a file that holds it, or put it into "
    "~/.ray/auth_token (mode 0600). `ray get-auth-token` on the head node prints it."
)
_TLS_VARIABLES = {
    "tls_cert": "RAY_TLS_SERVER_CERT",
    "tls_key": "RAY_TLS_SERVER_KEY",
    "tls_ca": "RAY_TLS_CA_CERT",
}
_WELL_FORMED = re.compile("[!-~]{16,4096}")
# What the processes of a node must not hand down to user code.
SECRET_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_REDIS_PASSWORD")


@dataclass(frozen=True)
class Security:
    """What gcs_server and raylet are told about tokens and certificates.

    Attributes:
        mode: TOKEN or DISABLED, which works on loopback addresses only.
        token_file: holds the token, readable by its user only; "" in mode DISABLED, or while it is not known.
        tls_cert, tls_key, tls_ca: files in PEM form for mutual TLS; all or none.
    """

    mode: str = TOKEN
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""

    def flags(self) -> list[str]:
        """For the command line of gcs_server or raylet."""
        made = ["--auth-mode", self.mode]
        if self.token_file:
            made += ["--auth-token-file", self.token_file]
        if self.tls_cert:
            made += ["--tls-cert", self.tls_cert, "--tls-key", self.tls_key, "--tls-ca", self.tls_ca]
        return made


def from_environment() -> Security:
    """Mode and TLS files as RAY_AUTH_MODE, RAY_USE_TLS and RAY_TLS_* say; no token yet.

    Raises:
        ValueError: an unknown mode.
        RuntimeError: RAY_USE_TLS without all three files.
    """
    mode = (os.environ.get("RAY_AUTH_MODE") or TOKEN).lower()
    if mode not in (TOKEN, DISABLED):
        raise ValueError(f"RAY_AUTH_MODE must be 'token' or 'disabled', got {mode!r}.")
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return Security(mode)
    files = {name: os.environ.get(variable, "") for name, variable in _TLS_VARIABLES.items()}
    for name, variable in _TLS_VARIABLES.items():
        if not files[name]:
            wanted = ", ".join(_TLS_VARIABLES.values())
            raise RuntimeError(f"RAY_USE_TLS is set, so {wanted} must be too; {variable} is not.")
        if not os.path.isfile(files[name]):
            raise RuntimeError(f"{variable} names {files[name]!r}, which is not a file.")
    return Security(mode, **files)


def authentication_error(problem: str) -> AuthenticationError:
    """The error for `problem`, with what can be done about it."""
    return AuthenticationError(f"{problem} {_HELP}")


def turned_away(address: str, security: Security, problem: str) -> AuthenticationError:
    """The error of one whom the cluster there did not let in with `security`.

    Args:
        problem: what it said; the advice behind its semicolon is for others, too.
    """
    if security.mode == DISABLED:
        return authentication_error(
            f"The cluster at {address} wants a token, and none was shown, since RAY_AUTH_MODE=disabled: unset that."
        )
    return authentication_error(f"The cluster at {address} does not accept the token: {problem.partition(';')[0]}.")


def check_listen(mode: str, ip: str) -> None:
    """Raises AuthenticationError where others could come in without a token."""
    if mode == DISABLED and not addresses.is_loopback(ip):
        raise AuthenticationError(
            f"RAY_AUTH_MODE=disabled works on loopback addresses only; {ip} can be reached from other machines. "
            "Unset it: `ray start --head` then makes a token."
        )


def _private(path: Path) -> Path:
    """A token file that only its user can read. Raises AuthenticationError."""
    if path.stat().st_mode & 0o077:
        raise AuthenticationError(
            f"The token file {path} is open to other users, so its token is no secret. Run `chmod 600 {path}`, and "
            "take a new token (`ray get-auth-token --generate` after removing the file) if somebody may have read it."
        )
    return path


def _given_token() -> str | Path | None:
    """What the environment gives: the token itself, or its file."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        if not _WELL_FORMED.fullmatch(token):
            raise AuthenticationError(
                "What RAY_AUTH_TOKEN holds is no token: those are 16 to 4096 printable characters without blanks. "
                "`ray get-auth-token` on the head node prints that of its cluster."
            )
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    if not path:
        return None
    if not os.path.isfile(path):
        raise authentication_error(f"RAY_AUTH_TOKEN_PATH names {path!r}, which is not a file.")
    return _private(Path(path))


def _home_file() -> Path | None:
    with contextlib.suppress(RuntimeError):  # a user without a home
        path = Path.home() / ".ray" / _TOKEN_FILE
        if path.is_file():
            return _private(path)
    return None


def write_token(path: Path, token: str) -> None:
    """Writes a token for its user only; whoever reads the file sees the old one or the new one, whole."""
    private_file.write_text(path, token + "\n")


def generate_token() -> str:
    """A new token: 256 random bits in hex."""
    return secrets.token_hex(32)


def for_head(session_dir: Path, *, owned: bool = False) -> Security:
    """Of a new cluster: its token is the one that the environment gives, else a new one in the session directory.

    Args:
        owned: it is for this process only, so the token in the user's home is not for it.

    Raises:
        AuthenticationError: RAY_AUTH_TOKEN holds no token; RAY_AUTH_TOKEN_PATH leads nowhere, or to a file that is
            open to others.
    """
    security = from_environment()
    if security.mode == DISABLED:
        return security
    given = _given_token() or (None if owned else _home_file())
    if isinstance(given, Path):
        return replace(security, token_file=str(given))
    path = session_dir / _TOKEN_FILE
    write_token(path, given or generate_token())
    return replace(security, token_file=str(path))


def _for_existing(local: ProcessRecord | None) -> Security:
    """As `from_environment`, in the mode of the cluster's process on this machine where nothing else was asked for."""
    security = from_environment()
    if local is not None and local.auth_mode and not os.environ.get("RAY_AUTH_MODE"):
        return replace(security, mode=local.auth_mode)
    return security


def _find_token(local: ProcessRecord | None) -> str | Path:
    given = _given_token() or (Path(local.auth_token_file) if local and local.auth_token_file else None) or _home_file()
    if given is None:
        raise authentication_error("There is no token for this cluster.")
    return given


@contextlib.contextmanager
def for_asking(local: ProcessRecord | None = None) -> Iterator[Security]:
    """Of one who talks to a cluster that exists, for the length of a question.

    Args:
        local: a process of that cluster on this machine, of this user.

    Raises:
        AuthenticationError: no token is to be found.
    """
    security = _for_existing(local)
    if security.mode == DISABLED:
        yield security
        return
    given = _find_token(local)
    if isinstance(given, Path):
        yield replace(security, token_file=str(given))
        return
    with tempfile.NamedTemporaryFile("w", prefix="ray_token_") as file:  # made with mode 0600
        file.write(given + "\n")
        file.flush()
        yield replace(security, token_file=file.name)


def for_joining(node_dir: Path, local: ProcessRecord | None = None) -> Security:
    """Of a node that joins a cluster; a token that is in no file yet is kept in the node's directory.

    Raises:
        AuthenticationError: no token is to be found.
    """
    security = _for_existing(local)
    if security.mode == DISABLED:
        return security
    given = _find_token(local)
    if isinstance(given, str):
        path = node_dir / _TOKEN_FILE
        write_token(path, given)
        given = path
    return replace(security, token_file=str(given))


def show_token(local: ProcessRecord | None, *, generate: bool = False) -> str:
    """The token that this user would show to a cluster.

    Args:
        local: a process of a cluster on this machine, of this user.
        generate: make one in the user's home if there is none.

    Raises:
        AuthenticationError: there is none.
    """
    try:
        given = _find_token(local)
    except AuthenticationError:
        # One that is open to others is not replaced: `_home_file` raises again.
        if not generate or _given_token() is not None or _home_file() is not None:
            raise
        given = Path.home() / ".ray" / _TOKEN_FILE
        given.parent.mkdir(mode=0o700, exist_ok=True)
        write_token(given, generate_token())
    if isinstance(given, str):
        return given
    try:
        return given.read_text().strip()
    except OSError as error:
        raise authentication_error(f"The token file {given} cannot be read: {error.strerror}.") from error
