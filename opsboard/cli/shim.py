"""``opsboard shim``: internal, the parent process of one engine. It is usually started as a module, without click."""

from __future__ import annotations

import click


@click.command(hidden=True)
@click.argument("bundle", type=click.Path(exists=True, file_okay=False))
def shim(bundle: str) -> None:
    """Run the engine described in BUNDLE and stay its parent."""
    from opsboard.supervise.shim import main

    raise SystemExit(main([bundle]))
