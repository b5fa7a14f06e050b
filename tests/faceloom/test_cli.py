import json
import subprocess
import sys

import pytest
import typer

import faceloom
from faceloom import cli, models
from faceloom.errors import CheckFailed, UserError
from tests.faceloom.conftest import CONTENT
from tests.s3 import BUCKET, SECRET_KEY, needs_key


def every_command() -> list[tuple[str, ...]]:
    commands = typer.main.get_command(cli.app).commands.items()
    return [(name, *inner) for name, command in commands for inner in _of_group(command) or [()]]


def _of_group(command: object) -> list[tuple[str]]:
    return [(name,) for name in getattr(command, "commands", ())]


def test_version(run):
    assert run("--version") == (0, f"faceloom {faceloom.__version__}\n", "")


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_help_has_an_example(run, command):
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "Example" in out
    assert "faceloom " + " ".join(command) in out.split("Example", 1)[1]


def test_help_loads_no_heavy_package():
    code = "import sys, faceloom.cli; print(*sorted({'torch', 'ray', 'mediapipe', 'cv2', 'decord'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_module_runs_as_the_command_does():
    result = subprocess.run(
        [sys.executable, "-m", "faceloom", "--version"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_wrong_use_exits_2(run):
    code, _, err = run("modles")
    assert code == 2
    assert "modles" in err


@pytest.mark.parametrize("key", ["curate.motion.mode", "encode.codec.kind", "train.stages.bsae.steps", "animate.stpes"])
def test_a_misspelt_key_of_the_demo_is_told_before_it_begins(run, monkeypatch, tmp_path, key):
    monkeypatch.setattr(models, "fetch", lambda *_: pytest.fail("the demo has begun"))
    code, _, err = run("demo", "--out", tmp_path / "demo", "--set", f"{key}=3")
    assert code == 2
    assert key.split(".")[-1] in err or "bsae" in err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(("error", "expected"), [(UserError, 2), (CheckFailed, 1)])
def test_errors_for_people_are_printed_whole_and_unformatted(run, monkeypatch, error, expected):
    text = "clip [bold]x[/bold] " + "long/" * 40 + "\n  second line"

    def fail(_name: str) -> None:
        raise error(text)

    monkeypatch.setattr(models, "locate", fail)
    code, out, err = run("models", "list")
    assert (code, out) == (expected, "")
    assert text in err


def test_fetch_then_verify_passes(run, registry):
    code, out, _ = run("models", "fetch")
    assert code == 0
    assert all(f"{name}: " in out for name in CONTENT)
    assert run("models", "verify")[0] == 0


def test_fetch_for_a_config_gets_what_it_asks_for_and_no_more(run, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(models, "fetch", lambda names, _report: asked.extend(names) or {})
    (tmp_path / "mine.yaml").write_text("curate: {flow: {model: raft-small}}")
    assert run("models", "fetch", "--for", str(tmp_path / "mine.yaml"))[0] == 0
    assert asked == ["face_landmarker", "raft-small"]


def test_verify_fails_on_a_wrong_file_and_names_the_remedy(run, registry):
    path = models.fetch(["weights-a"])["weights-a"]
    path.write_bytes(b"rotten")
    code, out, err = run("models", "verify")
    assert code == 1
    assert "wrong file: weights-a" in out
    assert "faceloom models fetch weights-a" in err


def test_verify_of_a_named_file_fails_when_it_is_missing_but_verify_of_all_does_not(run, registry):
    assert run("models", "verify")[0] == 0
    assert run("models", "verify", "weights-b")[0] == 1


def test_list_as_json_gives_state_and_provenance(run, registry):
    models.fetch(["weights-b"])
    _, out, _ = run("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["weights-a"]["state"] == "not fetched"
    assert rows["weights-b"]["state"] == "ready"
    assert rows["weights-b"]["path"] == str(models.cache_folder() / registry["weights-b"].file)
    assert rows["siglip-so400m"]["hub_id"].startswith("google/")


def test_list_tells_what_the_user_has_to_supply_and_where_to_put_it(run, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    (tmp_path / "flame").mkdir()
    (tmp_path / "flame" / "generic_model.pkl").write_bytes(b"a head")
    _, out, _ = run("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["flame"]["state"] == "ready"
    assert rows["flame"]["path"] == str(tmp_path / "flame" / "generic_model.pkl")
    assert rows["smirk-encoder"]["state"] == "supply it yourself"
    assert rows["smirk-encoder"]["put_at"] == str(tmp_path / "smirk" / "SMIRK_em1.pt")
    assert "Google Drive" in rows["smirk-encoder"]["source"]
    _, out, _ = run("models", "list")
    assert "supply it yourself" in out
    assert "no pinned sha256" in out


def test_a_manifest_is_made_of_what_lies_behind_a_url_and_written_there(run, s3):
    s3.client().put_object(Bucket=BUCKET, Key="talks/a.mp4", Body=b"video")
    code, out, _ = run("ingest", "folder", "--root", "s3://footage/talks", "--out", "s3://footage/m.parquet")
    assert (code, out.splitlines()[0]) == (
        0,
        "s3://footage/m.parquet: 1 clips, 0 of them with the bytes of an earlier one",
    )
    assert "m.parquet" in s3.objects()


def test_a_storage_that_refuses_is_an_error_with_its_remedy_and_no_traceback(run, s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG0")
    with s3.fault(".", needs_key):
        for arguments in (
            ("status", "s3://footage/set"),
            ("verify", "s3://footage/set"),
            ("curate", "--manifest", "s3://footage/m.parquet", "--out", "s3://footage/set", "--plan"),
            ("ingest", "folder", "--root", "s3://footage/talks", "--out", "s3://footage/m.parquet"),
        ):
            code, out, err = run(*arguments)
            assert code in (1, 2), arguments
            assert "AWS_ACCESS_KEY_ID" in out + err, arguments
            assert not any(secret in out + err for secret in ("AKIAWRONG", SECRET_KEY, "Traceback")), arguments


def test_a_url_with_a_password_is_refused_where_it_is_given(run):
    code, _, err = run("status", "s3://AKIAXYZ:hunter2@bucket/set")
    assert code == 2
    assert "in the environment" in err
    assert "hunter2" not in err


def test_a_url_where_only_a_folder_will_do_is_refused(run):
    for arguments in (
        ("shards", "repack", "dataset", "--out", "s3://b/new"),
        ("inspect", "dataset", "--out", "s3://b/x"),
    ):
        code, _, err = run(*arguments)
        assert (code, "this machine" in err) == (2, True)
