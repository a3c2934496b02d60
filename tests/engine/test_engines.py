"""Engines of this machine: results as they come, tasks done again, failures, and the ends of workers."""

import os
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.engine import tasks

from ctbench.cli.engines import engine as engine_of_options
from ctbench.engine import Engine, Here, Kept, Local, Ray, Task, TasksFailedError, engine


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended may wait long until its parent takes note."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("place", [Here(), Local(workers=1), Local(workers=2)])
def test_all_results_of_all_tasks_come_in_the_order_of_each_task(place):
    results = list(
        place.run([Task("a", tasks.count, (3,)), Task("b", tasks.count, (2,)), Task("c", tasks.count, (0,))])
    )
    assert [value for key, value in results if key == "a"] == [0, 1, 2]
    assert [value for key, value in results if key == "b"] == [0, 1]
    assert len(results) == 5


def test_a_kept_value_is_loaded_once_by_each_worker_and_others_do_not_take_its_place():
    ones, twos = Kept(torch.ones(3)), Kept(torch.full((3,), 2.0))
    values = (("a", ones), ("b", twos))  # with a pause, in which the second worker begins
    both = [Task(f"{name}{n}", tasks.added, (n, 0.1), kept) for n in range(6) for name, kept in values]
    addresses = dict[tuple[int, str], set[int]]()
    for key, (total, process, address) in Local(workers=2).run(both):
        assert total.tolist() == [(1.0 if key[0] == "a" else 2.0) + int(key[1:])] * 3
        addresses.setdefault((process, key[0]), set()).add(address)
    assert all(len(places) == 1 for places in addresses.values())
    assert len({process for process, _ in addresses}) == 2


def test_a_worker_keeps_no_more_than_some_values():
    kept = [Kept(torch.full((1,), float(number))) for number in range(9)]
    again = [Task(f"{turn} {n}", tasks.added, (0,), kept[n]) for turn in range(2) for n in range(9)]
    for key, (total, _, _) in Local(workers=1).run(again):
        assert total.item() == int(key.split()[1])


def test_a_task_whose_worker_dies_is_done_again_and_then_given_up(tmp_path):
    place, results = Local(workers=2), list[tuple[str, object]]()
    three = [
        Task("once", tasks.fatal, (str(tmp_path / "once"), 1)),
        Task("always", tasks.fatal, (str(tmp_path / "always"), 99)),
        *(Task(f"other {n}", tasks.count, (1,)) for n in range(5)),
    ]
    with pytest.raises(
        TasksFailedError, match=r"1 task failed \(always: 3 workers died of it, .*exit code -9\)"
    ) as error:
        results.extend(place.run(three))
    assert Counter(results) == {("once", "begun"): 2, ("once", "ended"): 1, ("always", "begun"): 3} | {
        (f"other {n}", 0): 1 for n in range(5)
    }
    assert list(error.value.failures) == ["always"]


def test_a_task_of_a_module_that_workers_do_not_have_is_told(monkeypatch):
    here = ModuleType("only_in_the_driver")
    exec("def task(): yield 1", vars(here))
    monkeypatch.setitem(sys.modules, here.__name__, here)
    place = Local(workers=1)
    tried = [Task("a", here.task, ()), Task("b", tasks.count, (1,))]
    with pytest.raises(TasksFailedError, match=r"a worker cannot load the task: ModuleNotFoundError: No module named"):
        list(place.run(tried))


def test_arguments_are_made_when_a_worker_gets_the_task(tmp_path):
    made, place = list[int](), str(tmp_path / "once")

    def arguments() -> tuple[str, int]:
        made.append(1)
        return place, 1

    assert [value for _, value in Local(workers=1).run([Task("a", tasks.fatal, arguments)])] == [
        "begun",
        "begun",
        "ended",
    ]
    assert len(made) == 2


