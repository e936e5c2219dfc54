"""Reading the nodes of an exported graph: what they call, in which module, with which shape, and where the batch is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

__all__ = [
    "Layout",
    "attribute_of",
    "batch_place",
    "batch_shape",
    "call_names",
    "live_nodes",
    "module_of",
    "op_of",
    "sample_shape",
]

EXAMPLES = 2  # samples in the batch that graphs are traced with


@dataclass(frozen=True)
class Layout:
    """Where the samples of a batch are in a tensor.

    Parameters
    ----------
    dimension : int
    order : {"alone", "major", "minor"}
        The dimension is the batch alone; or samples with what belongs to each behind it (windows of a picture); or the
        other way round, samples running fastest (torch's attention flattens tokens and samples so).
    """

    dimension: int = 0
    order: str = "alone"

    def by_sample(self, tensor: Tensor, samples: int) -> Tensor:
        """Return ``tensor`` as (samples, ...)."""
        if self.order == "alone":
            return tensor.movedim(self.dimension, 0)
        sizes = (samples, -1) if self.order == "major" else (-1, samples)
        place = self.dimension + (self.order == "minor")
        return tensor.unflatten(self.dimension, sizes).movedim(place, 0)


def live_nodes(graph: fx.Graph) -> dict[fx.Node, None]:
    """Return, in order, the nodes that carry a tensor computed from the input."""
    live: dict[fx.Node, None] = {}
    for node in graph.nodes:
        tensor = isinstance(node.meta.get("val"), (Tensor, tuple, list))
        if node.op == "placeholder" or (
            node.op == "call_function" and tensor and any(s in live for s in node.all_input_nodes)
        ):
            live[node] = None
    return live


def call_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Name calls after their module; repeats get #2, #3.

    The module alone names its last call, and all of them where they are of one kind; else the operation follows.
    """
    calls = [node for node in graph.nodes if node.op == "call_function"]
    kinds: dict[str, set[str]] = {}
    for node in calls:
        kinds.setdefault(module_of(node), set()).add(op_of(node))
    last = {module_of(node): node for node in calls}
    names: dict[fx.Node, str] = {}
    seen: dict[str, int] = {}
    for node in calls:
        module = module_of(node)
        alone = module and (last[module] is node or len(kinds[module]) == 1)
        name = module if alone else f"{module}.{op_of(node)}".lstrip(".")
        seen[name] = seen.get(name, 0) + 1
        names[node] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return names


def op_of(node: fx.Node) -> str:
    """Return the name of the operation, without overload: ``"conv2d"``."""
    if node.op != "call_function":
        return node.op
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def module_of(node: fx.Node) -> str:
    """Return the path of the innermost module that made the call."""
    entries = list((node.meta.get("nn_module_stack") or {}).values())
    return str(entries[-1][0]) if entries else ""


def batch_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's output, dimensions that depend on the batch as 0; () where it is no tensor."""
    value = node.meta.get("val")
    return tuple(s if isinstance(s, int) else 0 for s in value.shape) if isinstance(value, Tensor) else ()


def sample_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's output for one sample, without the batch dimension where it is one alone."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    sizes = [s if isinstance(s, int) else int(s.node.hint) // EXAMPLES for s in value.shape]
    alone = next((d for d, s in enumerate(value.shape) if not isinstance(s, int) and sizes[d] == 1), None)
    return tuple(size for d, size in enumerate(sizes) if d != alone)


def batch_place(node: fx.Node) -> tuple[int, bool] | None:
    """Return the dimension of a node's output that holds the batch, and whether alone; None where there is not one."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    places: list[tuple[int, Any]] = [(d, s) for d, s in enumerate(value.shape) if not isinstance(s, int)]
    if len(places) != 1:
        return None
    dimension, size = places[0]
    return dimension, int(size.node.hint) == EXAMPLES


def attribute_of(module: nn.Module, path: str) -> Tensor:
    """Return the parameter or buffer at a dotted path."""
    parent, _, name = path.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(parent), name)
    return tensor
