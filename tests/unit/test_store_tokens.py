"""Which tokens are taken back: those of parts that neither are there nor were merged into one that is."""

from sinks.embedded.tokens import take_back


def table(path, logs, parts):
    where = path / "store" / "a1" / "a1-uuid"
    (where / "deduplication_logs").mkdir(parents=True)
    for number, lines in logs.items():
        (where / "deduplication_logs" / f"deduplication_log_{number}.txt").write_text(lines)
    for part in parts:
        (where / part).mkdir()
    return where / "deduplication_logs"


def test_only_what_never_became_visible_is_taken_back(tmp_path):
    logs = table(
        tmp_path,
        {
            9: "1\t20261126_1_1_0\tone\n1\t20261126_2_2_0\ttwo\n1\t20261127_2_2_0\tother day\n",
            10: "1\t20261126_4_4_0\tfour\n1\t20261126_5_5_0\tfive\n2\t20261126_5_5_0\tfive\n1\t20261126_6_6_0\tsi",
        },
        ["20261126_1_3_1", "20261126_6_6_0_8", "tmp_insert_20261126_4_4_0", "tmp_insert_20261127_2_2_0"],
    )
    before = (logs / "deduplication_log_9.txt").read_text()
    assert take_back(tmp_path) == 2
    assert (logs / "deduplication_log_9.txt").read_text() == before
    lines = (logs / "deduplication_log_10.txt").read_text().splitlines()
    assert lines[:3] == ["1\t20261126_4_4_0\tfour", "1\t20261126_5_5_0\tfive", "2\t20261126_5_5_0\tfive"]
    assert sorted(lines[3:]) == ["2\t20261126_4_4_0\tfour", "2\t20261127_2_2_0\tother day"]
    assert take_back(tmp_path) == 0


def test_a_new_store_and_a_table_without_logs_are_left_alone(tmp_path):
    assert take_back(tmp_path) == 0
    logs = table(tmp_path, {}, ["all_1_1_0"])
    assert take_back(tmp_path) == 0
    assert list(logs.iterdir()) == []