def test_an_error_is_told_with_its_task_and_the_others_end():
    results, two = list[tuple[str, object]](), [Task("wrong", tasks.wrong), Task("a", tasks.count, (2,))]
    with pytest.raises(TasksFailedError, match=r"wrong: RuntimeError: out of luck\): all other results are kept"):
        results.extend(Local(workers=1).run(two))
    assert results == [("wrong", "begun"), ("a", 0), ("a", 1)]
    with pytest.raises(TasksFailedError, match=r"a: its result cannot be sent to the driver"):
        list(Local(workers=1).run([Task("a", tasks.unsendable)]))
    with pytest.raises(RuntimeError, match="out of luck"):
        list(Here().run([Task("wrong", tasks.wrong)]))


def test_a_task_or_value_that_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match=r"a cannot be sent to workers \(.*lambda.*\): define its classes"):
        list(Local(workers=1).run([Task("a", tasks.count, (lambda: None,))]))
    with pytest.raises(ValueError, match=r"cannot be sent to workers \(.*lock.*\): define their classes"):
        list(Local(workers=1).run([Task("a", tasks.added, (1,), Kept(threading.Lock()))]))


def test_closing_the_results_ends_the_workers_in_the_middle_of_a_task(tmp_path):
    with closing(
        Local(workers=2).run([Task(name, tasks.waiting, (str(tmp_path / "never"),)) for name in "ab"])
    ) as results:
        processes = [next(results)[1], next(results)[1]]
        assert all(map(alive, processes))
    assert not any(map(alive, processes))


def test_tasks_are_taken_one_by_one_as_workers_become_free(tmp_path):
    taken, go = list[int](), tmp_path / "go"

    def lazily():
        for number in range(4):
            taken.append(number)
            yield Task(str(number), tasks.waiting, (str(go),))

    results = Local(workers=2).run(lazily())
    next(results), next(results)
    assert taken == [0, 1]
    go.touch()
    assert len(list(results)) == 6
    assert taken == [0, 1, 2, 3]


def test_no_worker_is_started_without_work(monkeypatch):
    monkeypatch.setattr("multiprocessing.get_context", lambda *_: pytest.fail("a process"))
    assert list(Local(workers=4).run([], count=0)) == []


