"""``opsboard backtest``: every detector over recorded readings. No daemon is asked, nothing is written."""

from __future__ import annotations

import datetime as dt
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import echo_json, echo_table, loaded, shown_age
from opsboard.core.doubts import unjudged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opsboard.cli.main import Options
    from opsboard.config.detectors import Setting
    from opsboard.core.model import Event
    from opsboard.core.wire import DetectorInfo, Unjudged
    from opsboard.daemon.backtest import Claim, Judge
    from opsboard.recording.reader import Moment, Reader

    Standing = Mapping[str, tuple[DetectorInfo, ...]]

_SAY_S = 0.5
"""Between two lines of progress."""
_PROBLEMS_SHOWN = 5


@click.command()
@click.argument("recordings", metavar="RECORDING...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--config", metavar="FILE", help="Take [slo] and [detector.NAME] of this file; default: none.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line as each finding opens and closes, then a summary.")
@click.option("--keep-going", is_flag=True, help="Leave bad lines out, count them, and judge the good ones.")
@click.pass_obj
def backtest(
    options: Options, recordings: tuple[Path, ...], config: str | None, as_json: bool, keep_going: bool
) -> None:
    """Judge recorded readings as the daemon would have: what would it have found, and when?

    Several recordings are judged one after the other, each from nothing. Findings are no failure.
    """
    from opsboard.core.wire import BacktestSummary, BacktestTotals
    from opsboard.recording.reader import Reader

    settings = _settings(options, config)
    readers, findings, still_open, confirmed = [], 0, 0, 0
    broken: list[Event] = []
    unjudged: list[Unjudged] = []
    for path in recordings:
        reader = Reader(path, keep_going=keep_going)
        claims, standing = _judge(reader, path, settings, broken, as_json=as_json)
        unjudged += _unjudged(path, standing)
        readers.append(reader)
        findings += len(claims)
        still_open += sum(claim.closed is None for claim in claims)
        confirmed += sum(claim.confirmed is not None for claim in claims)
    if as_json:
        totals = BacktestTotals(
            readings=sum(reader.lines for reader in readers),
            engines=sum(reader.engines for reader in readers),
            seconds=round(sum(reader.seconds for reader in readers), 6),
            findings=findings,
            recordings=len(readers),
            open=still_open,
            confirmed=confirmed,
            bad_lines=sum(reader.bad for reader in readers),
            dropped=sum(reader.dropped for reader in readers),
            late=sum(reader.late for reader in readers),
            unjudged=tuple(unjudged),
        )
        echo_json(BacktestSummary(summary=totals))
    for event in broken:
        click.echo(f"opsboard: {event.text}", err=True)
    if broken or any(reader.bad and not reader.lines for reader in readers):
        click.get_current_context().exit(1)


def _settings(options: Options, config: str | None) -> Mapping[str, Setting]:
    """Return what is configured of detectors: only a file that was named counts, so that a result can be repeated."""
    from opsboard.config.detectors import settings
    from opsboard.core.registry import detectors

    named = config or options.config
    if named is None:
        return {}
    return settings(loaded(options, named, only={"detector", "slo"}).config, detectors().found)


def _judge(
    reader: Reader, path: Path, settings: Mapping[str, Setting], broken: list[Event], *, as_json: bool
) -> tuple[list[Claim], Standing]:
    """Judge one recording and tell what was found; return that, and what each detector says at its end."""
    from opsboard.daemon.backtest import Claims, Judge

    began = time.monotonic()
    judge, claims = Judge(settings, broken.append), Claims()
    for change in judge.changes(reader if as_json else _with_progress(reader, path)):
        claim = claims.take(change)
        if as_json and claim is not None:
            _write_line(claim, path, reader, judge)
    if not as_json:
        _write_table(claims.all, path, reader, judge, time.monotonic() - began)
    for problem in reader.problems[:_PROBLEMS_SHOWN]:
        click.echo(f"left out: {problem.message}", err=True)
    if reader.bad > _PROBLEMS_SHOWN:
        click.echo(f"left out: {path}: {reader.bad - _PROBLEMS_SHOWN} more", err=True)
    return claims.all, judge.standing()


def _unjudged(path: Path, standing: Standing) -> Iterator[Unjudged]:
    from opsboard.core.wire import Unjudged

    for engine, detectors in standing.items():
        for one in detectors:
            if one.state in {"learning", "unknown"}:
                yield Unjudged(
                    recording=str(path), engine=engine, detector=one.name, state=one.state, reason=one.reason
                )


def _with_progress(reader: Reader, path: Path) -> Iterator[Moment]:
    """Hand on what is read; on a terminal, say how far that is."""
    if not sys.stderr.isatty():
        yield from reader
        return
    said = time.monotonic()
    try:
        for moment in reader:
            now = time.monotonic()
            if now - said >= _SAY_S:
                said = now
                click.echo(f"\r\x1b[K{path}: {shown_age(moment.now.mono)}", err=True, nl=False)
            yield moment
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def _write_line(claim: Claim, path: Path, reader: Reader, judge: Judge) -> None:
    from opsboard.core.wire import BacktestFinding

    finding = claim.finding
    t = claim.opened if claim.closed is None else claim.closed
    echo_json(
        BacktestFinding(
            t=t,
            engine=finding.engine,
            detector=finding.detector,
            severity=judge.severity(finding),
            state="open" if claim.closed is None else "closed",
            summary=finding.summary,
            evidence=dict(finding.evidence),
            since=finding.since,
            confirmed=claim.confirmed,
            seconds=round(t - (reader.first or t), 6),
            recording=str(path),
        )
    )


def _write_table(claims: list[Claim], path: Path, reader: Reader, judge: Judge, took_s: float) -> None:
    if claims:
        header = ["WHEN", "AT", "LASTED", "ENGINE", "DETECTOR", "SEVERITY", "WHAT"]
        echo_table(header, [_row(claim, reader.first or 0.0, judge) for claim in claims])
    found = f"{len(claims)} finding{'' if len(claims) == 1 else 's'}" if claims else "nothing found"
    engines = f"{reader.engines} engine{'' if reader.engines == 1 else 's'}"
    speed = f", judged {reader.seconds / took_s:,.0f} x as fast as it was" if reader.seconds and took_s else ""
    missing = f", {reader.dropped} more were missed when it was recorded" if reader.dropped else ""
    late = f", {reader.late} that came late or twice passed over" if reader.late else ""
    bad = f", {reader.bad} bad lines left out" if reader.bad else ""
    span = shown_age(reader.seconds)
    click.echo(f"{path}: {found} in {reader.lines} readings of {engines} over {span}{missing}{late}{bad}{speed}")
    for engine, standing in judge.standing().items():
        if learning := unjudged(standing, "learning"):
            click.echo(f"  {engine}: still learning at the end: {learning}")
        if unknown := unjudged(standing):
            click.echo(f"  {engine}: nobody could judge at the end: {unknown}")


def _row(claim: Claim, first: float, judge: Judge) -> list[str]:
    finding = claim.finding
    lasted = "still open" if claim.closed is None else f"{claim.closed - claim.opened:.1f}s"
    sure = "" if claim.confirmed is not None else "suspected: "
    return [
        dt.datetime.fromtimestamp(claim.opened).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        f"+{claim.opened - first:.1f}s",
        lasted,
        finding.engine,
        finding.detector,
        judge.severity(finding),
        f"{sure}{finding.summary}",
    ]
