"""What the reading user may send: one statement that only reads, from tables that tell nothing about other users.

The engine knows one user, and its read-only mode still ends other users' statements (``KILL``), lists them
(``system.processes``), connects to other servers (``DESCRIBE url(...)``) and runs two statements of one request. So the
engine's own parser is asked first what a statement consists of: ``formatQuerySingleLine`` refuses a second statement,
``EXPLAIN AST`` names every table and function as the engine will see it, whatever quotes, comments and escapes the
text holds. Cost: two parses, about 1 ms together.
"""

from __future__ import annotations

import re

from sinks.embedded.engine import Connection
from sinks.embedded.errors import QueryError
from sinks.embedded.request import Request

_ROOTS = frozenset((
    "SelectWithUnionQuery", "SelectQuery", "SelectIntersectExceptQuery", "Explain", "DescribeQuery", "ShowTables",
    "ShowColumns", "ShowFunctions", "ShowCreateTableQuery", "ExistsTableQuery", "ExistsDatabaseQuery",
))  # fmt: skip
_TABLES = frozenset((
    "aggregate_function_combinators", "build_options", "columns", "data_type_families", "databases", "formats",
    "functions", "keywords", "numbers", "numbers_mt", "one", "parts", "parts_columns", "settings", "table_functions",
    "tables", "time_zones", "zeros", "zeros_mt",
))  # fmt: skip
"""Tables of the database ``system`` that a reader may use: about tables and the language, not about who does what."""
_FUNCTIONS = frozenset((
    "format", "generate_series", "generateseries", "null", "numbers", "numbers_mt", "primes", "values", "view",
    "viewexplain", "zeros", "zeros_mt",
))  # fmt: skip
"""Table functions without a world outside; every other one reaches files, servers, or tables named by a text."""
_SETTINGS = re.compile(
    r"(?:output_format|input_format|http|send|date_time|cancel_http|enable_http|join|group_by|aggregate|cast)_\w+"
    r"|format_(?:csv|custom|tsv|regexp_escaping)_\w+|extremes|session_timezone|readonly|database|max_threads"
    r"|max_block_size|max_execution_time|max_memory_usage|max_result_rows|max_result_bytes|max_rows_to_read"
    r"|max_bytes_to_read|max_rows_to_group_by|use_client_time_zone|final|distinct_overflow_mode|totals_mode"
    r"|prefer_column_name_to_alias|count_distinct_implementation|query_cache_ttl|connect_timeout"
)
_NAMED = re.compile(r"^\s*(?:Table)?Identifier (\S+)", re.MULTILINE)
_CALLED = re.compile(r"^\s*Function (\S+)", re.MULTILINE)
_TWO_NAMES = re.compile(r"^\s*(?:ShowCreateTableQuery|ExistsTableQuery) (\S+) (\S+)", re.MULTILINE)


def check_settings(request: Request) -> None:
    """Refuse settings that a reader may not choose, and a database that it may not make the current one.

    Raises:
        QueryError: 452 for a setting, 497 for the database.
    """
    for name in request.settings:
        if not _SETTINGS.fullmatch(name):
            raise QueryError.of(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name[:64]} should not be changed")
    if request.database.lower() == "system":
        raise _denied("system")


def check_statement(connection: Connection, request: Request, table_functions: frozenset[str], bound: int) -> None:
    """Refuse every statement that is not one that reads, and every table or function of others' concern.

    Args:
        connection: one that is read-only already.
        request: the reader's request.
        table_functions: lower-case names of the engine's table functions.
        bound: most bytes that a statement may have.

    Raises:
        QueryError: 164, it does not only read; 497, it names what a reader may not use; 62, it is no statement.
    """
    if request.statement.kind in ("insert", "insert_select", "kill", "set"):
        raise QueryError.of(164, "READONLY", "Cannot execute query in readonly mode")
    if len(request.statement.text) > bound:
        raise QueryError.of(229, "QUERY_IS_TOO_LARGE", f"The statement is larger than {bound} bytes")
    text = request.statement.text.decode("utf-8", "surrogateescape")
    connection.execute("SELECT formatQuerySingleLine({q:String})", params={"q": _escaped(text)})
    tree = bytes(connection.execute("EXPLAIN AST " + text, "TabSeparatedRaw", request.params).bytes()).decode(
        "utf-8", "replace"
    )
    root = tree.split(None, 1)[0] if tree.strip() else ""
    if root not in _ROOTS:
        raise QueryError.of(164, "READONLY", "Cannot execute query in readonly mode")
    for found in _NAMED.finditer(tree):
        _check_table(found[1])
    for found in _TWO_NAMES.finditer(tree):
        _check_table(f"{found[1]}.{found[2]}")
    for found in _CALLED.finditer(tree):
        name = found[1].lower()
        if name == "file" or (name in table_functions and name not in _FUNCTIONS):
            raise _denied(f"{found[1]}(...)")


def _check_table(name: str) -> None:
    database, _, table = name.partition(".")
    if database == "system" and table and table.partition(".")[0] not in _TABLES:
        raise _denied(name)


def _denied(name: str) -> QueryError:
    return QueryError.of(497, "ACCESS_DENIED", f"Not enough privileges: a reading user may not use {name[:64]}")


def _escaped(text: str) -> str:
    """Return a text as the engine reads parameters: tab-separated, with escapes."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
