"""No stage imports a later one; the contract loads neither faust nor bcc; the command line loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = {"streams.schema"}
MAY_IMPORT = {
    "streams/schema": {"streams.schema"},
    "runtime": {"runtime", *CONTRACT},
    "streams": {"streams", "runtime"},
    "collectors": {"collectors", "runtime", *CONTRACT},
    "sinks": {"sinks", "runtime", *CONTRACT},
    "dashboards": {"dashboards", "runtime", "sinks.tables", "streams.regression", *CONTRACT},
    "deploy": {"deploy", "runtime", "streams", "collectors", "sinks", "dashboards"},
}
OURS = {"streams", "runtime", "collectors", "sinks", "dashboards", "deploy"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from streams import schema` imports streams.schema
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_stage_imports_a_later_one(folder):
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if folder == "streams" and "schema" in path.parts:
            continue
        for name in imported(path):
            if name.split(".")[0] in OURS and not any(
                name == allowed or name.startswith(allowed + ".") for allowed in MAY_IMPORT[folder]
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def loaded_by(statement):
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


def test_the_contract_loads_neither_faust_nor_bcc():
    modules = loaded_by("import streams.schema, streams.schema.codec, streams.schema.topics")
    assert not modules & {"faust", "bcc", "chdb", "aiokafka", "clickhouse_connect", "pandas", "click"}


def test_the_command_line_loads_nothing_heavy():
    modules = loaded_by("import deploy.cli")
    assert not modules & {"faust", "bcc", "chdb", "aiokafka", "clickhouse_connect", "pyarrow", "numpy", "rich"}


COMPILED = {"machine_code", "pprof_compiled", "pprof_stacks", "stack_digests"}


def test_only_the_push_endpoint_loads_a_compiler():
    names = {path: set(imported(path)) for folder in OURS for path in (ROOT / folder).rglob("*.py")}
    using = {
        path.stem for path, found in names.items() if any(name.startswith(("numba", "llvmlite")) for name in found)
    }
    assert using == COMPILED
    assert {path.stem for path, found in names.items() if "collectors.ingest.pprof_compiled" in found} == {
        "pprof_reader"
    }


def test_the_agent_and_the_endpoint_before_it_serves_load_no_compiler():
    modules = loaded_by("import collectors.agent, collectors.scrapers.scraper, collectors.ingest.process")
    assert {"collectors.scrapers.pprof", "collectors.ingest.pprof_reader"} <= modules
    compiled = {f"collectors.ingest.{name}" for name in COMPILED}
    assert not modules & {"numba", "llvmlite", *compiled}