def test_workers_stay_for_several_runs_and_only_those_of_a_broken_run_are_replaced(tmp_path):
    kept, never = Kept(torch.ones(3)), str(tmp_path / "never")

    def added(count: int) -> dict[int, int]:
        """The addresses of the kept value, by process."""
        return {
            value[1]: value[2] for _, value in place.run([Task(str(n), tasks.added, (n,), kept) for n in range(count)])
        }

    with Local(workers=1).staying() as place:
        first = added(2)
        assert added(1) == first, "the same process, which has kept the value"
        with closing(place.run([Task("a", tasks.waiting, (never,))])) as results:
            assert next(results)[1] in first
        assert not any(map(alive, first))
        second = added(1)
        assert second.keys() != first.keys()
        with pytest.raises(TasksFailedError, match="out of luck"):
            list(place.run([Task("wrong", tasks.wrong)]))
        assert added(1) == second
        with pytest.raises(ZeroDivisionError):
            list(place.run(Task(str(1 // n), tasks.count, (1,)) for n in (1, 0)))
        third = added(1)
    assert not any(map(alive, [*second, *third]))


def test_what_tasks_print_is_no_result(capfd, spawned):
    assert list(Local(workers=1).run([Task("a", tasks.printing)])) == [("a", 1)]
    assert capfd.readouterr().out == "hello\n"


def test_a_value_that_a_worker_cannot_load_fails_its_task_only():
    several = [
        Task("bad", tasks.added, (1,), Kept(tasks.Unloadable())),
        Task("worse", tasks.count, (tasks.Unloadable(),)),
    ]
    results = list[tuple[str, object]]()
    with pytest.raises(TasksFailedError) as error:
        results.extend(Local(workers=1).run([*several, Task("a", tasks.count, (1,))]))
    assert results == [("a", 0)]
    assert error.value.failures == {
        "bad": "OverflowError: no room",
        "worse": "a worker cannot load the task: OverflowError: no room",
    }


def test_workers_that_cannot_start_are_told_of(monkeypatch):
    monkeypatch.setattr(sys.modules["ctbench.engine.local"], "_serve", tasks.count)  # which says nothing, and returns
    with pytest.raises(ChildProcessError, match="3 workers died before they could begin, the last one: exit code 1"):
        list(Local(workers=1).run([Task("a", tasks.count, (1,))]))


@pytest.mark.parametrize(
    ("threads", "workers", "each", "start"), [(6, 2, 3, "spawned"), (7, 3, 2, "forked"), (2, 3, 1, "forked")]
)
def test_workers_share_the_threads(monkeypatch, request, threads, workers, each, start):
    if start == "spawned":
        request.getfixturevalue("spawned")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    before = os.environ.get("OMP_NUM_THREADS")
    many = [Task(str(number), tasks.surroundings) for number in range(workers)]
    assert {value[2] for _, value in Local(workers=workers).run(many)} == {str(each)}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_each_worker_sees_one_of_the_visible_accelerators(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert Local(device="cuda").size() == 2
    seen = {
        value[0]: value[1]
        for _, value in Local(device="cuda").run([Task(str(n), tasks.surroundings) for n in range(8)])
    }
    assert sorted(seen.values()) == ["3", "5"]
    more = Local(workers=4, device="cuda").run([Task(str(n), tasks.surroundings) for n in range(12)])
    assert sorted({value[0]: value[1] for _, value in more}.values()) == ["3", "3", "5", "5"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no accelerator is visible"):
        Local(device="cuda").size()


# ------------------------------------------------------------------------------------------------------------- names


def test_engines_have_short_names():
    assert engine("local") == Local(device="cpu")
    assert engine("local:3", device="cuda") == Local(workers=3, device="cuda")
    assert engine("ray", device="cuda").resources == {"CPU": 1, "GPU": 1}
    assert engine("ray://head:10001") == Ray(address="ray://head:10001", device="cpu")


@pytest.mark.parametrize("name", ["", "local:0", "local:-1", "local:x", "cluster", "ray://head", "ray:head:1", "Local"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"there is no engine '.*': give local, local:N with N processes, ray, or"):
        engine(name)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_a_wrong_number_of_workers_is_refused(workers):
    for kind in (Local, Ray):
        with pytest.raises(ValueError, match=r"workers is .*: give a whole number"):
            kind(workers=workers)


def test_the_options_of_a_command_choose_one_engine(monkeypatch):
    assert engine_of_options(None) == engine_of_options(None, workers=1) == Here("cpu")
    assert engine_of_options(None, workers=1, apart=True) == Local(workers=1, device="cpu")
    assert engine_of_options("local:2") == engine_of_options(None, workers=2) == Local(workers=2, device="cpu")
    assert isinstance(engine_of_options("ray", "cuda"), Engine), "a driver without accelerator may use those of others"
    with pytest.raises(ValueError, match="--on local and 2 workers are two answers"):
        engine_of_options("local", workers=2)
    with pytest.raises(ValueError, match="there is no device 'nonsense'"):
        engine_of_options(None, "nonsense")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("ctbench.cli.engines.available", lambda device: device)
    assert engine_of_options(None, "cuda") == Local(workers=2, device="cuda"), "each accelerator gets a worker"
    assert engine_of_options(None, "cuda", workers=1) == Here("cuda")


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install ray)")
def test_nothing_answers_at_an_address(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # Ray adds packages of its own
    start = time.perf_counter()
    with pytest.raises(ConnectionError, match=r"no connection to a Ray cluster at ray://127.0.0.1:1 \(.*refused\)"):
        engine("ray://127.0.0.1:1").size()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"no connection to a Ray cluster at 127.0.0.1:1 \(.*refused\)"):
        engine("ray").size()
    with pytest.raises(ConnectionError, match="'head' is not an address: give ray://HOST:PORT"):
        Ray(address="head").size()
    assert time.perf_counter() - start < 60


def test_a_missing_ray_is_told_of(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"ray is not there \(.*\): pip install ray, or use --on local"):
        engine("ray").size()
