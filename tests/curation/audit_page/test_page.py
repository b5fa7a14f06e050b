"""The page in a real browser, against what `faceloom what-if` says of the same ledger."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from curation.audit_page.page import write_page
from curation.config import CurationConfig
from curation.ledger import read_ledger
from curation.redecide import OUTCOMES, REJECTED
from curation.rules import RULES
from curation.what_if import WhatIf, what_if_of
from faceloom.config import load
from faceloom.errors import UserError
from shards.dataset import ledger_path
from tests.browser import Visit, visiting
from tests.conftest import Run
from tests.curation.large_ledgers import made_up_ledger, write_ledger

YAW = "#card-motion-max_yaw_deg"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ledger(tmp_path_factory.mktemp("ledger") / "set", made_up_ledger(3000))


@pytest.fixture(scope="module")
def page(dataset: Path) -> Path:
    file = dataset.with_name("audit.html")
    written = write_page(dataset, file)
    assert not written.sampled
    return file


def number(text: str) -> int:
    return int(text.replace(",", "").replace("−", "-").replace("≈", "").strip() or 0)


def funnel(visit: Visit) -> dict[str, tuple[int, int]]:
    """Now and then of every row of the page's funnel."""
    rows = visit.page.locator(".funnel tbody tr").evaluate_all(
        "rows => rows.map(row => [row.children[0].textContent, row.children[2].textContent, row.children[3].textContent])"
    )
    return {name: (number(now), number(then)) for name, now, then in rows}


def cell(visit: Visit, name: str) -> int:
    return number(visit.page.locator(f".verdict .{name} .count").inner_text())


def expected_funnel(result: WhatIf) -> dict[str, tuple[int, int]]:
    before, now = result.funnel(result.before), result.funnel(result.now)
    names = {("failed", ""): "failed", ("unknown", ""): "to be curated again", ("kept", ""): "kept"}
    labels = [("rejected", rule.name) for rule in RULES] + list(names)
    return {names.get(label, label[1]): (before.get(label, 0), now.get(label, 0)) for label in labels}


def assert_agrees(visit: Visit, result: WhatIf) -> None:
    assert funnel(visit) == expected_funnel(result)
    assert cell(visit, "kept") == expected_funnel(result)["kept"][1]
    assert cell(visit, "in") == result.count(result.would_be_kept)
    assert cell(visit, "unknown") == result.count(result.not_measured)
    others = visit.page.locator(".changes .others").inner_text()
    assert number(others.split(" ")[0] if others else "0") == result.count(result.other_window)


def settle(visit: Visit) -> None:
    visit.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_it_shows_the_ledger_without_an_error_or_a_request(visit: Visit, page: Path, dataset: Path):
    visit.open(page)
    assert visit.page.title() == "set: Faceloom audit"
    assert_agrees(visit, what_if_of(dataset))
    assert [url.partition(":")[0] for url in visit.requests] == ["file"]


def test_a_slider_decides_as_what_if_does(visit: Visit, page: Path, dataset: Path):
    visit.open(page)
    slider = visit.page.locator(f"{YAW} input[type=range]")
    slider.fill("20")
    settle(visit)
    result = what_if_of(dataset, overrides=["motion.max_yaw_deg=20"])
    assert_agrees(visit, result)
    before = expected_funnel(result)["kept"]
    assert cell(visit, "out") == before[0] - before[1] > 0


@pytest.mark.parametrize(
    "settings",
    [
        ["motion.max_yaw_deg=90", "motion.max_pitch_deg=10", "character.min_face_px=120"],
        ["motion.mode=all", "motion.min_head_range_deg=20.5"],
        ["window.min_frames=40"],
        ["crop.max_upscale=1.2", "character.min_face_window_share=0.3"],
        ["character.max_contested_share=0.5", "video.max_repeated_share=0"],
        ["video.fps=10"],
        ["character.max_face_frame_share=1e-7", "motion.max_speed_deg_s=1e6"],
    ],
    ids=" ".join,
)
def test_a_shared_link_decides_as_what_if_does(visit: Visit, page: Path, dataset: Path, settings: list[str]):
    visit.open(page, "&".join(settings))
    assert_agrees(visit, what_if_of(dataset, overrides=settings))


