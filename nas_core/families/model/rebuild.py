"""Load a network that was made of a trained model. This file needs torch, timm and safetensors only: copy it anywhere.

    network = load("shrunk/")      # the folder with architecture.json and model.safetensors, or model.pt2
    outputs = network(images)      # B x C x H x W, fractions from 0 to 1; prepared inside

    python load.py shrunk/ cat.png dog.jpg      # the largest outputs of each image, by name

``architecture.json`` names the model and its changes: modules that were put in
the place of others, and attributes that were set. What has another shape than
in the model is known by the weights. A network that is not made of a model is
read from ``model.pt2``, an exported program.
"""

import copy
import importlib
import importlib.util
import inspect
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Change = Mapping[str, Any]  # {"put": a described module} or {"set": {attribute: value}}
USAGE = "python load.py FOLDER IMAGE ..."
IMAGE_AXES = 4  # of a batch
EXTRA = "_extra_state"  # torch's name for what a module's state holds beside tensors
WEIGHTS, DESCRIPTION, PROGRAM = "model.safetensors", "architecture.json", "model.pt2"
SOURCE = "source"  # folder of the file that makes the model, and of what it imports beside it
SHOWN = 3  # of an image's outputs, the largest


class Only(nn.Module):
    """A module that is given the block's first input alone, whatever else the block is called with."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:
        output: torch.Tensor = self.inner(x)
        return output


class Nothing(nn.Module):
    """Zeros: a branch that adds nothing."""

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:
        return torch.zeros_like(x)


class Attention(nn.Module):
    """torch's MultiheadAttention with any number of heads of the same width; it gives no weights beside its output.

    It is called as torch's is. A mask with a row for each head of each example is one of as many heads as there were.
    """

    in_proj_bias, _qkv_same_embed_dim = None, False  # what torch's layers read of theirs: no fast path

    def __init__(
        self, embed_dim: int, num_heads: int, head_dim: int, bias: bool, batch_first: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, head_dim
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.q, self.k, self.v = (nn.Linear(embed_dim, num_heads * head_dim, bias=bias) for _ in range(3))
        self.out = nn.Linear(num_heads * head_dim, embed_dim, bias=bias)

    @classmethod
    def of(cls, given: nn.MultiheadAttention) -> "Attention":
        """One that computes what torch's does."""
        bias, sizes = given.in_proj_bias is not None, (given.embed_dim, given.num_heads, given.head_dim)
        made = cls(*sizes, bias, given.batch_first, given.dropout)
        weights = {f"{name}.weight": part for name, part in zip("qkv", given.in_proj_weight.chunk(3), strict=True)}
        if bias:
            weights |= {f"{name}.bias": part for name, part in zip("qkv", given.in_proj_bias.chunk(3), strict=True)}
        made.load_state_dict(weights | {f"out.{name}": part for name, part in given.out_proj.state_dict().items()})
        return made.to(given.in_proj_weight.device).train(given.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        swaps = query.ndim == 3 and not self.batch_first
        q, k, v = (
            self._by_heads(layer(each.transpose(0, 1) if swaps else each))
            for layer, each in ((self.q, query), (self.k, key), (self.v, value))
        )
        mask = self._additive(attn_mask, q)
        if key_padding_mask is not None:
            padding = self._additive(key_padding_mask, q)
            assert padding is not None
            mask = padding[..., None, None, :] + (0 if mask is None else mask)
        drops = self.dropout if self.training else 0.0
        seen = nn.functional.scaled_dot_product_attention(q, k, v, mask, drops)
        output = self.out(seen.transpose(-3, -2).flatten(-2))
        return (output.transpose(0, 1) if swaps else output), None

    def _by_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], self.num_heads, -1).transpose(-3, -2)

    def _additive(self, mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
        """A mask as numbers that are added to scores; true is what is not to be seen."""
        if mask is None:
            return None
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, float("-inf"))
        return mask.reshape(-1, self.num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask


class Encoder(nn.Module):
    """torch's TransformerEncoder as the row of layers that it is; torch's reads the first one's attention."""

    def __init__(self, given: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers, self.norm = given.layers, given.norm

    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        for layer in self.layers:
            src = layer(
                src,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(mask is not None and is_causal),
            )
        return src if self.norm is None else self.norm(src)


class OutOfTuple(nn.Module):
    """What a module gives; at one place of a tuple, where that is all it gives."""

    def __init__(self, full: nn.Module, place: int | None) -> None:
        super().__init__()
        self.full, self.place = full, place

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:
        output = self.full(x, *context, **named)
        given: torch.Tensor = output if self.place is None else output[self.place]
        return given


class InTuple(nn.Module):
    """What a module gives, at one place of a tuple of so many, None elsewhere; as it is where ``length`` is 0.

    ``name`` is what the module calls its first argument, where that is how it is given.
    """

    def __init__(self, bare: nn.Module, length: int, place: int, name: str = "") -> None:
        super().__init__()
        self.bare, self.length, self.name = bare, length, name
        self.before, self.after = (None,) * place, (None,) * (length - place - 1)

    def forward(self, *given: Any, **named: Any) -> Any:
        first = given if given or self.name not in named else (named.pop(self.name),)
        output = self.bare(*first, **named)
        return (*self.before, output, *self.after) if self.length else output


class Prepared(nn.Module):
    """The network behind its preparation: takes fractions from 0 to 1, or what the network takes if there is none.

    Images may be bytes, too, as files hold them.
    ``scale`` are mean and deviation that its outputs are multiples of, where there are some.
    """

    mean: torch.Tensor
    std: torch.Tensor
    scale_mean: torch.Tensor
    scale_std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: list[float],
        std: list[float],
        num_axes: int,
        scale: tuple[Sequence[float], Sequence[float]] = ((), ()),
    ) -> None:
        super().__init__()
        self.network, self.is_scaled, self.takes_images = network, bool(scale[0]), num_axes == IMAGE_AXES
        self.is_prepared = any(mean) or any(each != 1 for each in std)  # else whole numbers stay whole
        for name, values in (("scale_mean", scale[0]), ("scale_std", scale[1])):
            self.register_buffer(name, torch.tensor(values))
        self.register_buffer("mean", torch.tensor(mean or [0.0]).reshape(1, -1, *[1] * (num_axes - 2)))
        self.register_buffer("std", torch.tensor(std or [1.0]).reshape(1, -1, *[1] * (num_axes - 2)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.takes_images and inputs.dtype == torch.uint8:
            inputs = inputs / 255
        outputs: torch.Tensor = self.network((inputs - self.mean) / self.std if self.is_prepared else inputs)
        return outputs * self.scale_std + self.scale_mean if self.is_scaled else outputs


class SelfAttention(Attention):
    """Attention of a block's first input to itself, whatever else the block is called with."""

    @classmethod
    def of_layers(cls, layers: Sequence[nn.Linear], num_heads: int, dropout: float) -> "SelfAttention":
        """One with the weights of these layers: to queries, keys and values, and from all heads."""
        width, embed_dim = layers[0].weight.shape
        bias = any(layer.bias is not None for layer in layers)
        made = cls(embed_dim, num_heads, width // num_heads, bias, batch_first=True, dropout=dropout)
        made = made.to(layers[0].weight).train(layers[0].training)
        for own, layer in zip((made.q, made.k, made.v, made.out), layers, strict=True):
            biases = {"bias": torch.zeros(len(layer.weight))} if bias else {}
            own.load_state_dict(biases | layer.state_dict())
        return made

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d, nn.ReLU, nn.Identity),
        *(Attention, SelfAttention, Only, Nothing),
    )
}


def described(module: nn.Module) -> dict[str, Any]:
    """The module as plain data, of which ``built`` makes one of the same shape.

    Raises:
        TypeError: for a class that is not one of LAYERS or a sequence of them.
    """
    name = type(module).__name__
    if isinstance(module, nn.Sequential):
        return {"class": "Sequential", "layers": [described(layer) for layer in module]}
    if isinstance(module, Only):
        return {"class": name, "inner": described(module.inner)}
    if LAYERS.get(name) is not type(module):
        raise TypeError(f"{name}: only {', '.join(LAYERS)} and sequences of them can be written to {DESCRIPTION}")
    return {"class": name, **_arguments(module)}


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, as the module has them."""
    wanted = [name for name in inspect.signature(type(module).__init__).parameters if hasattr(module, name)]
    values = {name: getattr(module, name) for name in wanted}
    values |= {"bias": module.bias is not None} if isinstance(module, nn.Conv2d | nn.Linear) else {}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def built(description: Mapping[str, Any]) -> nn.Module:
    """The module described, with fresh weights."""
    kind = description["class"]
    if kind == "Sequential":
        return nn.Sequential(*map(built, description["layers"]))
    if kind == "Only":
        return Only(built(description["inner"]))
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    del arguments["class"]
    return LAYERS[kind](**arguments)


def changed(module: nn.Module, changes: Mapping[str, Change]) -> nn.Module:
    """The module itself, with the changes made, in order; "" is the path of the module as a whole."""
    for path, change in changes.items():
        if "set" in change:
            for name, value in change["set"].items():
                setattr(module.get_submodule(path), name, tuple(value) if isinstance(value, list) else value)
        elif path:
            module.set_submodule(path, built(change["put"]))
        else:
            module = built(change["put"])
    return module


def fill(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The module itself with these weights; tensors of other shapes are replaced.

    Raises:
        RuntimeError: for weights that are missing or that nothing in the module is called.
    """
    reshape(module, {name: tuple(weight.shape) for name, weight in weights.items()})
    module.load_state_dict(weights)
    return module


def reshape(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The module itself, its tensors of other shapes than these, by name, replaced by zeros."""
    for path, layer in module.named_modules():
        for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            shape = shapes.get(f"{path}.{name}" if path else name)
            if shape is None:
                continue
            layer._non_persistent_buffers_set.discard(name)  # a table that was cut is a weight like others
            if tuple(shape) == tuple(tensor.shape):
                continue
            fresh = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
            is_weight = isinstance(tensor, nn.Parameter)
            setattr(layer, name, nn.Parameter(fresh, requires_grad=tensor.requires_grad) if is_weight else fresh)
    return module


def made(model: Mapping[str, Any]) -> nn.Module:
    """The model as positions need it: plain, out of tuples, cut into parts, in rows. Raises what ``whole`` does."""
    network = untupled(plain(whole(model)), model.get("tuples", {}))
    network = cut(network, model["cut"]) if model.get("cut") else network
    return in_rows(network, model.get("rows", {}))


def whole(model: Mapping[str, Any]) -> nn.Module:
    """The model as its maker builds it: ``timm:NAME``, ``package.module:factory`` or ``FILE.py:factory``.

    In full precision; what of it is compiled, or spread over devices, is what it was made of.

    Raises:
        ValueError: for a model that is neither.
        TypeError: if what is made is no module, has one of TorchScript, or layers that do not have their sizes yet.
    """
    name, arguments = str(model["name"]), dict(model.get("arguments", {}))
    scheme, _, rest = name.partition(":")
    network: Any
    if scheme == "timm":
        network = _timm().create_model(rest, **arguments)
    elif rest:
        network = factory_of(name)(**arguments)
    else:
        raise ValueError(f"{name}: neither timm:NAME nor package.module:factory nor FILE.py:factory")
    network = uncompiled(network)
    if not isinstance(network, nn.Module):
        raise TypeError(f"it gives {type(network).__name__}, not a torch.nn.Module")
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            place = f" at {path}" if path else ""
            raise TypeError(f"it gives a module of TorchScript{place}: give the torch.nn.Module that it was made of")
    if any(map(is_lazy, network.parameters())):
        raise TypeError("its layers get their sizes when it is called first: call it once before it is returned")
    full: nn.Module = network.float()
    return full


def uncompiled(network: Any) -> Any:
    """What the network was made of: nothing in it is compiled by torch, or spread over devices, any more.

    The modules themselves, not copies.
    """
    while hasattr(network, "_orig_mod") or isinstance(network, nn.DataParallel):  # torch.compile names it so
        network = network.module if isinstance(network, nn.DataParallel) else network._orig_mod
    if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
        return network
    vars(network).pop("_compiled_call_impl", None)  # what its method `compile` leaves
    for name, module in list(network._modules.items()):
        if module is not None:
            network._modules[name] = uncompiled(module)
    return network


def plain(network: nn.Module) -> nn.Module:
    """The network itself, each layer with weights of its own that are what it computes with, in evaluation mode.

    What it computes from other weights (weight_norm, spectral_norm, torch's pruning, any parametrization) is held as
    it is, and what layers share is copied, since they are changed one by one.
    """
    network.eval()
    for path, module in list(network.named_modules()):
        if path and type(module) is nn.TransformerEncoder:
            network.set_submodule(path, Encoder(module))
        elif path and _is_transposed(module):
            network.set_submodule(path, _linear(module.weight.T, module.bias))
    for module in network.modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            module.register_state_dict_post_hook(_without_extra_state)  # type: ignore[no-untyped-call]
            module.register_load_state_dict_pre_hook(_with_extra_state)  # type: ignore[no-untyped-call]
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
                module._load_state_dict_pre_hooks.clear()  # torch leaves them, asking for weights that are gone
            elif isinstance(hook, BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    seen = set[int]()
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in seen and path and next(module.parameters(), None) is not None:
            network.set_submodule(path, copy.deepcopy(module))
        seen.add(id(module))
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:
                setattr(module, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
            seen.add(id(weight))
    return network


def untupled(network: nn.Module, tuples: Mapping[str, Sequence[Any]]) -> nn.Module:
    """The network itself, in which another module takes arguments and makes tuples as modules at these paths did.

    Path -> the tuple's length (0: the module gave a tensor), the tensor's place in it, and the name of the first
    argument where it is given by name. What is at ``PATH.bare`` then takes a tensor first and gives one, and the
    module itself is at ``PATH.bare.full``.
    """
    for path in sorted(tuples, key=lambda path: -path.count(".")):  # before it what is in it
        length, place, *name = tuples[path]
        bare = OutOfTuple(network.get_submodule(path), place if length else None)
        network.set_submodule(path, InTuple(bare, length, place, *name))
    return network


def _without_extra_state(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    """A state is tensors alone: what else a module has of its own, its maker gives it."""
    state.pop(f"{prefix}{EXTRA}", None)


def _with_extra_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.setdefault(f"{prefix}{EXTRA}", module.get_extra_state())


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of HuggingFace's GPT-2 and its like, of which inputs are the rows."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


class Tracer(fx.Tracer):
    """Follows a model into its modules, but for those that may do another thing while they learn.

    Those are normalisation with statistics, and what has neither weights nor modules: dropout, dropped paths.
    """

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        has_parts = any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
        return hasattr(module, "running_mean") or not has_parts or super().is_leaf_module(module, path)


class Part(fx.GraphModule):
    """What a model computes between two places where one tensor is all that passes."""


def graph_of(model: nn.Module) -> tuple[fx.GraphModule, list[fx.Node]]:
    """What the model computes in evaluation mode, and its nodes from the input to the output, which is the last.

    Whatever else the model may be called with keeps its default.

    Raises:
        ValueError: if the forward pass cannot be followed: it branches on
            values, takes several tensors or gives several.
    """
    _, *others = inspect.signature(model.forward).parameters.values()
    fixed = {each.name: each.default for each in others if each.default is not each.empty}
    was, known = model.training, set(vars(model))
    try:
        tracer = Tracer()
        graph = fx.GraphModule(model, tracer.trace(model.eval(), concrete_args=fixed), type(model).__name__)
    except Exception as error:  # torch and the model's own code raise what they like where values are asked for
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    finally:
        model.train(was)
        for name in set(vars(model)) - known:  # constants that the tracer left; of a second trace others were called so
            delattr(model, name)
    first, *rest = (node for node in graph.graph.nodes if node.op == "placeholder")
    aside = set(rest)  # and what is computed of them: checks that they are what they were
    for node in graph.graph.nodes:
        if node.all_input_nodes and aside.issuperset(node.all_input_nodes):
            aside.add(node)
    for node in [node for node in reversed(graph.graph.nodes) if node in aside]:
        if not node.users:
            graph.graph.erase_node(node)
    *nodes, output = (node for node in graph.graph.nodes if node not in aside and node.op != "get_attr")
    if aside & set(graph.graph.nodes) or not nodes[1:] or output.args[0] is not nodes[-1]:
        raise ValueError("it does not take one tensor and give another, computed last")
    return graph, [first, *nodes[1:]]


def cut(model: nn.Module, ends: Sequence[str]) -> nn.Sequential:
    """The model as a row of parts that hold its own modules, each up to a node of its graph where one tensor passes.

    For models whose forward pass is written out, so that their blocks are no modules. A part
    is called by its first layer of weights.

    Raises:
        ValueError: if the forward pass cannot be followed or has no such nodes.
    """
    graph, nodes = graph_of(model)
    places = [0, *(place for place, node in enumerate(nodes) if node.name in ends)]
    if len(places) != 1 + len(ends) or places[-1] != len(nodes) - 1:
        raise ValueError(f"its graph does not have {', '.join(ends)} in this order, the last at its end")
    parts = nn.Sequential()
    for number, (before, last) in enumerate(itertools.pairwise(places)):
        inside = nodes[before + 1 : last + 1]
        name = next(filter(None, (layer_of(graph, node) for node in inside)), f"part{number}").replace(".", "_")
        parts.add_module(f"{name}_{number}" if name in parts._modules else name, _part(graph, nodes[before], inside))
    return parts


def in_rows(model: nn.Module, rows: Mapping[str, Sequence[int]]) -> nn.Module:
    """The model itself, its sequences at these paths made of rows of so many of their modules; "" is the model.

    A row is called as its first module was.
    """
    for path, counts in rows.items():
        names, modules = zip(*model.get_submodule(path).named_children(), strict=True)
        starts = [0, *itertools.accumulate(counts)]
        sequence = nn.Sequential()
        for start, end in itertools.pairwise(starts):
            row = modules[start] if end - start == 1 else nn.Sequential(*modules[start:end])
            sequence.add_module(names[start], row)
        if path:
            model.set_submodule(path, sequence)
        else:
            model = sequence
    return model


def layer_of(graph: fx.GraphModule, node: fx.Node) -> str:
    """Path of the module that a node calls, if it has a matrix of weights or more; else ""."""
    path = str(node.target)
    is_layer = node.op == "call_module" and any(weight.ndim > 1 for weight in graph.get_submodule(path).parameters())
    return path if is_layer else ""


def _part(graph: fx.GraphModule, taken: fx.Node, nodes: Sequence[fx.Node]) -> Part:
    own = fx.Graph()
    copies = {taken: own.placeholder("x")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = own.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        copied(node)
    own.output(copies[nodes[-1]])
    return Part(graph, own)


def _timm() -> Any:
    """timm, also where torchvision, which it imports, was built for another torch: its operators are not used here."""
    try:
        return importlib.import_module("timm")
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _KEPT.append(library)
        return importlib.import_module("timm")


_KEPT: list[Any] = []  # definitions live as long as their library


def factory_of(name: str) -> Callable[..., Any]:
    """The function ``package.module:factory`` or ``FILE.py:factory``; raises what importing its module raises."""
    place, _, factory = name.rpartition(":")
    if not place.endswith(".py"):
        found: Callable[..., Any] = getattr(importlib.import_module(place), factory)
        return found
    module = _module_of(Path(place).absolute())
    if not hasattr(module, factory):
        raise AttributeError(f"{place} has no {factory}")
    found = getattr(module, factory)
    return found


_FOLDERS: dict[str, bool] = {}  # that files which make models were read from -> whether they are searched for that


def _module_of(file: Path) -> ModuleType:
    """The module in a file, which imports what lies beside it as a script does."""
    name, folder = f"_file_{file.stem}", str(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file}: no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look their module up
    _forget_namesakes(file.parent)
    others = [path for path in sys.path if _FOLDERS.get(path)]
    sys.path[:] = [folder, *(path for path in sys.path if path not in others)]
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
        sys.path += others
    _FOLDERS.setdefault(folder, folder not in sys.path)
    if folder not in sys.path:
        sys.path.append(folder)  # for what its functions import; last, so that it hides nothing
    return module


def _forget_namesakes(folder: Path) -> None:
    """Modules imported beside another such file that are called as files here: these are others, of another version."""
    others = []
    for name, module in list(sys.modules.items()):
        known = getattr(module, "__dict__", {})
        places = [known.get("__file__"), *known.get("__path__", ())]  # a package may have no file
        if not any(place and place.startswith(f"{other}{os.sep}") for place in places for other in _FOLDERS):
            continue
        own = folder.joinpath(*name.split("."))
        here = [path for path in (own.with_suffix(".py"), own / "__init__.py", own) if path.exists()]
        if here and not any(str(path) in places for path in here):
            others.append(name)
    for name in list(sys.modules):  # afterwards: a package's path may be that of what it is in
        if any(f"{name}.".startswith(f"{other}.") for other in others):  # with what is in it
            del sys.modules[name]


def load(folder: str | Path, *, prepared: bool = True) -> nn.Module:
    """The network in the folder, on the CPU, in eval mode.

    ``prepared``: it takes images as fractions from 0 to 1, or bytes (B x C x H x W), and
    normalises them itself, and gives numbers in their unit; otherwise it takes and gives what the model does. A program
    (``model.pt2``) always prepares, and takes images of any size.
    """
    from safetensors.torch import load_file

    description = _description(folder)
    network = None if _is_program_alone(folder) else remade(description, folder)
    if network is None:
        program = torch.export.load(Path(folder, PROGRAM)).module()
        program.eval = lambda: program  # type: ignore[method-assign]  # it is, and torch's own refuses
        return program
    fill(network, load_file(Path(folder, WEIGHTS)))
    given = description["input"]
    if prepared:
        scale = description.get("output", {"mean": (), "std": ()})
        network = Prepared(network, given["mean"], given["std"], 1 + len(given["shape"]), (scale["mean"], scale["std"]))
    return network.eval()


def _is_program_alone(folder: str | Path) -> bool:
    return Path(folder, PROGRAM).is_file() and not Path(folder, WEIGHTS).is_file()


def _description(folder: str | Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(Path(folder, DESCRIPTION).read_text(encoding="utf-8"))
    return description


def remade(description: Mapping[str, Any], folder: str | Path) -> nn.Module | None:
    """The network described, with fresh weights, made by the folder's ``source/``; None where nothing here makes it.

    Raises what making it raises where there is no program that does without.
    """
    failed: Exception | None = None
    for maker in _makers(description, folder):
        try:
            return changed(made(maker), description["changes"])
        except Exception as error:  # its file may read another one that was left where it lay
            failed = failed or error
    if failed is not None and not Path(folder, PROGRAM).is_file():
        raise failed
    return None


def _makers(description: Mapping[str, Any], folder: str | Path) -> list[dict[str, Any]]:
    """What may make the model here; nothing for one that only a tracker, or another machine, has."""
    if "changes" not in description:
        return []
    model = dict(description["model"])
    place, _, factory = model["name"].rpartition(":")
    if place.endswith(".py"):  # as it was handed over, or where it lay
        files = [path for path in (Path(folder, SOURCE, Path(place).name), Path(place)) if path.is_file()]
        return [{**model, "name": f"{path}:{factory}"} for path in files]
    scheme = model["name"].partition(":")[0]
    known = scheme == "timm" or (scheme != "mlflow" and importlib.util.find_spec(scheme.partition(".")[0]) is not None)
    return [model] if known else []


def image_of(path: str | Path, given: Mapping[str, Any]) -> torch.Tensor:
    """The image as fractions C x S x S, made square as ``given``, the description's input, says.

    It is seen as the study saw its images: upright, transparency on the background, of 16 bits the upper eight.

    Raises:
        ValueError: for an image of other channels than the network takes.
    """
    import numpy as np

    channels, _, side = given["shape"]
    fitting: dict[str, Any] = {"fit": "squash", "interpolation": "bilinear", "crop_pct": 1.0, "background": "white"}
    fitting |= given.get("fitting", {})
    pictures = _pictures(Path(path), channels, fitting["background"])
    values = np.concatenate([np.atleast_3d(np.array(_square(each, side, fitting))) for each in pictures], axis=2)
    if values.shape[2] not in (1, channels):
        raise ValueError(f"{path}: {values.shape[2]} channels, the network takes {channels}")
    return (torch.from_numpy(values).float() / 255).permute(2, 0, 1).expand(channels, -1, -1)


def _pictures(path: Path, channels: int, background: str) -> list[Any]:
    """What PIL scales: one gray or colour image of 8 bits, or one for each channel of an array."""
    import numpy as np
    from PIL import Image, ImageOps

    if path.suffix.lower() == ".npy":
        array = _eight_bits(np.load(path, allow_pickle=False))
        return [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(np.atleast_3d(array), 2, 0)]
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        return [Image.fromarray(_eight_bits(np.asarray(image).astype("uint16")))]
    mode = "L" if channels == 1 or image.mode in ("1", "L", "LA", "La") else "RGB"  # gray is repeated afterwards
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, background)
        below.alpha_composite((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
        image = below
    return [image.convert(mode)]


def _eight_bits(array: Any) -> Any:
    """Of 16 bits the upper eight."""
    return (array >> 8).astype("uint8") if array.dtype.itemsize == 2 else array


def _square(image: Any, side: int, fitting: Mapping[str, Any]) -> Any:
    """The image scaled and cut, or filled up, to a square of this side."""
    from PIL import Image

    scale, (width, height) = math.floor(side / fitting["crop_pct"]), image.size
    new = scale, scale
    if fitting["fit"] == "pad":
        ratio = max(width / scale, height / scale)
        new = max(1, round(width / ratio)), max(1, round(height / ratio))
    elif fitting["fit"] == "crop":
        new = int(scale * width / min(image.size)), int(scale * height / min(image.size))
    image = image.resize(new, Image.Resampling[fitting["interpolation"].upper()])
    left, top = (round(max(0, length - side) / 2) for length in new)
    kept = min(side, new[0]), min(side, new[1])
    square = Image.new(image.mode, (side, side), fitting["background"])
    square.paste(image.crop((left, top, left + kept[0], top + kept[1])), tuple((side - length) // 2 for length in kept))
    return square


def main(folder: str, *paths: str) -> None:
    """Print the largest outputs of each image, by name."""
    network, description = load(folder), _description(folder)
    names, shape = description.get("output_names", ()), description["input"]["shape"]
    if len(shape) != 3:
        sys.exit(f"It takes B x {' x '.join(map(str, shape))} and no images: call what load({folder!r}) gives.")
    if not paths:
        sys.exit(f"No image of {folder}: {USAGE}")
    for path in paths:
        with torch.no_grad():
            outputs = network(image_of(path, description["input"])[None])[0]
        if outputs.ndim == 3:  # of every pixel
            shares = _shares(outputs, names) if description.get("gives_logits", True) else ()
            print(path, "outputs of", " x ".join(map(str, outputs.shape)), *shares, sep="  ")
            continue
        values, places = outputs.flatten().topk(min(SHOWN, outputs.numel()))
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        print(path, *(f"{names[place] if names else place}: {value:.4g}" for place, value in pairs), sep="  ")


def _shares(outputs: torch.Tensor, names: Sequence[str]) -> list[str]:
    """Of maps of several classes: the share of the pixels whose largest output each has."""
    if len(names) != len(outputs) or len(names) < 2:
        return []
    shares = outputs.argmax(0).flatten().bincount(minlength=len(names)) / outputs[0].numel()
    return [f"{name}: {share:.1%}" for name, share in zip(names, shares.tolist(), strict=True)]


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(USAGE)
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError) as error:  # a file that is not there, or that is no image
        sys.exit(str(error))
