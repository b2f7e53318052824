"""Names of version 0.1 that have moved: they work until 0.3, with a warning that says the new name."""

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "bncourse.lean": "bncourse.kernels",
    "bncourse.explore": "bncourse.explorers.explorer",
    "bncourse.device": "bncourse.training",
    "bncourse.data.embedded": "bncourse.data.bundled",
    "bncourse.data.downloaded": "bncourse.data.downloads",
}
NAMES = {
    "bncourse.lean.standardize": "bncourse.kernels.forward",
    "bncourse.lean.standardize_backward": "bncourse.kernels.backward",
    "bncourse.lean.in_parts": "bncourse.kernels.chunks",
    "bncourse.lean.PART_BYTES": "bncourse.kernels.CHUNK_BYTES",
    "bncourse.functional.mean_and_variance": "bncourse.standardize.mean_and_variance",
    "bncourse.functional.standardize_backward": "bncourse.standardize.formula_backward",
    "bncourse.layers.batch.NormWithMemory": "bncourse.layers.batch.NormBase",
    "bncourse.checkpoint.write_whole": "bncourse.files.write_whole",
    "bncourse.data.examples.generator": "bncourse.data.examples.rng",
    "bncourse.experiments.VERDICTS": "bncourse.claims.VERDICTS",
    "bncourse.experiments.Statement": "bncourse.claims.Statement",
    "bncourse.experiments.claim": "bncourse.claims.claim",
    "bncourse.experiments.statements": "bncourse.claims.statements",
    "bncourse.plotting.STYLE": "bncourse.plotting.NORM_STYLES",
    "bncourse.plotting.label_last": "bncourse.plotting.direct_labels",
}


def names_of(module: str) -> Callable[[str], object]:
    """The ``__getattr__`` of a module that some names have left."""

    def __getattr__(name: str) -> object:
        old = f"{module}.{name}"
        if old in NAMES:
            new = NAMES[old]
        elif module in MODULES and not name.startswith("__"):
            new = f"{MODULES[module]}.{name}"
        else:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{old} is now {new}; the old name goes in version 0.3", DeprecationWarning, stacklevel=2)
        place, _, attribute = new.rpartition(".")
        return getattr(import_module(place), attribute)

    return __getattr__


class MovedModules(MetaPathFinder, Loader):
    """Imports a module of ``MODULES`` as an empty one whose names come from where they are now."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = names_of(module.__name__)


sys.meta_path.append(MovedModules())