def test_a_threshold_that_is_some_clips_own_value_decides_it_as_numpy_does(visit: Visit, page: Path, dataset: Path):
    ledger = read_ledger(dataset, ["outcome", "yaw_p95_deg"])
    kept = np.asarray(ledger["yaw_p95_deg"])[np.asarray(ledger["outcome"]) == "kept"]
    value = float(np.sort(kept)[len(kept) // 2])
    at, below = (
        what_if_of(dataset, overrides=[f"motion.max_yaw_deg={limit!r}"])
        for limit in (value, np.nextafter(value, 0).item())
    )
    visit.open(page, f"motion.max_yaw_deg={value!r}")
    assert_agrees(visit, at)
    visit.open(page, f"motion.max_yaw_deg={np.nextafter(value, 0).item()!r}")
    assert_agrees(visit, below)
    assert expected_funnel(below)["kept"][1] == expected_funnel(at)["kept"][1] - 1


def test_the_configuration_it_offers_is_the_one_that_it_decided_by(
    visit: Visit, page: Path, dataset: Path, tmp_path: Path
):
    settings = ["motion.max_yaw_deg=12.25", "motion.mode=all", "crop.max_upscale=1.25"]
    visit.open(page, "&".join(settings))
    wanted = load(CurationConfig, None, settings)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Download audit.yaml").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert load(CurationConfig, str(saved)) == wanted
    line = visit.page.get_by_label("Command that gives the same counts").input_value()
    assert line == f"faceloom what-if {dataset} " + " ".join(
        f"--set {setting}" for setting in sorted(settings, key=lambda s: s.startswith("crop"))
    )


def test_settings_of_the_ledger_that_differ_from_the_defaults_stay_in_the_configuration_it_offers(
    visit: Visit, tmp_path: Path
):
    config = CurationConfig.model_validate({"motion": {"max_roll_deg": 35}, "flow": {"scale": 0.25}})
    root = write_ledger(tmp_path / "set", made_up_ledger(50), config=config)
    write_page(root, tmp_path / "audit.html")
    visit.open(tmp_path / "audit.html", "motion.max_yaw_deg=30")
    offered = yaml.safe_load(visit.page.get_by_label("Configuration").inner_text())
    assert offered == {"curate": {"motion": {"max_roll_deg": 35, "max_yaw_deg": 30}, "flow": {"scale": 0.25}}}


def test_reset_undoes_every_change_and_the_address_keeps_them_until_then(visit: Visit, page: Path, dataset: Path):
    visit.open(page)
    visit.page.locator("#motion-max_yaw_deg").fill("10")
    visit.page.locator("#motion-mode").select_option("all")
    visit.page.wait_for_url("**#motion.max_yaw_deg=10&motion.mode=all")
    visit.page.reload()
    visit.page.wait_for_selector("html[data-ready]")
    assert_agrees(visit, what_if_of(dataset, overrides=["motion.max_yaw_deg=10", "motion.mode=all"]))
    visit.page.get_by_role("button", name="Reset").click()
    settle(visit)
    assert_agrees(visit, what_if_of(dataset))
    assert visit.page.get_by_role("button", name="Reset").is_disabled()


@pytest.mark.parametrize(
    "nonsense", ["motion.max_yaw_deg=abc", "motion.mode=some", "window.min_frames=1", "no.such=1", "%%%"]
)
def test_an_address_that_no_configuration_would_take_changes_nothing(visit: Visit, page: Path, nonsense: str):
    visit.open(page, nonsense)
    assert visit.page.get_by_role("button", name="Reset").is_disabled()


def test_a_number_that_the_configuration_refuses_is_marked_and_not_taken(visit: Visit, page: Path):
    visit.open(page)
    field = visit.page.locator("#window-min_frames")
    field.fill("1")
    assert field.get_attribute("aria-invalid") == "true"
    assert visit.page.get_by_role("button", name="Reset").is_disabled()


def test_a_slider_does_not_stay_where_the_configuration_refuses_it(visit: Visit, page: Path):
    visit.open(page)
    slider = visit.page.locator("#card-motion-min_head_range_deg input[type=range]")
    slider.fill("0")
    settle(visit)
    assert float(slider.input_value()) == 8
    assert visit.page.get_by_role("button", name="Reset").is_disabled()


def test_it_works_by_keyboard_alone(visit: Visit, page: Path):
    visit.open(page)
    visit.page.locator("#motion-max_yaw_deg").focus()
    visit.page.keyboard.press("Tab")
    visit.page.mouse.wheel(0, 40)
    visit.page.wait_for_timeout(100)
    assert visit.page.locator("#tip").is_visible()  # the focus is on the rule's name
    assert "yaw_p95_deg ≤ motion.max_yaw_deg" in visit.page.locator("#tip").inner_text()
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("#tip").is_hidden()
    slider = visit.page.locator(f"{YAW} input[type=range]")
    while not slider.evaluate("e => e === document.activeElement"):
        visit.page.keyboard.press("Tab")
    before = float(slider.input_value())
    visit.page.keyboard.press("ArrowLeft")
    settle(visit)
    assert float(slider.input_value()) < before
    assert float(visit.page.locator("#motion-max_yaw_deg").input_value()) == float(slider.input_value())
    assert slider.evaluate("e => getComputedStyle(e).outlineStyle") != "none"


def test_every_control_has_a_name(visit: Visit, page: Path):
    visit.open(page)
    nameless = visit.page.locator("input, select, button, a, [tabindex='0']").evaluate_all(
        """all => all.filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map(e => e.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_moves_while_a_slider_does_and_nothing_sticks_out(browser: Any, page: Path, width: int):
    with visiting(browser, viewport={"width": width, "height": 850}) as visit:
        visit.open(page)
        places = """() => [...document.querySelectorAll('h2, .card, .funnel tr, .verdict .cell')].map(e => {
            const box = e.getBoundingClientRect(); return [box.x, box.y + scrollY, box.width, box.height]; })"""
        slider = visit.page.locator(f"{YAW} input[type=range]")
        slider.focus()
        before = visit.page.evaluate(places)
        for value in ("1", "30", "60"):
            slider.fill(value)
            settle(visit)
            assert visit.page.evaluate(places) == before
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width


def test_datasets_are_counted_apart(visit: Visit, page: Path, dataset: Path):
    visit.open(page, "motion.max_yaw_deg=20")
    visit.page.get_by_label("Dataset", exact=True).select_option("set-1")
    settle(visit)
    result = what_if_of(dataset, overrides=["motion.max_yaw_deg=20"])
    of_set = np.asarray(read_ledger(dataset, ["dataset"])["dataset"]) == "set-1"
    assert cell(visit, "kept") == int(np.sum(of_set & (result.now.outcome == 0)))


def test_what_a_sample_cannot_change_stays_exact(visit: Visit, dataset: Path, tmp_path: Path):
    write_page(dataset, tmp_path / "audit.html", most_rows=600)
    visit.open(tmp_path / "audit.html", "motion.max_yaw_deg=20")
    cells = visit.page.locator(".funnel tbody tr").evaluate_all("rows => rows.map(row => row.children[3].textContent)")
    names = [rule.name for rule in RULES]
    yaw = names.index("yaw")
    assert not any("≈" in then for then in cells[:yaw])
    assert "≈" in cells[yaw]
    assert cell(visit, "unknown") == 0


def test_a_ledger_that_was_decided_again_has_clips_of_which_nothing_is_known(
    visit: Visit, dataset: Path, tmp_path: Path
):
    now = what_if_of(dataset, overrides=["motion.max_yaw_deg=90"]).now
    rejected = now.outcome == REJECTED
    table = read_ledger(dataset)
    for name, values in {
        "outcome": pa.array(np.array(OUTCOMES)[now.outcome]),
        "rule": pa.array(np.array([rule.name for rule in RULES])[now.rule], mask=~rejected),
    }.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    config = CurationConfig.model_validate({"motion": {"max_yaw_deg": 90}})
    root = write_ledger(tmp_path / "set", table, config=config)
    write_page(root, tmp_path / "audit.html")
    visit.open(tmp_path / "audit.html")
    assert_agrees(visit, what_if_of(root))
    assert expected_funnel(what_if_of(root))["to be curated again"][0] > 0
    visit.open(tmp_path / "audit.html", "motion.max_pitch_deg=5")
    assert_agrees(visit, what_if_of(root, overrides=["motion.max_pitch_deg=5"]))


def test_further_windows_are_samples_and_no_clips(visit: Visit, tmp_path: Path):
    table = made_up_ledger(500)
    names = table["clip_id"].to_pylist()
    of_clip = pa.array([names[i - 1] if i % 5 == 4 else None for i in range(500)], pa.string())
    if "of_clip" in table.column_names:
        table = table.drop_columns("of_clip")
    root = write_ledger(tmp_path / "set", table.append_column("of_clip", of_clip))
    write_page(root, tmp_path / "audit.html")
    visit.open(tmp_path / "audit.html", "motion.max_yaw_deg=20")
    result = what_if_of(root, overrides=["motion.max_yaw_deg=20"])
    assert_agrees(visit, result)
    facts = dict(zip(*(visit.page.locator(f".facts {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True))
    assert facts["clips"] == "400"
    assert facts["samples, several of some clips"] == str(int(np.sum(result.before.outcome == 0)))


def test_a_ledger_of_failures_only_is_shown_too(visit: Visit, tmp_path: Path):
    table = made_up_ledger(3000)
    failed = table.filter(pc.equal(table["outcome"], "failed"))
    root = write_ledger(tmp_path / "set", failed)
    write_page(root, tmp_path / "audit.html")
    visit.open(tmp_path / "audit.html", "crop.max_upscale=1.1&motion.max_yaw_deg=3")
    assert_agrees(visit, what_if_of(root, overrides=["crop.max_upscale=1.1", "motion.max_yaw_deg=3"]))


def test_the_command_writes_the_page_and_says_how_large_it_is(dataset: Path, tmp_path: Path, run: Run):
    code, out, _ = run("audit", dataset, "--out", tmp_path / "audit.html")
    assert not code
    assert "3,000 rows, 0 previews" in out
    assert (tmp_path / "audit.html").read_text("utf-8").startswith("<!doctype html>")


def test_what_cannot_be_read_or_written_is_told_with_a_remedy(dataset: Path, tmp_path: Path):
    with pytest.raises(UserError, match="existing folder with --out"):
        write_page(dataset, tmp_path / "nowhere" / "audit.html")
    with pytest.raises(UserError, match="give the folder"):
        write_page(tmp_path, tmp_path / "audit.html")
    with pytest.raises(UserError, match="has no rows yet"):
        write_page(write_ledger(tmp_path / "empty", made_up_ledger(3).slice(0, 0)), tmp_path / "audit.html")


def test_a_ledger_of_a_million_rows_opens_and_decides_again(visit: Visit, tmp_path: Path):
    rows = 50_000
    root = write_ledger(tmp_path / "set", made_up_ledger(rows), fragment_rows=rows)
    for part in range(1, 20):
        shutil.copy(ledger_path(root, part=0), ledger_path(root, part))
    written = write_page(root, tmp_path / "audit.html")
    assert written.rows == 1_000_000
    visit.open(tmp_path / "audit.html")
    assert_agrees(visit, what_if_of(root))
    visit.page.locator(f"{YAW} input[type=range]").fill("20")
    settle(visit)
    exact = expected_funnel(what_if_of(root, overrides=["motion.max_yaw_deg=20"]))["kept"]
    error = number(visit.page.locator(".verdict .kept .error").inner_text().removeprefix("±"))
    assert abs(cell(visit, "kept") - exact[1]) < 2 * error < 0.05 * exact[0]


HOSTILE = (
    "</script x></script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'><!--\" &amp; \u2028"
)


def test_what_a_dataset_says_of_itself_stays_text(visit: Visit, tmp_path: Path):
    table = made_up_ledger(400)
    for name in ("dataset", "source_key", "licence", "error", "message"):
        column = table.schema.get_field_index(name)
        values = [None if value is None else f"{HOSTILE} {value}" for value in table[name].to_pylist()]
        table = table.set_column(column, table.schema.field(name), pa.array(values, pa.string()))
    root = write_ledger(tmp_path / "<b>set<b>", table)
    write_page(root, tmp_path / "audit.html")
    visit.open(tmp_path / "audit.html", "motion.max_yaw_deg=5")
    assert visit.page.evaluate("window.taken") is None
    assert visit.page.locator("img, script:not([type='application/json'])").count() == 1
    assert visit.page.locator("h1").inner_text() == "<b>set<b>"
    for place in (".list .source", ".example .source", "td .message", "td .source"):
        assert visit.page.locator(place).first.text_content().startswith(HOSTILE)


def test_of_a_large_ledger_it_decides_a_sample_and_says_so(visit: Visit, dataset: Path, tmp_path: Path):
    written = write_page(dataset, tmp_path / "audit.html", most_rows=600)
    assert written.sampled
    assert written.packed < 1500
    visit.open(tmp_path / "audit.html")
    assert_agrees(visit, what_if_of(dataset))
    visit.page.evaluate("location.hash = 'motion.max_yaw_deg=20'")
    settle(visit)
    exact = expected_funnel(what_if_of(dataset, overrides=["motion.max_yaw_deg=20"]))["kept"][1]
    kept = visit.page.locator(".verdict .kept .count").inner_text()
    assert kept.startswith("≈")
    error = number(visit.page.locator(".verdict .kept .error").inner_text().removeprefix("±"))
    assert 0 < error < 200
    assert abs(number(kept) - exact) < 2 * error
    assert "sample" in visit.page.locator(".what-if > .note").inner_text()
