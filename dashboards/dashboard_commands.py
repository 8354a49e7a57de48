"""``perfstream dashboards``: build, check and publish the Grafana dashboards."""

import click


@click.group()
def dashboards() -> None:
    """Build, check and publish the Grafana dashboards."""
