"""Names of calls as packed networks of version 1 have them, which were traced by torch.fx.

A call is known by two names there: its node in the graph of ``torch.fx.symbolic_trace`` (``"layer1_0_relu_1"``); and
its module, ``#2`` for the second call, or, for a function that a module calls which is none of torch's own, the module
and the function (``"layer1.0.add"``), or the module alone where it is the module's last call.
"""

from __future__ import annotations

from collections import Counter

from torch import fx

from impq_opt.tracing.nodes import op_of

__all__ = ["symbolic_names"]


def symbolic_names(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the calls of an exported graph by the names that torch.fx has for them."""
    scratch, called = fx.Graph(), list[tuple[str, str, fx.Node, fx.Node]]()
    before = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            scratch.placeholder(str(node.target))
        if node.op != "call_function":
            continue
        call, leaf, owner = _place(node)
        if call and call == before:  # one more call inside a module of torch's own
            module, function, old, _ = called[-1]
            called[-1] = (module, function, old, node)
        else:
            old = scratch.call_module(leaf) if call else scratch.call_method(op_of(node).rstrip("_"))
            called.append((owner, "" if call else op_of(node).rstrip("_"), old, node))
        before = call
    names: dict[str, fx.Node] = {}
    last = {module: node for module, _, _, node in called}
    seen = Counter[str]()
    for module, function, _, node in called:
        alone = not function or (module and last[module] is node)
        name = module if alone else f"{module}.{function}".lstrip(".")
        seen[name] += 1
        names[name if seen[name] == 1 else f"{name}#{seen[name]}"] = node
    return names | {old.name: node for _, _, old, node in called}


def _place(node: fx.Node) -> tuple[str, str, str]:
    """Return which call of which module of torch's own makes a call, both "" without one; and the innermost module."""
    entries = list((node.meta.get("nn_module_stack") or {}).items())
    for call, (path, kind) in entries:
        if str(kind).startswith("torch.nn.") and not str(kind).endswith(".Sequential"):
            return str(call), str(path), str(path)
    return "", "", str(entries[-1][1][0]) if entries else ""
