"""The ``perfstream`` command. Each verb lives with its stage and is imported only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

import click

from streams.schema.errors import PerfstreamError, UsageError

# name: (module, attribute, one line of help). Listed here so that `perfstream --help` imports nothing heavy.
COMMANDS = {
    "up": ("deploy.stack.command", "up", "Run the whole stack on this machine, with live status."),
    "demo": ("deploy.demo.command", "demo", "Run the stack around a known workload and check what it measured."),
    "agent": ("collectors.commands", "agent", "Run the node agent: eBPF collectors and scrapers to Kafka."),
    "ingest": ("collectors.ingest.command", "ingest", "Receive profiles that programs push (Pyroscope's protocols)."),
    "scrape": ("collectors.scrapers.command", "scrape", "Scrape one pprof endpoint and show its functions."),
    "gadget": ("collectors.gadget.command", "gadget", "Trace, profile or watch this machine live."),
    "topics": ("streams.commands", "topics", "Create and check the Kafka topics."),
    "worker": ("streams.commands", "worker", "Run the Faust worker: hotspots and latency windows."),
    "sink": ("sinks.commands", "sink", "Run the sink: Kafka to ClickHouse, every row once."),
    "migrate": ("sinks.commands", "migrate", "Create or upgrade the ClickHouse tables."),
    "deadletter": ("sinks.deadletter_command", "deadletter", "Show what could not be read, and replay it."),
    "store": ("sinks.store_command", "store", "Run the embedded ClickHouse (HTTP on loopback)."),
    "profile": ("dashboards.commands", "profile", "Ask what the time is spent on."),
    "dashboards": ("dashboards.commands", "dashboards", "Build, check and publish the Grafana dashboards."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order in which they are declared."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _help = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, _attribute, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="perfstream")
@click.pass_context
def cli(context: click.Context) -> None:
    """Always-on performance telemetry: eBPF and profiles to Kafka, Faust, ClickHouse and Grafana."""
    # A gadget may not import what draws flame graphs, which belongs to a later stage: it is handed to it.
    context.obj = draw


def draw(stacks: Mapping[tuple[str, ...], int], title: str) -> str:
    """Return a page with a flame graph of stacks (see ``deploy.drawing``)."""
    from deploy import drawing

    return drawing.draw(stacks, title)


def main() -> None:
    """Run the command line; an expected failure is one line on standard error and a non-zero exit."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except UsageError as error:
        click.echo(f"perfstream: {error}", err=True)
        sys.exit(2)
    except PerfstreamError as error:
        click.echo(f"perfstream: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`); Python would complain again while it flushes at exit.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
