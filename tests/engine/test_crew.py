"""Crews without processes: workers that say what a script says, so that each order of events can be tried."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from ctbench.engine import Task, TasksFailedError
from ctbench.engine.crew import Crew, Worker, WorkerDiedError
from ctbench.engine.serving import Kind, Message


class Scripted(Worker):
    """A worker whose tasks are iterators of messages, which may raise WorkerDiedError."""

    def __init__(self, *, is_born: bool) -> None:
        self.is_born, self.is_ended, self.messages = is_born, False, iter(())

    def give(self, task: Task) -> None:
        self.messages = task.function(*task.current())
        if next(self.messages, None) is not None:
            raise WorkerDiedError("at the door")

    def take(self) -> Message:
        if not self.is_born:
            raise WorkerDiedError("at birth")
        return next(self.messages) if self.ready else (Kind.READY, None)

    def end(self) -> None:
        assert not self.is_ended, "ended twice"
        self.is_ended = True


class Scene(Crew[Scripted]):
    """A crew: which of its workers are born, and whom it hears first."""

    def __init__(self, size: int, births: str = "", hears: Callable[[list], list] = list) -> None:
        super().__init__(size)
        self.births, self.hears, self.hired = births, hears, list[Scripted]()

    def hire(self) -> Scripted:
        self.hired.append(Scripted(is_born=self.births[len(self.hired) : len(self.hired) + 1] != "x"))
        return self.hired[-1]

    def wait(self, workers: list[Scripted]) -> list[Scripted]:
        assert workers, "a crew that waits for nobody waits forever"
        return self.hears(workers)


def task(key: str, *events: object, count: list[int] | None = None) -> Task:
    """A task with these results. "die" ends its worker, "door" does so before it has begun, "fail" ends the task."""

    def messages() -> Iterator[object]:
        if count is not None:
            count.append(1)
        yield "door" if "door" in events else None
        for event in events:
            if event == "die":
                raise WorkerDiedError("in the middle")
            if event == "fail":
                yield Kind.FAILED, "oh"
                return
            yield Kind.RESULT, event
        yield Kind.ENDED, None

    return Task(key, messages)


def run(crew: Scene, *tasks: Task, count: int | None = None) -> list[tuple[str, object]]:
    with closing(crew):
        return list(crew.run(tasks, count))


@pytest.mark.parametrize("hears", [list, lambda workers: workers[:1], lambda workers: workers[::-1]])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_result_has_the_key_of_its_task(size, hears):
    several = [task(key, f"{key}1", f"{key}2") for key in "abcd"]
    crew = Scene(size, hears=hears)
    results = run(crew, *several)
    for key in "abcd":
        assert [value for its, value in results if its == key] == [f"{key}1", f"{key}2"]
    assert len(results) == 8
    assert all(worker.is_ended for worker in crew.hired)
    assert len(crew.hired) == size


@pytest.mark.parametrize("how", ["die", "door"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_task_is_given_up_after_three_deaths_and_nothing_else_is_lost(size, how):
    begun = list[int]()
    results, crew = list[tuple[str, object]](), Scene(size)
    with closing(crew), pytest.raises(TasksFailedError, match="3 workers died of it, the last one: ") as error:
        results.extend(crew.run([task("bad", 1, how, count=begun), task("a", 2), task("b", 3)], None))
    assert len(begun) == 3
    assert list(error.value.failures) == ["bad"]
    assert [result for result in results if result[0] != "bad"] == [("a", 2), ("b", 3)]
    assert len(crew.hired) == size + 3
    assert all(worker.is_ended for worker in crew.hired)


def test_a_task_that_raised_is_not_tried_again_and_its_worker_goes_on():
    begun, crew = list[int](), Scene(1)
    results = list[tuple[str, object]]()
    with closing(crew), pytest.raises(TasksFailedError, match=r"2 tasks failed \(x: oh; y: oh\)"):
        results.extend(crew.run([task("x", 1, "fail", count=begun), task("y", "fail"), task("a", 2)], None))
    assert (results, len(begun), len(crew.hired)) == ([("x", 1), ("a", 2)], 1, 1)


def test_three_workers_in_a_row_that_are_not_born_end_the_run():
    crew = Scene(1, births="xxx")
    with closing(crew), pytest.raises(ChildProcessError, match=r"3 workers died before they could begin.*at birth"):
        list(crew.run([task("a", 1)], None))
    assert len(crew.hired) == 3
    assert run(Scene(1, births="xx.xx"), task("a", 1)) == [("a", 1)]
    births = "xx.xx."
    crew = Scene(1, births)
    with closing(crew), pytest.raises(TasksFailedError):
        list(crew.run([task("a", "die"), task("b", 1)], None))


def test_no_task_is_taken_before_a_worker_is_ready_for_it():
    taken = list[str]()

    def lazily() -> Iterator[Task]:
        for key in "abcd":
            taken.append(key)
            yield task(key, 1)

    def hears(workers: list[Scripted]) -> list[Scripted]:
        waited.append(list(taken))
        return workers[:1]

    waited = list[list[str]]()
    with closing(Scene(2, hears=hears)) as crew:
        assert len(list(crew.run(lazily(), None))) == 4
    assert waited[0] == []
    assert waited[1] == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_in_the_driver_ends_the_workers_with_a_task_and_the_others_stay(error):
    def hears(workers: list[Scripted]) -> list[Scripted]:
        if any(worker.task for worker in workers):
            raise error
        return workers

    def stops() -> Iterator[Task]:
        yield task("a", 1)
        raise error

    for tasks, hearing in (([task("a", 1)], hears), (stops(), list)):
        crew = Scene(2, hears=hearing)
        with pytest.raises(error):
            list(crew.run(tasks, None))
        assert sorted(worker.is_ended for worker in crew.hired) == [False, True]
        crew.hears = list
        assert list(crew.run([task("b", 2)], None)) == [("b", 2)], "nothing of the first run is heard"
        crew.close()
        assert all(worker.is_ended for worker in crew.hired)
        assert len(crew.hired) == 3


def test_a_failure_is_told_at_once_and_not_at_the_end():
    told = list[str]()
    failing = [replace(task("a", *ends), on_failure=told.append) for ends in (("fail",), ("die",))]
    results = Scene(1).run([*failing, task("b", 2)], None)
    assert next(results) == ("b", 2)
    assert told == ["oh", "3 workers died of it, the last one: in the middle"]
    with pytest.raises(TasksFailedError):
        list(results)


def test_no_more_workers_are_hired_than_there_are_tasks():
    for count, hired in ((0, 0), (1, 1), (9, 3)):
        crew = Scene(3)
        run(crew, *(task(str(number), 1) for number in range(count)), count=count)
        assert len(crew.hired) == hired


def test_a_worker_that_dies_between_two_runs_costs_one_attempt_only():
    crew = Scene(1)
    assert list(crew.run([task("a", 1)], 1)) == [("a", 1)]
    doors = iter(["door"])
    crew.hired[0].give = lambda _: (_ for _ in ()).throw(WorkerDiedError(next(doors)))
    assert list(crew.run([task("b", 2)], 1)) == [("b", 2)]
    crew.close()
    assert len(crew.hired) == 2
