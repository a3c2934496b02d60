"""What a Ray cluster of two CPUs refuses, in one line each: python -m tests.engine.refused ADDRESS."""

import sys
import threading
from collections.abc import Callable

import ray
import torch
from tests.engine import tasks

from ctbench.engine import Kept, Ray, Task, on_ray
from ctbench.networks import MLP
from ctbench.verify import certify


def told(what: str, function: Callable[[], object]) -> None:
    try:
        function()
    except (ValueError, OSError) as error:
        print(f"{what}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"{what}: no error", flush=True)


def main(address: str) -> None:
    one = [Task("a", tasks.count, (1,))]
    told("none", lambda: list(Ray(address=address).run(one)))
    told("gpus", lambda: Ray(address=address, gpus=1).size())
    told("cpus", lambda: Ray(address=address, cpus=2).size())
    told("many", lambda: Ray(address=address, workers=3).size())
    lock = threading.Lock()
    told("value", lambda: list(Ray(address=address).run([Task("a", tasks.added, (1,), Kept(lock))])))
    model, x, y = MLP(hidden=(4,)).build((4,), 3).eval(), torch.rand(9, 4), torch.zeros(9, dtype=torch.long)
    told("replay", lambda: certify(model, x, y, eps=0.1, engine=Ray(address=address), replay=lock.acquire))
    model.lock = lock
    told("model", lambda: certify(model, x, y, eps=0.1, engine=Ray(address=address)))
    told("task", lambda: list(Ray(address=address).run([Task("a", tasks.count, (lock,))])))
    told("result", lambda: list(Ray(address=address).run([Task("a", tasks.wrong)])))
    version, on_ray.version = on_ray.version, lambda _: "9.9"
    told("version", lambda: list(Ray(address=address).run(one)))
    on_ray.version = version

    @ray.remote(num_cpus=1)
    class Busy:
        def there(self) -> None: ...

    others = [Busy.remote(), Busy.remote()]
    ray.get([other.there.remote() for other in others])
    told("busy", lambda: list(Ray(address=address, patience=2).run(one)))


if __name__ == "__main__":
    main(sys.argv[1])
