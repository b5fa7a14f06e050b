from collections.abc import Iterator

import pytest

from animation.apart import Apart
from faceloom.errors import UserError
from tests.animation.apart_work import impossible, obedient


@pytest.fixture
def apart() -> Iterator[Apart]:
    apart = Apart(obedient, "answer to", deadline_s=20)
    yield apart
    apart.close()


def test_one_process_answers_again_and_again_and_tells_how_far_it_is(apart):
    told = []
    first = apart.ask("count", lambda *progress: told.append(progress))
    assert first.startswith("answer to count of ")
    assert told == [("counting", i, 3) for i in range(3)]
    assert apart.ask("more").split()[-1] == first.split()[-1]


def test_what_is_wrong_with_a_file_is_an_answer_and_the_process_lives_on(apart):
    before = apart.ask("x").split()[-1]
    with pytest.raises(UserError, match=r"x.png: no face is found"):
        apart.ask("refuse")
    assert apart.ask("x").split()[-1] == before


def test_a_file_that_kills_its_reader_harms_nobody_else(apart):
    before = apart.ask("x").split()[-1]
    with pytest.raises(UserError, match="cannot be read without harm"):
        apart.ask("die")
    assert apart.ask("x").split()[-1] != before


def test_a_file_that_takes_for_ever_is_given_up():
    apart = Apart(obedient, "answer to", deadline_s=5)
    before = apart.ask("x").split()[-1]
    apart._deadline_s = 0.3
    with pytest.raises(UserError, match=r"it took more than 0.3 s and was given up"):
        apart.ask("hang")
    apart._deadline_s = 20
    assert apart.ask("x").split()[-1] != before
    apart.close()


def test_the_insides_of_the_server_are_for_its_log(apart, caplog):
    with pytest.raises(UserError, match="not your files' fault; the log has it") as raised:
        apart.ask("break")
    assert "inside" not in str(raised.value)
    assert "the inside of the server" in caplog.text


def test_a_model_that_is_missing_is_told_to_who_asks_first():
    apart = Apart(impossible, deadline_s=20)
    with pytest.raises(UserError, match="a model is missing"):
        apart.ask("x")
    apart.close()
