"""A second device made of CPU memory, ``pretend``, so that every machine can try what happens on a GPU.

``import second_device`` makes it, for the whole process: use it in a process of its own (``pytest -p second_device``).
``pretend:0`` and ``pretend:1`` compute what the CPU does, draw random numbers of their own, and refuse as CUDA does to
mix with tensors that are elsewhere; only indices and tensors of one number may be on the CPU. ``READS`` counts how
often the host has waited for a value.
"""

import threading
from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME, COUNT = "pretend", 2
READS: Counter = Counter()
LATE: list[RuntimeError] = []  # what autograd's thread cannot raise without ending the process: the next operation does
aten = torch.ops.aten
MOVES = aten.copy_.default, aten._to_copy.default
WAITS = aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.masked_select.default
INDEXED = aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default


class PretendTensor(torch.Tensor):
    """Its values are in ``inner``, a tensor on the CPU."""

    @staticmethod
    def __new__(cls, inner, device):
        layout = {"dtype": inner.dtype, "device": device}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), inner.stride(), inner.storage_offset(), **layout)

    def __init__(self, inner, device):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})

    def __repr__(self):
        return f"{self.inner!r} on {self.device}"

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.inner = value.inner

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        values = self.inner, self.dtype, str(self.device), self.requires_grad
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, values

    def __tensor_flatten__(self):  # by which nn.Module.to knows that it must keep the parameter and swap its content
        return ["inner"], self.device

    @staticmethod
    def __tensor_unflatten__(inner, device, size, stride):
        return PretendTensor(inner["inner"], device)


def compute(operation, args, kwargs):
    """The operation on the inner tensors; what comes out is on the device that CUDA would put it on."""
    in_the_main_thread = threading.current_thread() is threading.main_thread()
    if LATE and in_the_main_thread:
        raise LATE.pop()
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = next(tensor.device for tensor in tensors if isinstance(tensor, PretendTensor))
    there = torch.device(kwargs["device"] or here) if "device" in kwargs else here
    if operation in MOVES:
        target = args[0].device if operation is aten.copy_.default else there
        waits = target.type == "cpu"
    else:
        try:
            refuse_to_mix(operation, args, tensors)
        except RuntimeError as error:
            if in_the_main_thread:
                raise
            LATE.append(error)
        masks = operation in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
        waits = operation in WAITS or masks
    if waits:
        READS[operation.name()] += 1
    if "device" in kwargs:
        kwargs = kwargs | {"device": "cpu"}
    with random_numbers(operation, args, kwargs, here):
        result = operation(*inner_of(args), **inner_of(kwargs))
    if written := [
        kwargs.get(argument.name) if argument.kwarg_only else args[place]
        for place, argument in enumerate(operation._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]:
        if torch.Tag.inplace_view in operation.tags:  # such as squeeze_, which a vector times a matrix ends with
            reshape(operation, args)
        for tensor in tree_leaves(written):
            assert not isinstance(tensor, PretendTensor) or tensor.shape == tensor.inner.shape, operation
        count = len(operation._schema.returns)
        return None if count == 0 else written[0] if count == 1 else tuple(written)
    return on(there, result)


def reshape(operation, args) -> None:
    """Do to the wrapper what has been done to its inner tensor, as torch's own subclasses do."""
    included = torch._C._meta_in_tls_dispatch_include()
    torch._C._set_meta_in_tls_dispatch_include(True)
    try:
        with torch._C._DisableTorchDispatch():
            operation(*args)
    finally:
        torch._C._set_meta_in_tls_dispatch_include(included)


def on(device, values):
    """The same values on a device; a plain tensor's memory is shared."""
    if device.type != NAME:
        return values
    device = torch.device(NAME, device.index or 0)
    return tree_map_only(torch.Tensor, lambda tensor: PretendTensor(tensor, device), values)


def inner_of(values):
    return tree_map_only(PretendTensor, lambda tensor: tensor.inner, values)


def refuse_to_mix(operation, args, tensors) -> None:
    if operation in INDEXED:
        tensors = [args[0], *args[2:3]]
    places = {str(tensor.device) for tensor in tensors if tensor.device.type == NAME or tensor.dim() > 0}
    if len(places) > 1:
        places = " and ".join(sorted(places))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {places} in {operation.name()}")


@contextmanager
def random_numbers(operation, args, kwargs, device):
    """Draw from the device's own generator."""
    if torch.Tag.nondeterministic_seeded not in operation.tags:
        yield
        return
    for leaf in tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Generator):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{leaf.device}'")
    source, before = Module.default_generators[device.index], torch.get_rng_state()
    torch.set_rng_state(source.get_state())
    try:
        yield
    finally:
        source.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


class Module(_DummyBackendModule):
    """``torch.pretend``."""

    default_generators = tuple(torch.Generator().manual_seed(1000 + number) for number in range(COUNT))

    def device_count(self):
        return COUNT

    def manual_seed_all(self, seed):
        for source in self.default_generators:
            source.manual_seed(seed)

    def get_rng_state(self, device=0):
        return self.default_generators[torch.device(NAME, device).index or 0].get_state()

    def set_rng_state(self, state, device=0):
        self.default_generators[torch.device(NAME, device).index or 0].set_state(state)

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device=None):
        pass


def register(name: str, make) -> None:
    """An operation that makes tensors out of nothing."""
    LIBRARY.impl(name, lambda *args, device=None, **kwargs: on(device, make(*args, **kwargs)), "PrivateUse1")


_setup_privateuseone_for_python_backend(NAME, Module())
torch.__future__.set_swap_module_params_on_conversion(True)  # on the way back too
swap_content = torch.utils.swap_tensors


def swap_tensors(parameter, other):
    """``nn.Module.to`` with the parameter's hooks kept, as on CUDA."""
    hooks = parameter._post_accumulate_grad_hooks
    swap_content(parameter, other)
    if hooks:
        parameter._post_accumulate_grad_hooks = hooks


torch.utils.swap_tensors = swap_tensors
LIBRARY = torch.library.Library("aten", "IMPL")
for name in ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"):
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(aten, packet), overload or "default")
    register(name, operation)


def copy_from(source, target, non_blocking=False):
    """``torch.tensor(..., device=...)`` comes here, past ``__torch_dispatch__``."""
    inner_of(target).copy_(inner_of(source))
    return target


LIBRARY.impl("_copy_from", copy_from, "PrivateUse1")


def register_autocast(name: str, dtype: torch.dtype | None) -> None:
    """Under autocast the operation computes in ``dtype`` (None: in the type that autocast was asked for)."""
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(aten, packet), overload or "default")

    def cast(tensor):
        wanted = dtype or torch.get_autocast_dtype(NAME)
        return tensor.to(wanted) if tensor.is_floating_point() and tensor.device.type == NAME else tensor

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            return operation(*tree_map_only(torch.Tensor, cast, args), **tree_map_only(torch.Tensor, cast, kwargs))

    LIBRARY.impl(name, kernel, "AutocastPrivateUse1")


FALLBACK = torch.library.Library("_", "IMPL")
FALLBACK.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for name in ("linear", "matmul", "conv2d", "baddbmm"):
    register_autocast(name, None)
for name in ("log_softmax.int", "cross_entropy_loss", "layer_norm", "group_norm"):  # as on CUDA
    register_autocast(name, torch.float32)
