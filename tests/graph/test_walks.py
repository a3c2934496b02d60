"""The two walks, without any mathematics in them."""

from collections import Counter

from ctbench.graph import Graph, Node, walk_backward, walk_forward
from ctbench.graph.ops import Add, Input, ReLU

# input - a - b -- sum - last
#          \______/
GRAPH = Graph(
    (
        Node("input", Input(), (), (3,)),
        Node("a", ReLU(), (0,), (3,)),
        Node("b", ReLU(), (1,), (3,)),
        Node("sum", Add(), (1, 2), (3,)),
        Node("last", ReLU(), (3,), (3,)),
    )
)


def test_a_forward_walk_gives_every_node_the_states_of_its_inputs():
    states = walk_forward(GRAPH, lambda node, *inputs: f"{node.name}({','.join(inputs)})", "x")
    assert states == ["x", "a(x)", "b(a(x))", "sum(a(x),b(a(x)))", "last(sum(a(x),b(a(x))))"]


def test_a_backward_walk_adds_the_shares_of_a_node():
    visited = []

    def rule(at: int, node: Node, form: int) -> tuple[int, ...]:
        assert GRAPH.nodes[at] is node
        visited.append((node.name, form))
        return tuple(form * 10 + number for number in range(1, len(node.inputs) + 1))

    assert walk_backward(GRAPH, rule, 1) == ((111 + 1121) * 10) + 1
    assert visited == [("last", 1), ("sum", 11), ("b", 112), ("a", 111 + 1121)]
    assert len(Counter(name for name, _ in visited)) == len(visited)


def test_a_backward_walk_starts_at_a_given_node():
    visited = []

    def rule(at: int, node: Node, form: int) -> tuple[int, ...]:
        visited.append(node.name)
        return (form,) * len(node.inputs)

    assert walk_backward(GRAPH, rule, 1, at=2) == 1
    assert visited == ["b", "a"]
    assert walk_backward(GRAPH, rule, 5, at=0) == 5
