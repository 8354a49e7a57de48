"""``perfstream dashboards``: build, check and publish the Grafana dashboards."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from dashboards import show
from dashboards.selection import duration
from dashboards.store import connect
from runtime import settings as settings_module
from streams.schema.errors import PerfstreamError


@click.group()
def dashboards() -> None:
    """Build, check and publish the Grafana dashboards."""


@dashboards.command()
@click.option("--check", is_flag=True, help="Write nothing; fail when the files are not what the code says.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where to write [the source tree].")
def build(check: bool, output: Path | None) -> None:
    """Generate the dashboards' JSON and the alert rules."""
    from dashboards import output as out

    files = out.render(output)
    wrong = [f"{path.name}: {p}" for path, text in files.items() if path.suffix == ".json" for p in out.problems(text)]
    if wrong:
        raise PerfstreamError("; ".join(wrong))
    if check:
        stale = out.stale(output)
        if stale:
            names = ", ".join(path.name for path in stale)
            raise PerfstreamError(f"not up to date: {names}; run 'perfstream dashboards build'")
        click.echo(f"{len(files)} files are up to date")
        return
    changed = out.write(output)
    click.echo(f"{len(files)} files in {output or out.DIRECTORY.parents[1]}, {len(changed)} changed")


@dashboards.command()
@click.option("--dsn", default="", help="ClickHouse, e.g. http://HOST:8123/perfstream [the local stack's].")
@click.option("--since", default="1h", show_default=True, help="The dashboards' time range.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def check(dsn: str, since: str, form: str) -> None:
    """Run every panel, variable and alert on a store; an error or an empty panel fails."""
    from dashboards.check import run

    end = datetime.now(UTC)
    store = connect(dsn)
    with show.waiting("running every query"):
        results = run(store, end - duration(since), end)
    if form == "json":
        show.write_json([asdict(result) for result in results])
    else:
        show.write_table(
            [
                {
                    "dashboard": result.board,
                    "query": result.query,
                    "state": result.state,
                    "rows": str(result.rows),
                    "time": show.human(result.seconds * 1e9, "nanoseconds"),
                    "note": result.note,
                }
                for result in results
            ],
            right=("rows", "time"),
        )
    wrong = [result for result in results if not result.fine]
    if wrong:
        raise PerfstreamError(
            f"{len(wrong)} of {len(results)} queries fail or come back empty, first: {wrong[0].query}"
        )
    click.echo(f"all {len(results)} queries answer", err=form == "json")


@dashboards.command()
@click.option("--url", default="", help="Grafana, e.g. http://127.0.0.1:3000 [PERFSTREAM_GRAFANA_URL].")
@click.option("--user", default="", help="User; the password is read from PERFSTREAM_GRAFANA_PASSWORD.")
@click.option("--folder", default="perfstream", show_default=True, help="Title of the folder.")
def push(url: str, user: str, folder: str) -> None:
    """Publish the dashboards to Grafana, replacing what is there.

    A service account's token is read from PERFSTREAM_GRAFANA_TOKEN or the settings file: `ps` shows arguments.
    """
    from dashboards.push import PushSettings
    from dashboards.push import push as publish

    settings = settings_module.load(PushSettings).grafana
    settings = replace(settings, url=url or settings.url, user=user or settings.user)
    for address in publish(settings, folder):
        click.echo(address)
