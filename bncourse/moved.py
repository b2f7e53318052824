"""Names of version 0.1 that have moved: they work until 0.4, with a warning that says the new name."""

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
    "bncourse.axes": "bncourse.studies.variants",
    "bncourse.distributed": "bncourse.studies.many_devices",
    "bncourse.studies.covariate_shift": "bncourse.studies.the_problem",
    "bncourse.studies.devices": "bncourse.studies.many_devices",
    "bncourse.studies.landscape": "bncourse.studies.the_problem",
    "bncourse.studies.partners": "bncourse.studies.variants",
    "bncourse.studies.placement": "bncourse.models",
    "bncourse.studies.regularization": "bncourse.studies.regularizing_effect",
    "bncourse.studies.sequences": "bncourse.studies.variants",
    "bncourse.studies.side_by_side": "bncourse.studies.many_networks",
    "bncourse.studies.source_networks": "bncourse.models",
    "bncourse.studies.speed": "bncourse.studies.fast_layers",
    "bncourse.studies.train_on_devices": "bncourse.studies.many_devices",
}
NAMES = {
    "bncourse.lean.standardize": "bncourse.kernels.forward",
    "bncourse.lean.standardize_backward": "bncourse.kernels.backward",
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
    "bncourse.studies.covariate_shift.Shift": "bncourse.studies.the_problem.InputMoves",
    "bncourse.studies.covariate_shift.track_shift": "bncourse.studies.the_problem.InputMoves",
    "bncourse.studies.deployment.another_camera": "bncourse.studies.deployment.shifted_domain",
    "bncourse.studies.deployment.multiply_adds": "bncourse.studies.deployment.macs",
    "bncourse.studies.devices.die_before_the_batch": "bncourse.studies.many_devices.exit_before_forward",
    "bncourse.studies.devices.on_devices": "bncourse.studies.many_devices.step_on_devices",
    "bncourse.studies.devices.on_one_device": "bncourse.studies.many_devices.step_on_one_device",
    "bncourse.studies.devices.on_uneven_devices": "bncourse.studies.many_devices.step_on_devices",
    "bncourse.studies.dropout.dropout_network": "bncourse.models.fc_network",
    "bncourse.studies.dropout.with_wrong_labels": "bncourse.studies.regularizing_effect.with_wrong_labels",
    "bncourse.studies.landscape.walk_along_gradient": "bncourse.studies.the_problem.walk",
    "bncourse.studies.placement.block": "bncourse.models.layer_block",
    "bncourse.studies.sequences.RowReader": "bncourse.studies.variants.RowReaders",
    "bncourse.studies.side_by_side.SideBySide": "bncourse.studies.many_networks.ManyNetworks",
    "bncourse.studies.side_by_side.errors": "bncourse.studies.many_networks.evaluate_many",
    "bncourse.studies.side_by_side.train": "bncourse.studies.many_networks.train_many",
    "bncourse.studies.source_networks.layer_table": "bncourse.studies.pytorch_implementation.layer_table",
    "bncourse.studies.speed.bytes_moved": "bncourse.studies.fast_layers.traffic",
    "bncourse.studies.speed.kept_bytes": "bncourse.studies.fast_layers.saved_bytes",
    "bncourse.studies.train_on_devices.main": "bncourse.studies.many_devices.train",
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
        warnings.warn(f"{old} is now {new}; the old name goes in version 0.4", DeprecationWarning, stacklevel=2)
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
