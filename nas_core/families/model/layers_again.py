"""Layers of an exported program as torch's own modules again: a program keeps what they compute, not what they are.

Only then have they channels that can be left out, kernels that can be split,
and statistics that can be recalibrated. What they compute stays the same, bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn
from torch.export.unflatten import InterpreterModule

Given = Mapping[str, Any]  # an operator's arguments by their names
AXES = "axes"  # among them: how many the layer's input has, None where the program does not say
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}  # by these
RESIZES = (  # each gives what it takes where that has the size already
    torch.ops.aten._upsample_bilinear2d_aa,
    torch.ops.aten._upsample_bicubic2d_aa,
    torch.ops.aten._upsample_nearest_exact2d,
)


def with_layers(program: nn.Module) -> nn.Module:
    """The program itself, with a module of torch's wherever a part of it is just one such layer."""
    for path, part in list(program.named_modules()):
        if path and (layer := _layer_of(part)) is not None:
            program.set_submodule(path, layer)
    return program


def for_any_runtime(program: nn.Module) -> nn.Module:
    """The program itself without what other runtimes have no operator for, and inputs of the model's own do not need.

    That is what it asserts of its inputs, conversions that keep no trace, and resizing to the size that there is.
    """
    for part in program.modules():
        graph = _graph_of(part)
        if graph is not None and sum(map(_is_replaced, list(graph.nodes))):
            graph.eliminate_dead_code()
            part.finalize()  # type: ignore[operator]
    return program


def _is_replaced(node: fx.Node) -> bool:
    """Whether the node was such a one, and was taken out or does the same by another operator now."""
    operator = getattr(node.target, "overloadpacket", None)
    if operator is torch.ops.aten._assert_async:
        node.graph.erase_node(node)
    elif operator is torch.ops.aten._to_copy and set(node.kwargs) == {"dtype"}:
        node.target, node.args, node.kwargs = torch.ops.aten.to.dtype, (*node.args, node.kwargs["dtype"]), {}
    elif operator in RESIZES:
        node.target, node.args = _resized, (node.target, *node.args)  # type: ignore[arg-type]
    else:
        return False
    return True


def _resized(
    resize: Callable[..., torch.Tensor], images: torch.Tensor, size: Sequence[int], *given: Any
) -> torch.Tensor:
    if size is not None and tuple(images.shape[-2:]) == tuple(size):
        return images
    return resize(images, size, *given)


def with_tensors_first(program: nn.Module) -> nn.Module:
    """The program itself, each part of it that is called once with a tensor before numbers, such as the batch's size.

    What flows through a part is its first argument then, as it is in the model that the program was made of.
    """
    graphs = [(owner, graph) for owner in program.modules() if (graph := _graph_of(owner)) is not None]
    for owner, node in [(owner, node) for owner, graph in graphs for node in graph.find_nodes(op="call_module")]:
        part = owner.get_submodule(str(node.target))
        is_tensor = [isinstance(_value(each), torch.Tensor) for each in node.args]
        if not isinstance(part, InterpreterModule) or node.kwargs or is_tensor == sorted(is_tensor, reverse=True):
            continue
        order = sorted(range(len(is_tensor)), key=lambda index: not is_tensor[index])
        placeholders = part.graph.find_nodes(op="placeholder")
        node.args = tuple(node.args[index] for index in order)
        for index in reversed(order):  # each before those that were moved before it
            next(iter(part.graph.nodes)).prepend(placeholders[index])
        part.finalize()  # type: ignore[no-untyped-call]
    return program


def _graph_of(part: nn.Module) -> fx.Graph | None:
    graph = getattr(part, "graph", None)
    return graph if isinstance(graph, fx.Graph) else None


def _value(argument: Any) -> Any:
    """What was seen at this place when the program was made."""
    return argument.meta.get("val") if isinstance(argument, fx.Node) else argument


