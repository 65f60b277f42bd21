"""The page of promises counts the cases that the tests run."""

from collections.abc import Callable, Iterator
from typing import get_args

import pytest
from bad_input.cases import ApiCase, CommandCase, Kind, api_cases, command_cases

from benchmarks import promises_table


def test_the_table_in_the_docs_is_that_of_the_cases() -> None:
    page = promises_table.PAGE.read_text(encoding="utf-8")
    assert page == promises_table.with_table(page), "run `make results`"


def test_every_case_is_counted_once() -> None:
    commands = [
        CommandCase("labels", "a", "kd", "x"),
        CommandCase("labels", "b", "kd", "x", ends="named"),
        CommandCase("numbers", "c", "kd", "x"),
    ]
    table = promises_table.render(commands, [ApiCase("labels", "d", lambda place: None, "x")])
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in map(split, table.splitlines())}

    assert rows["labels"] == ["2", "1", "2", "1"]
    assert rows["numbers"] == ["1", "0", "1", "0"]
    assert rows["all"] == ["3", "1", "3", "1"]
    assert set(get_args(Kind)) < rows.keys()


def split(line: str) -> list[str]:
    return line.split("|")


@pytest.mark.parametrize("cases", [command_cases, api_cases])
def test_no_two_cases_have_one_name(cases: Callable[[], Iterator[CommandCase | ApiCase]]) -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
