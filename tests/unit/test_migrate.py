"""Reading migrations: order, names, statements."""

import pytest

from sinks import migrate
from streams.schema.errors import SettingsError


def test_statements_end_at_a_semicolon_at_the_end_of_a_line():
    text = "-- not; one\nCREATE TABLE a (b String DEFAULT ';', c Int8);\n -- more\nDROP TABLE d;  \nSELECT 1"
    assert migrate.statements(text) == (
        "CREATE TABLE a (b String DEFAULT ';', c Int8)",
        "DROP TABLE d",
        "SELECT 1",
    )


def test_the_migrations_are_numbered_and_can_be_repeated():
    found = migrate.load()
    assert [m.name[:4] for m in found] == [f"{n:04d}" for n in range(1, len(found) + 1)]
    for migration in found:
        assert migration.statements
        for statement in migration.statements:
            assert "IF NOT EXISTS" in statement or "IF EXISTS" in statement, statement[:80]


@pytest.mark.parametrize("names", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["first.sql"], ["0001_A.sql"]])
def test_a_gap_or_a_bad_name_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(SettingsError, match="no gaps"):
        migrate.load(tmp_path)


def test_a_changed_text_has_another_checksum(tmp_path):
    path = tmp_path / "0001_a.sql"
    path.write_text("SELECT 1;")
    before = migrate.load(tmp_path)[0]
    path.write_text("SELECT 1; ")
    assert migrate.load(tmp_path)[0].checksum != before.checksum
    assert len(before.checksum) == 64
