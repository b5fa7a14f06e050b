from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError, model_validator

from curation.config import CurationConfig
from faceloom import config
from faceloom.errors import UserError


class Motion(config.Section):
    mode: str = "any"
    yaw_range_deg: float = Field(8.0, ge=0)
    max_speed_deg_s: float = 300.0

    @model_validator(mode="after")
    def _slow_enough(self) -> "Motion":
        if self.yaw_range_deg > self.max_speed_deg_s:
            raise ValueError("yaw_range_deg may not exceed max_speed_deg_s")
        return self


class Video(config.Section):
    fps: float = 12.0
    decoder: str | None = None


class Root(config.Section):
    video: Video = Video()
    motion: Motion = Motion()


@pytest.fixture
def yaml_file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def message_of(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        config.load(Root, *args, **kwargs)
    return str(caught.value)


def test_no_source_gives_the_defaults():
    assert config.load(Root, None) == Root()


def test_a_file_changes_only_the_keys_it_names(yaml_file):
    loaded = config.load(Root, yaml_file("motion:\n  yaw_range_deg: 3\n"))
    assert loaded == Root(motion=Motion(yaw_range_deg=3.0))


def test_an_override_wins_over_the_file_and_the_last_override_over_earlier_ones(yaml_file):
    source = yaml_file("motion: {yaw_range_deg: 3, mode: all}")
    loaded = config.load(Root, source, ["motion.yaw_range_deg=4", "motion.yaw_range_deg=5"])
    assert loaded.motion == Motion(yaw_range_deg=5.0, mode="all")


@pytest.mark.parametrize(("written", "value"), [("1e-1", 0.1), ("0.1", 0.1), ("7", 7.0)])
def test_overrides_are_read_as_yaml_and_scientific_notation_is_a_number(written, value):
    assert config.load(Root, None, [f"motion.yaw_range_deg={written}"]).motion.yaw_range_deg == value


def test_an_override_may_contain_an_equals_sign_and_may_set_null():
    loaded = config.load(Root, None, ["motion.mode=a=b", "video.decoder=null"])
    assert loaded.motion.mode == "a=b"
    assert loaded.video.decoder is None


def test_an_empty_file_and_an_empty_section_are_the_defaults(yaml_file):
    assert config.load(Root, yaml_file("")) == Root()
    assert config.load(Root, yaml_file("motion:\n"), ["video.fps=24"]) == Root(video=Video(fps=24))
    assert config.load(Root, yaml_file("motion:\n"), ["motion.mode=all"]) == Root(motion=Motion(mode="all"))


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("motion: {yaw_rnge_deg: 3}", "motion.yaw_rnge_deg", "motion.yaw_range_deg"),
        ("motoin: {mode: all}", "motoin", "motion"),
        ("yaw_range_deg: 3", "yaw_range_deg", "motion.yaw_range_deg"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_and_the_file(yaml_file, text, key, nearest):
    source = yaml_file(text)
    message = message_of(source)
    assert f"{key}: no such key; nearest is {nearest}" in message
    assert source in message


def test_an_unknown_key_in_an_override_names_the_override():
    assert "--set vidio.fps=3" in message_of(None, ["vidio.fps=3"])


def test_a_key_that_begins_with_the_part_of_a_file_is_told_where_keys_begin():
    assert "curate: no such key; keys are named from below curate on" in message_of(None, ["curate.video.fps=3"])


def test_a_bad_value_is_shown_with_its_key_and_every_bad_key_is_listed(yaml_file):
    message = message_of(yaml_file("motion: {yaw_range_deg: -1}\nvideo: {fps: fast}"))
    assert "motion.yaw_range_deg" in message
    assert "(got -1)" in message
    assert "video.fps" in message
    assert "(got 'fast')" in message


def test_a_check_across_keys_says_its_sentence_and_nothing_else():
    message = message_of(None, ["motion.max_speed_deg_s=1"])
    assert message.endswith("motion: yaw_range_deg may not exceed max_speed_deg_s")


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_that_json_cannot_hold_are_refused(value):
    assert "finite" in message_of(None, [f"motion.max_speed_deg_s={value}"])


@pytest.mark.parametrize("override", ["motion.mode", "=3"])
def test_an_override_without_key_or_value_explains_the_form(override):
    assert "section.key=value" in message_of(None, [override])


def test_an_override_below_a_value_is_refused(yaml_file):
    assert "'fps' is a value, not a section" in message_of(yaml_file("video: {fps: 3}"), ["video.fps.x=1"])


@pytest.mark.parametrize(
    ("text", "said"), [("motion: [", "not valid YAML"), ("- a\n- b\n", "mapping of sections, not list")]
)
def test_a_file_that_is_no_mapping_is_refused_by_name(yaml_file, text, said):
    source = yaml_file(text)
    message = message_of(source)
    assert said in message
    assert source in message


def test_a_binary_file_is_refused_as_yaml(tmp_path):
    path = tmp_path / "face.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "not valid YAML" in message_of(str(path))


def test_a_packaged_config_is_found_by_name_and_an_unknown_name_lists_them(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text("video: {fps: 24}")
    monkeypatch.setattr(config, "_packaged_folder", lambda: tmp_path)
    assert config.load(Root, "tiny").video.fps == 24
    assert "packaged names: tiny" in message_of("huge")


def test_a_section_cannot_be_changed_after_loading():
    with pytest.raises(ValidationError):
        Root().motion.mode = "all"


class Part(Root):
    part: ClassVar[str] = "encode"


def test_a_command_reads_its_own_part_of_a_file_and_overrides_are_relative_to_it(yaml_file):
    source = yaml_file("encode: {video: {fps: 24}}\ncurate: {video: {fps: 3}}")
    assert config.load(Part, source, ["motion.mode=all"]) == Part(video=Video(fps=24), motion=Motion(mode="all"))
    assert config.load(Part, yaml_file("curate: {video: {fps: 3}}\nencode:\n")) == Part()


@pytest.mark.parametrize(
    ("text", "said"), [("video: {fps: 24}", "below `encode:`"), ("encode: 3", "encode: must hold")]
)
def test_settings_outside_the_parts_of_a_file_are_refused(yaml_file, text, said):
    with pytest.raises(UserError, match=said):
        config.load(Part, yaml_file(text))


def test_the_demo_measures_flow_as_machines_without_a_gpu_do_but_at_the_size_it_was_filmed_in():
    without_a_gpu = config.load(CurationConfig, "cpu").flow
    assert config.load(CurationConfig, "demo").flow == without_a_gpu.model_copy(update={"scale": 0.25})


def test_differences_are_named_by_their_keys():
    before, now = {"a": {"b": 1, "c": 2}, "d": "x"}, {"a": {"b": 1, "c": 3}, "e": None}
    assert config.differences(before, now) == ["a.c: 2 → 3", "d: x → None"]
    assert config.differences(before["a"], now["a"], "run") == ["run.c: 2 → 3"]
    assert config.differences(before, before) == []


class Stage(config.Section):
    name: str
    steps: int


class Course(config.Section):
    stages: tuple[Stage, ...] = ()


def test_an_override_reaches_into_a_list_by_the_names_of_its_sections(yaml_file):
    source = yaml_file("stages: [{name: motion, steps: 1}, {name: joint, steps: 2}]")
    loaded = config.load(Course, source, ["stages.joint.steps=7"])
    assert [stage.steps for stage in loaded.stages] == [1, 7]


@pytest.mark.parametrize(
    ("override", "told"),
    [("stages.base.steps=7", "the list has no 'base'; it has motion"), ("stages.motion=7", "is a list")],
)
def test_an_override_of_a_list_must_name_one_of_its_sections_and_a_key(yaml_file, override, told):
    with pytest.raises(UserError, match=told):
        config.load(Course, yaml_file("stages: [{name: motion, steps: 1}]"), [override])


def test_the_overrides_of_a_whole_file_are_told_apart_by_their_parts():
    sorted_ = config.by_part(["train.stages.base.steps=9", "curate.crop.mode=wide", "train.dtype=fp32"])
    assert sorted_["train"] == ["stages.base.steps=9", "dtype=fp32"]
    assert sorted_["curate"] == ["crop.mode=wide"]
    assert sorted_["encode"] == []
    with pytest.raises(UserError, match="begins with one of curate, encode"):
        config.by_part(["crop.mode=wide"])
