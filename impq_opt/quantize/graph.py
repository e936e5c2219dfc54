"""Where a network's activations are: its torch.fx graph with names that people and problem files use."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import fx, nn

from impq_opt.errors import DataError, nearest

__all__ = ["CallGraph"]

# The clip of an activation that no batch-norm precedes and no problem declares (IMPQ, authors' code).
CLIP = 4.0

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softplus)
_RECTIFYING = frozenset(("relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "softplus"))
# What is not negative stays so through these.
_KEEPS_SIGN = frozenset([
    "add", "iadd", "mul", "cat", "concat", "getitem", "mean", "sum", "pad", "flatten", "view", "reshape", "permute",
    "transpose", "contiguous", "clone", "dropout", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "interpolate",
    "Identity", "Dropout", "Flatten", "MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool2d"
])  # fmt: skip


class CallGraph:
    """The calls of a network, as torch.fx traces them.

    A call is known by three names: its node in the graph (``"layer1_0_relu_1"``); its module, with ``#2`` for the
    second call and so on (``"layer1.0.relu#2"``); and, for a function called inside a module that is not a leaf, the
    module and the function (``"layer1.0.add"``), or the module alone where it is the module's last call.

    Parameters
    ----------
    network : nn.Module
        Left as it is. Where it cannot be traced, only modules that are called once can be named.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())
        try:
            self.traced: fx.GraphModule | None = fx.symbolic_trace(network)
        except Exception:  # tracing runs the user's code, which may raise anything
            self.traced = None
        self._nodes: dict[str, fx.Node] = {}
        self._calls: dict[str, int] = {}
        if self.traced is not None:
            for node in self.traced.graph.nodes:
                if node.op == "call_module":
                    self._calls[str(node.target)] = self._calls.get(str(node.target), 0) + 1
            self._nodes = {node.name: node for node in self.traced.graph.nodes} | dict(_named(self.traced.graph))

    def node(self, label: str) -> fx.Node | None:
        """Return the node that ``label`` names, if there is one."""
        return self._nodes.get(label)

    def module_called_once(self, label: str) -> nn.Module | None:
        """Return the module whose only output is what ``label`` names, so that a forward hook reaches it."""
        module = self._modules.get(label)
        if module is None or isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return None
        return module if self.traced is None or self._calls.get(label) == 1 else None

    def is_rectified(self, label: str) -> bool:
        """Return whether the tensor cannot be negative because of the calls that make it."""
        node = self._nodes.get(label)
        if node is None:
            return _rectifies(self._modules.get(label))
        return self._not_negative(node)

    def _not_negative(self, node: fx.Node) -> bool:
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        name = type(module).__name__ if module is not None else _function(node).rstrip("_")
        if _rectifies(module) or name in _RECTIFYING:
            return True
        sources = node.all_input_nodes
        return name in _KEEPS_SIGN and bool(sources) and all(self._not_negative(source) for source in sources)

    def default_clip(self, label: str) -> float:
        """Return max over channels of (beta + 6 abs(gamma)) of the batch-norm before an activation, its clip value.

        4 where none is found before a layer with parameters (IMPQ, authors' code). After a residual add it is the
        nearest batch-norm's, that of the main branch, as in the authors' code; what is added is not accounted for.
        """
        node = self._nodes.get(label)
        front = [] if node is None else list(node.all_input_nodes)
        seen: set[fx.Node] = set()
        while front:
            one = front.pop(0)
            if one in seen:
                continue
            seen.add(one)
            module = self._modules.get(str(one.target)) if one.op == "call_module" else None
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                clip = float((module.bias + 6 * module.weight.abs()).detach().max())
                return clip if 0 < clip < math.inf else CLIP
            if module is None or not any(True for _ in module.parameters()):
                front += one.all_input_nodes
        return CLIP

    def unknown(self, label: str) -> DataError:
        """Return the error that says why ``label`` cannot be found."""
        if self.traced is None:
            return DataError(
                "is no module that is called once, and torch.fx cannot trace the network",
                where="activation group",
                value=label,
                hint=nearest(label, self._modules),
            )
        return DataError("no such activation in the network", value=label, hint=nearest(label, self._nodes))


def _named(graph: fx.Graph) -> Iterator[tuple[str, fx.Node]]:
    """Yield each call with its name by module."""
    calls = [node for node in graph.nodes if node.op.startswith("call_")]
    last = {_module(node): node for node in calls}
    seen: dict[str, int] = {}
    for node in calls:
        module = _module(node)
        alone = node.op == "call_module" or (module and last[module] is node)
        name = module if alone else f"{module}.{_function(node)}".lstrip(".")
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), node


def _module(node: fx.Node) -> str:
    """Return the path of the innermost module that makes the call."""
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _function(node: fx.Node) -> str:
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _rectifies(module: nn.Module | None) -> bool:
    return isinstance(module, _RECTIFIERS) or (isinstance(module, nn.Hardtanh) and module.min_val >= 0)