def _layer_of(part: nn.Module) -> nn.Module | None:
    graph = _graph_of(part)
    if graph is None or any(True for _ in part.children()):
        return None
    done = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    taken = [node for node in graph.nodes if node.op == "placeholder"]
    (output,) = graph.find_nodes(op="output")
    if len(done) != 1 or len(taken) != 1 or output.args[0] not in (done[0], (done[0],)):
        return None
    make = LAYERS.get(str(done[0].target))
    given = _given(part, done[0], taken[0]) if make is not None else None
    layer = make(given) if make is not None and given is not None else None
    if layer is None or given is None:
        return None
    own_of = dict((*layer.named_parameters(), *layer.named_buffers()))
    wanted = {name: own for name, own in own_of.items() if given.get(name) is not None}
    if any(isinstance(own, nn.Parameter) != isinstance(given[name], nn.Parameter) for name, own in wanted.items()):
        return None  # a fixed filter, say, which is no weight of a layer
    for name in wanted:
        setattr(layer, name, given[name])
    return layer.eval()


def _given(part: nn.Module, node: fx.Node, taken: fx.Node) -> Given | None:
    """The operator's arguments, tensors of the part's own among them; None where it computes with others."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    defaults = {each.name: each.default_value for each in node.target._schema.arguments}  # type: ignore[union-attr]
    given = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.pop("input", given.pop("self", None)) is not taken:
        return None
    example = taken.meta.get("val")
    given[AXES] = None if example is None else example.ndim
    for name, value in given.items():
        if isinstance(value, fx.Node):
            if value.op != "get_attr":
                return None
            given[name] = attrgetter(str(value.target))(part)
    return given


def _convolution(given: Given) -> nn.Module:
    weight = given["weight"]
    kinds = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    padding = given["padding"]
    make: Any = kinds[weight.ndim]
    layer: nn.Module = make(
        weight.shape[1] * given["groups"],
        len(weight),
        tuple(weight.shape[2:]),
        stride=_each(given["stride"], weight),
        padding=padding if isinstance(padding, str) else _each(padding, weight),
        dilation=_each(given["dilation"], weight),
        groups=given["groups"],
        bias=given["bias"] is not None,
        device="meta",
    )
    return layer


def _each(values: Any, weight: torch.Tensor) -> Any:
    """A number for each axis of the kernel."""
    listed = [values] if isinstance(values, int) else list(values)
    return tuple(listed if len(listed) > 1 else listed * (weight.ndim - 2))


def _linear(given: Given) -> nn.Module:
    outputs, inputs = given["weight"].shape
    return nn.Linear(inputs, outputs, bias=given["bias"] is not None, device="meta")


def _layer_norm(given: Given) -> nn.Module | None:
    if given["weight"] is None:
        return nn.LayerNorm(given["normalized_shape"], given["eps"], elementwise_affine=False)
    has_bias = given["bias"] is not None
    return nn.LayerNorm(given["normalized_shape"], given["eps"], bias=has_bias, device="meta")


def _group_norm(given: Given) -> nn.Module | None:
    weight = given["weight"]
    return None if weight is None else nn.GroupNorm(given["num_groups"], len(weight), given["eps"], device="meta")


def _batch_norm(given: Given) -> nn.Module | None:
    mean, weight, make = given["running_mean"], given["weight"], NORMS.get(given[AXES])
    if given["training"] or mean is None or make is None:
        return None
    norm = make(len(mean), given["eps"], given["momentum"], affine=weight is not None, device="meta")
    norm.num_batches_tracked = torch.tensor(0)
    return norm


def _relu(given: Given) -> nn.Module:
    return nn.ReLU()


LAYERS: Mapping[str, Callable[[Given], nn.Module | None]] = {
    "aten.conv1d.default": _convolution,
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.conv3d.default": _convolution,
    "aten.linear.default": _linear,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.batch_norm.default": _batch_norm,
    "aten.relu.default": _relu,
    "aten.relu_.default": _relu,
}
