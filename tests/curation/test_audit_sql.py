import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.audit_sql import ask
from faceloom.errors import UserError
from shards.verify import verify
from tests.curation.ledgers import decided, write_whole_dataset

Run = Callable[..., tuple[int, str, str]]


def test_the_ledger_is_one_table_with_the_part_of_each_row(dataset: Path) -> None:
    query = "SELECT part, source_key, outcome, yaw_p95_deg FROM ledger ORDER BY yaw_p95_deg DESC LIMIT 2"
    answer = ask(dataset, query)
    assert answer.columns == ("part", "source_key", "outcome", "yaw_p95_deg")
    assert answer.rows == ((1, "4.mp4", "rejected", 60.0), (1, "3.mp4", "kept", 44.0))


def test_the_index_joins_the_ledger_by_clip_part_and_position(dataset: Path) -> None:
    query = """
        SELECT source_key, part, nbytes FROM ledger JOIN samples USING (part)
        WHERE key = clip_id AND sample = shard_sample AND layer = 'base' AND field = 'pose.npy' ORDER BY source_key
    """
    rows = ask(dataset, query).rows
    assert [row[:2] for row in rows] == [("0.mp4", 0), ("1.mp4", 0), ("2.mp4", 0), ("3.mp4", 1)]
    assert {row[2] for row in rows} == {49 * 16 * 4 + 128}


def test_the_manifest_is_a_view_where_it_is_given_and_the_right_one(dataset: Path, tmp_path: Path) -> None:
    manifest = dataset.with_suffix(".parquet")
    assert ask(dataset, "SELECT count(*) FROM manifest ANTI JOIN ledger USING (clip_id)", manifest).rows == ((0,),)
    with pytest.raises(UserError, match="manifest needs --manifest FILE"):
        ask(dataset, "SELECT * FROM manifest")
    other = tmp_path / "other"
    write_whole_dataset(other, [[decided(9)]])
    with pytest.raises(UserError, match="is not the manifest"):
        ask(dataset, "SELECT * FROM manifest", other.with_suffix(".parquet"))


def test_telemetry_is_a_view_and_empty_where_there_is_none(dataset: Path) -> None:
    assert ask(dataset, "DESCRIBE telemetry").rows[0][0] == "clip_id"
    shutil.rmtree(dataset / "telemetry")
    assert ask(dataset, "SELECT count(wall_s) FROM telemetry").rows == ((0,),)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        'SELECT * FROM "table"',  # a variable of the program
        "SELECT * FROM duckdb_secrets()",
    ],
)
def test_a_query_reaches_no_file_and_nothing_of_the_program(dataset: Path, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nopen sesame\n")
    with pytest.raises(UserError):
        ask(dataset, query.format(secret=secret, folder=tmp_path))


@pytest.mark.parametrize(
    "query",
    [
        "",
        "COPY (SELECT 1) TO '{target}'",
        "ATTACH '{target}'",
        "SELECT 1; COPY (SELECT 1) TO '{target}'",
        "EXPORT DATABASE '{target}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access=true",
        "PRAGMA database_list",
        "DROP VIEW ledger",
        "CREATE TABLE mine AS SELECT 1",
    ],
)
def test_only_a_select_is_asked(dataset: Path, tmp_path: Path, query: str) -> None:
    target = tmp_path / "written"
    with pytest.raises(UserError, match="only one SELECT"):
        ask(dataset, query.format(target=target))
    assert not target.exists()
    assert verify(dataset) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT yaw FROM ledger", '"yaw" not found'),
        ("SELECT * FROM clips", "there are the views ledger, samples, telemetry"),
        ("SELECT error('no') FROM ledger", "no"),
    ],
)
def test_a_bad_query_is_told_what_is_wrong_with_it(dataset: Path, query: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(dataset, query)


def test_a_damaged_fragment_is_named(dataset: Path) -> None:
    path = dataset / "ledger" / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"part-00001\.parquet"):
        ask(dataset, "SELECT * FROM ledger")


def test_a_dataset_without_a_decided_block_has_empty_views(dataset: Path) -> None:
    for folder in ("ledger", "shards", "telemetry"):
        shutil.rmtree(dataset / folder)
    assert ask(dataset, "SELECT count(*) FROM ledger, samples WHERE layer = 'base' AND outcome = 'kept'").rows == (
        (0,),
    )


def test_the_command_prints_a_table_json_or_csv(dataset: Path, run: Run) -> None:
    query = """
        SELECT source_key, rule, yaw_p95_deg, 'nan'::DOUBLE AS nan, [1.5::DOUBLE] AS list
        FROM ledger WHERE part = 1 ORDER BY source_key
    """
    code, out, _ = run("audit", "sql", dataset, query)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["source_key", "rule", "yaw_p95_deg", "nan", "list"],
        ["3.mp4", "44.0", "nan", "[1.5]"],
        ["4.mp4", "yaw", "60.0", "nan", "[1.5]"],
    ]
    _, out, _ = run("audit", "sql", dataset, query, "--json")
    assert json.loads(out)[0] == {
        "source_key": "3.mp4",
        "rule": None,
        "yaw_p95_deg": 44.0,
        "nan": None,
        "list": [1.5],
    }
    _, out, _ = run("audit", "sql", dataset, query, "--csv")
    assert list(csv.reader(io.StringIO(out)))[2] == ["4.mp4", "yaw", "60.0", "nan", "[1.5]"]
    assert run("audit", "sql", dataset, query, "--csv", "--json")[0] == 2


def test_what_a_table_shows_is_not_taken_for_markup(dataset: Path, run: Run) -> None:
    assert "[bold]x[/bold] :smile:" in run("audit", "sql", dataset, "SELECT '[bold]x[/bold] :smile:' AS \"[red]\"")[1]
