import os
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.runtime.processes import map_tasks

_added = 0


def start(added: int) -> None:
    global _added
    _added = added


def work(task: int) -> int:
    if task == 13:
        raise UserError("13 is refused")
    if task == 99:
        os._exit(1)
    return task * 10 + _added


def slow_first(path: Path) -> int:
    """The first task waits for the second one, which another process has to do meanwhile."""
    while path.name == "first" and not (path.parent / "second").exists():
        pass
    path.touch()
    return os.getpid()


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_errors_come_through(processes: int):
    assert list(map_tasks(work, range(9), processes, start, (3,))) == [task * 10 + 3 for task in range(9)]
    found = map_tasks(work, [1, 13, 2], processes, start, (0,))
    assert next(found) == 10
    with pytest.raises(UserError, match="13 is refused"):
        next(found)


def test_tasks_are_worked_on_at_once(tmp_path: Path):
    assert len(set(map_tasks(slow_first, [tmp_path / "first", tmp_path / "second"], 2))) == 2


def test_a_process_that_dies_is_an_error_that_says_why():
    with pytest.raises(UserError, match=r"one of 2 working processes died.*too little memory"):
        list(map_tasks(work, [1, 99, 2, 3], 2))
