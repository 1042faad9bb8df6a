"""``serve``: the live page and the API of a state folder, for programs of this machine."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.options import LogFormatOption, RootOption
from loopscope.context import CommandError, now, root_of
from loopscope.logs import log_to_stderr
from loopscope.server.settings import LOOPBACK, PORT, ServerSettings
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT

LIBRARIES = ("starlette", "uvicorn", "cryptography")

EXAMPLES = {
    "serve": (
        "serve --no-tls",
        "serve --bundle bundles",
        "serve --kubeconfig loopscope.kubeconfig",
        "serve --kubeconfig loopscope.kubeconfig --write",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any.")] = PORT,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Write what kubectl needs to this file.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Let clients create, change and delete objects.")
    ] = False,
    bundles: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="Show exported bundles instead, those in DIR or DIR itself, to all on this "
            "machine; may be given several times.",
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Without TLS a browser shows the live page; kubectl sends no token then. "
            "Default: with TLS, and without for bundles.",
        ),
    ] = None,
    root: RootOption = None,
    log_format: LogFormatOption = "console",
) -> None:
    """Serve the live page to a browser, or the API to kubectl, until interrupted.

    Read-only by default. Whoever has the token may do what the server may; it lies in the state
    folder.
    """
    context.obj.refuse_namespace("serve")
    if bundles:
        if write or kubeconfig is not None or tls:
            raise CommandError(
                "--bundle shows files over HTTP: leave out --write, --kubeconfig, --tls"
            )
        _refuse_without_libraries()
        _serve_bundles(bundles, port, log_format)
        return
    tls = tls is not False
    if kubeconfig is not None and not tls:
        raise CommandError("--kubeconfig needs TLS: kubectl sends no token over plain HTTP")
    _refuse_without_libraries()
    from loopscope.server.application import application
    from loopscope.server.identity import identity_in, write_kubeconfig
    from loopscope.server.process import Server, bound_socket

    state = context.obj.open_existing() if write else context.obj.open_to_read()
    log_to_stderr(logging.INFO, log_format, also=state.logs / "serve.log")
    settings = ServerSettings(writable=write, folder=Path.cwd(), root=root_of(STANDARD_INPUT, root))
    identity = identity_in(state.path / "server", now())
    listening = bound_socket(port)
    address = f"{'https' if tls else 'http'}://{LOOPBACK}:{listening.getsockname()[1]}"
    if kubeconfig is not None:
        write_kubeconfig(kubeconfig, identity, address)
        print(f"KUBECONFIG={kubeconfig.absolute()}", flush=True)
    app, watches = application(state, settings, identity.token, now)
    may = "reads and writes" if write else "reads only"
    print(f"{address} {may}; the token lies in {state.path / 'server' / 'token'}", flush=True)
    if not tls:
        print(f"page: {address}/#token={identity.token}", flush=True)
    Server(app, settings, watches.end, identity if tls else None).run([listening])


def _serve_bundles(folders: list[Path], port: int, log_format: str) -> None:
    from loopscope.server.bundles import bundle_application
    from loopscope.server.process import Server, bound_socket

    log_to_stderr(logging.INFO, log_format)
    app = bundle_application(folders)
    listening = bound_socket(port)
    print(f"bundles: http://{LOOPBACK}:{listening.getsockname()[1]}/", flush=True)
    Server(app, ServerSettings()).run([listening])


def _refuse_without_libraries() -> None:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"serve needs {', '.join(missing)}: pip install 'loopscope[serve]'",
        )
