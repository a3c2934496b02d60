"""ctbench: train networks whose robustness can be proved, and prove it.

run = ctbench.train(ctbench.recipe("digits_ibp"))
result = ctbench.certify(run.model, x, y, Linf(0.1))
lower, upper = ctbench.bounds(model, x, eps=0.1, domain="crown")
model = ctbench.load_onnx("network.onnx")

The names are those of `ctbench.public`, and subpackages such as `ctbench.analyses`. They are imported when they are
used first, because torch takes seconds to import and many commands do not need it.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import ctbench.threads  # noqa: F401 (before torch is there)

__version__ = version("ctbench")

if TYPE_CHECKING:
    from ctbench import (  # noqa: F401
        analyses,
        attacks,
        corruptions,
        datasets,
        domains,
        engine,
        experiments,
        graph,
        methods,
        networks,
        onnx,
        packs,
        recipes,
        regions,
        report,
        results,
        specification,
        training,
        tuning,
        verify,
        vnnlib,
        zoo,
    )
    from ctbench.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """A submodule, or a public name."""
        if name != "__all__" and name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        public = import_module("ctbench.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(public, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("ctbench.public").__all__})
