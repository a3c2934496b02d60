"""Where many tasks run: in this process, in processes of this machine, or on a Ray cluster.

    from ctbench.engine import Local, Task

    with closing(Local(workers=2).run([Task("a", count, (3,)), Task("b", count, (5,))])) as results:
        for key, value in results:
            ...

    certify(model, x, y, eps=0.1, engine=Ray())

A task is a generator function with its arguments. What it yields comes back as soon as it is there.
"""

from ctbench.engine.base import Engine, Here, Kept, Task, TasksFailedError
from ctbench.engine.local import Local
from ctbench.engine.lookup import engine
from ctbench.engine.on_ray import Ray

__all__ = ["Engine", "Here", "Kept", "Local", "Ray", "Task", "TasksFailedError", "engine"]
