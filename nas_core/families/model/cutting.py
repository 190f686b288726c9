"""Where a model whose forward pass is written out can be cut: where one tensor is all that passes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from nas_core.base.errors import SpaceError
from nas_core.families.model.rebuild import cut, graph_of, layer_of


def ends_of(model: nn.Module, inputs: torch.Tensor) -> tuple[str, ...]:
    """Names of the nodes of the model's graph at which its parts end, the output's last.

    A part begins with a layer of weights and goes on as long as shapes stay
    what they are; pooling between two blocks is in neither.

    Args:
        model: in evaluation mode; its modules and weights are only looked at.
        inputs: a few examples; axis 0 counts them.

    Raises:
        SpaceError: if the forward pass cannot be followed, or its parts
            compute something else than the model does.
    """
    where, expected = (
        f"model {type(model).__name__}",
        "a forward pass that torch.fx can follow, with one tensor in and out",
    )
    try:
        graph, nodes = graph_of(model)
        rows = _joined(_parted(graph, nodes), graph, _shapes(graph, inputs))
        ends = tuple(row[-1].name for row in rows)
        parts = cut(model, ends).eval()
    except ValueError as error:
        raise SpaceError(where, str(error), expected, "Without space.cut its modules are looked at.") from None
    with torch.no_grad():
        if not torch.equal(parts(inputs.clone()), model(inputs.clone())):
            raise SpaceError(where, "other outputs of its graph than of itself", expected)
    return ends


def _parted(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """The nodes in as many rows as can be, so that each reads nothing of those before but the last one's last node."""
    given, *rest = nodes
    order = {node: place for place, node in enumerate(rest)}
    read_until = {node: max((order.get(user, len(rest)) for user in node.users), default=-1) for node in nodes}
    used_until = _used_until(graph, rest)
    rows: list[list[fx.Node]] = [[]]
    reach = read_until[given]  # how far what came before the present node is read
    for place, node in enumerate(rest):
        rows[-1].append(node)
        if max(reach, used_until[place]) > place:
            reach = max(reach, read_until[node])
        else:
            reach = read_until[node]
            rows.append([])
    return [row for row in rows if row]


def _used_until(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[int]:
    """For each node, where the last use is of all tensors of the model's that are used up to there."""
    spans: dict[str, tuple[int, int]] = {}
    for place, node in enumerate(nodes):
        own = [str(node.target)] if node.op == "call_module" else []
        for path in own + [str(each.target) for each in node.all_input_nodes if each.op == "get_attr"]:
            spans[path] = spans.get(path, (place, place))[0], place
    held = [span for path, span in spans.items() if _holds_tensors(graph, path)]
    return [max((last for first, last in held if first <= place), default=-1) for place in range(len(nodes))]


def _holds_tensors(graph: fx.GraphModule, path: str) -> bool:
    found: Any = graph
    for name in path.split("."):
        found = getattr(found, name)
    return not isinstance(found, nn.Module) or bool(found.state_dict())


def _joined(
    rows: Sequence[list[fx.Node]], graph: fx.GraphModule, shapes: dict[str, tuple[int, ...]]
) -> list[list[fx.Node]]:
    """Rows without weights, such as an activation, belong to what is before them, unless they change the shape."""
    found: list[list[fx.Node]] = []
    for row in rows:
        is_layer = any(layer_of(graph, node) for node in row)
        if found and not is_layer and shapes[found[-1][-1].name] == shapes[row[-1].name]:
            found[-1] = found[-1] + row
        else:
            found.append(row)
    return found


def _shapes(graph: fx.GraphModule, inputs: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what each node gives, by name; () where it is no tensor."""
    shapes: dict[str, tuple[int, ...]] = {}

    class Looking(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            shapes[n.name] = tuple(result.shape) if isinstance(result, torch.Tensor) else ()
            return result

    try:
        with torch.no_grad():
            Looking(graph).run(inputs.clone())
    except Exception as error:  # what the model's own code and torch raise for inputs that it does not take
        raise ValueError(f"it does not run on inputs of shape {tuple(inputs.shape)}: {type(error).__name__}") from None
    return shapes
