import json
from pathlib import Path

import pytest

from faceloom.page.html import assemble


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """Of a page with one script."""
    for name, text in {"body.html": "<main></main>", "page.css": "main { color: red; }", "own.js": "own();"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def contents_of(page: str) -> str:
    return page.split('id="contents">', 1)[1].split("</script>", 1)[0]


@pytest.mark.parametrize("name", ["{{script}}", "{{contents}}", "{{policy}}", "</script><b>", "<!-- <script>", "&lt;"])
def test_what_strangers_call_their_files_is_data_and_no_part_of_the_page(assets: Path, name: str) -> None:
    plain = assemble("Title", assets, ["own.js"], {"name": "a.mp4"}).decode()
    page = assemble("Title", assets, ["own.js"], {"name": name}).decode()
    assert json.loads(contents_of(page)) == {"name": name}
    assert page.replace(contents_of(page), "") == plain.replace(contents_of(plain), "")


def test_a_page_has_what_all_share_before_its_own(assets: Path) -> None:
    page = assemble("Title", assets, ["own.js"], {}).decode()
    assert "<title>Title</title>" in page
    assert page.index("--paper:") < page.index("main { color: red; }") < page.index("<main></main>")
    assert page.index("function h(") < page.index("own();")
