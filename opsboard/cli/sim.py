"""``opsboard sim``: one simulated engine."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", default=8000, show_default=True, help="Port on 127.0.0.1; 0 lets the system choose.")
@click.option("--profile", default="vllm-0.32", show_default=True, help="Whose metrics page and manners to show.")
@click.option(
    "--fault",
    "faults",
    metavar="NAME[=VALUE]",
    multiple=True,
    help="A fault from the start (`opsboard demo --fault list` names them). Repeatable.",
)
@click.option("--model", default="sim-7b", show_default=True, help="Served model name.")
@click.option("--startup-seconds", default=5.0, show_default=True, help="How long all start-up phases take.")
@click.option("--step-ms", default=12.0, show_default=True, help="Time of one engine step with an empty batch.")
@click.option("--blocks", default=700, show_default=True, help="KV-cache blocks.")
@click.option("--block-size", default=16, show_default=True, help="Tokens a block.")
@click.option("--max-num-seqs", default=48, show_default=True, help="Largest batch.")
@click.option("--max-model-len", default=8192, show_default=True, help="Longest context in tokens.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
def sim(faults: tuple[str, ...], **options: object) -> None:
    """Run one simulated engine: real HTTP, a real metrics page, a real child process, faults on demand."""
    from opsboard.sim.main import run_from_options

    raise SystemExit(run_from_options(faults=faults, **options))
