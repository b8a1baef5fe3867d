"""The constraints of an instance as a graph: what depends on what, to analyse, export and draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnnverify.cardinality.instance import Instance, Xnor
from bnnverify.errors import QueryError

if TYPE_CHECKING:
    import networkx as nx


def to_graph(instance: Instance) -> nx.DiGraph[str]:
    """A directed acyclic graph with an edge from everything to what it is used in.

    Nodes are named as `Variable.name` names variables (`x3`, `h0.5`), and `comparison 0`, ..., `property` and, if the
    region is constrained, `region`. Attributes: `kind`, `block`, `index`, `column`, `constraint` (text; empty for
    inputs) and `layer` (longest path from an input). An edge has the `sign` of the literal and its `coefficient`.
    """
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    for _, variable in instance:
        graph.add_node(
            variable.name,
            kind=variable.kind,
            block=variable.block,
            index=variable.index,
            column=variable.column,
            constraint="",
        )
    for gate in instance.gates:
        name = instance.variables[gate.output - 1].name
        if isinstance(gate, Xnor):
            coefficients: tuple[int, ...] = (1, 1)
            text = " equals ".join(instance.literal_name(v) for v in gate.literals)
        else:
            coefficients, text = gate.constraint.coefficients, instance.text(gate.constraint)
        graph.nodes[name]["constraint"] = text
        _connect(graph, instance, name, gate.literals, coefficients)
    formula = instance.formula
    joined = "all of the comparisons" if formula.conjunctive else "at least one of the comparisons"
    truth = str(formula.truth) if formula.truth is not None else joined
    graph.add_node("property", kind="property", block=-1, index=0, column=-1, constraint=truth)
    for i, constraint in enumerate(formula.constraints):
        name = f"comparison {i}"
        label = f"{formula.labels[i]}: " if formula.labels else ""
        text = label + instance.text(constraint)
        graph.add_node(name, kind="comparison", block=-1, index=i, column=-1, constraint=text)
        _connect(graph, instance, name, constraint.literals, constraint.coefficients)
        graph.add_edge(name, "property", sign=1, coefficient=1)
    if instance.region:
        text = "; ".join(instance.text(constraint) for constraint in instance.region)
        graph.add_node("region", kind="region", block=-1, index=0, column=-1, constraint=text)
    for constraint in instance.region:
        _connect(graph, instance, "region", constraint.literals, constraint.coefficients)
    for layer, names in enumerate(nx.topological_generations(graph)):
        for name in names:
            graph.nodes[name]["layer"] = layer
    return graph


def _connect(
    graph: nx.DiGraph[str], instance: Instance, name: str, literals: tuple[int, ...], coefficients: tuple[int, ...]
) -> None:
    for literal, coefficient in zip(literals, coefficients, strict=True):
        source = instance.variables[abs(literal) - 1].name
        graph.add_edge(source, name, sign=1 if literal > 0 else -1, coefficient=coefficient)


def cone_of_influence(graph: nx.DiGraph[str], node: str = "property") -> nx.DiGraph[str]:
    """The part of the graph that `node` depends on, itself included.

    Args:
        graph: As `to_graph` gives it.
        node: Name of a neuron, a comparison, or the property.

    Raises:
        QueryError: There is no such node.
    """
    import networkx as nx

    if node not in graph:
        raise QueryError(f"the graph has no node {node!r}, expected a name such as 'h0.3' or 'property'.")
    cone: nx.DiGraph[str] = graph.subgraph(nx.ancestors(graph, node) | {node}).copy()
    return cone


def export_text(graph: nx.DiGraph[str], kind: str) -> str:
    """The graph as text, the same for equal graphs.

    Args:
        graph: As `to_graph` or `cone_of_influence` gives it.
        kind: `dot` (Graphviz), `graphml`, or `json` (networkx node-link).

    Raises:
        QueryError: The kind is not one of these.
    """
    import networkx as nx

    if kind == "dot":
        return _dot(graph)
    if kind == "graphml":
        return "\n".join(nx.generate_graphml(graph)) + "\n"
    if kind == "json":
        import json

        return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1) + "\n"
    raise QueryError(f"graph format is {kind!r}, expected 'dot', 'graphml' or 'json'.")


_SHAPES = {
    "input": "circle",
    "pixel": "circle",
    "cell": "circle",
    "neuron": "box",
    "position": "box",
    "product": "diamond",
}


def _dot(graph: nx.DiGraph[str]) -> str:
    lines = ["digraph instance {", "  rankdir=LR;"]
    for name, data in graph.nodes(data=True):
        shape = _SHAPES.get(data["kind"], "hexagon")
        tooltip = data["constraint"].replace('"', "'")
        lines.append(f'  "{name}" [shape={shape}, tooltip="{tooltip}"];')
    for source, target, data in graph.edges(data=True):
        style = "solid" if data["sign"] > 0 else "dashed"
        label = f', label="{data["coefficient"]}"' if data["coefficient"] != 1 else ""
        lines.append(f'  "{source}" -> "{target}" [style={style}{label}];')
    return "\n".join([*lines, "}"]) + "\n"


def draw(graph: nx.DiGraph[str], axes: Any = None) -> Any:
    """Draw the graph in layers, inputs on the left; negated literals as dashed edges.

    Args:
        graph: As `to_graph` or `cone_of_influence` gives it.
        axes: Where to draw. Default: the axes of a new figure, not shown.

    Returns:
        The matplotlib axes.
    """
    import networkx as nx

    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(8, 5), layout="constrained").add_subplot()
    positions = nx.multipartite_layout(graph, subset_key="layer")
    inputs, neurons = dict.fromkeys(("input", "pixel", "cell"), "#9ecae1"), ("neuron", "position")
    colors = inputs | dict.fromkeys(neurons, "#a1d99b") | {"comparison": "#fdae6b"}
    fill = [colors.get(kind, "#d9d9d9") for _, kind in graph.nodes(data="kind")]
    nx.draw_networkx_nodes(graph, positions, ax=axes, node_color=fill, node_size=260)
    nx.draw_networkx_labels(graph, positions, ax=axes, font_size=6)
    for sign, style in ((1, "solid"), (-1, "dashed")):
        edges = [(a, b) for a, b, s in graph.edges(data="sign") if s == sign]
        nx.draw_networkx_edges(graph, positions, edgelist=edges, ax=axes, style=style, arrowsize=6, width=0.5)
    axes.set_axis_off()
    return axes
