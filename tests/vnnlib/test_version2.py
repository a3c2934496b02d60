"""VNN-LIB 2.0: declared networks, tensors, versions, and what is refused."""

import re

import pytest
import torch
from tests.vnnlib.texts import vector

from ctbench.vnnlib import VnnlibError, parse_vnnlib

HEAD = "(vnnlib-version <2.0>)\n"
NETWORK = "(declare-network f\n  (declare-input X Real [1,2])\n  (declare-output Y float32 [3])\n)\n"
BOX = "(assert (<= X[0,0] 1))(assert (>= X[0, 0] -1))(assert (<= X [0,1] 0.5))(assert (>= X[0,1] 0.25))\n"


def test_a_query_is_the_property_of_version_1():
    asserts = BOX + "(assert (or (and (<= Y[0] Y[1]) (<= Y[0] Y[2])) (>= (* 2.0 Y[2]) 1.0)))"
    renamed = re.sub(r"X ?\[0, ?(\d)\]", r"X_\1", re.sub(r"Y\[(\d)\]", r"Y_\1", asserts))
    declared = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))
    expected, prop = parse_vnnlib(declared + renamed), parse_vnnlib(HEAD + NETWORK + asserts)
    assert prop.cases == expected.cases
    (network,) = prop.networks
    assert (network.name, network.inputs[0].shape, network.outputs[0].name) == ("f", (1, 2), "Y")


def test_several_tensors_follow_one_another_in_c_order():
    text = """(vnnlib-version <2.0>)
    (declare-network f
      (declare-input A Real [2,2] "left") (declare-input B Real [] "right")
      (declare-output Y Real [1] "value") (declare-output Z Real [2] "others"))
    (assert (and (>= A[0,0] 0) (<= A[0,0] 1) (>= A[0,1] 0) (<= A[0,1] 2) (>= A[1,0] 0) (<= A[1,0] 3)))
    (assert (and (>= A[1,1] 0) (<= A[1,1] 4) (>= B 0) (<= B 5)))
    (assert (<= (+ Z[1] (* 2 Y[0])) 3))"""
    prop = parse_vnnlib(text)
    (case,) = prop.cases
    assert case.upper.tolist() == [1, 2, 3, 4, 5]
    assert case.unsafe[0].rows.tolist() == [[2, 0, 1]]
    assert [tensor.onnx_name for tensor in prop.networks[0].inputs] == ["left", "right"]


def test_several_networks_have_their_inputs_and_outputs_one_after_the_other():
    text = HEAD + NETWORK + "(declare-network g (equal-to f) (declare-input U Real [2]) (declare-output V Real [3]))"
    text += BOX + "(assert (and (= U[0] X[0,0]) (>= U[1] 0) (<= U[1] 1) (>= U[0] -1) (<= U[0] 1)))"
    prop = parse_vnnlib(text + "(assert (>= V[0] (+ Y[0] 0.5)))")
    (case,) = prop.cases
    assert (prop.inputs, prop.outputs) == (4, 6)
    assert [network.equal_to for network in prop.networks] == [None, "f"]
    assert case.unsafe[0].rows.tolist() == [[1, 0, 0, -1, 0, 0]]
    assert case.constraints.rows.tolist() == [[-1, 0, 1, 0], [1, 0, -1, 0]]
    assert case.includes(vector(0.3, 0.25, 0.3, 1.0))
    assert not case.includes(vector(0.3, 0.25, 0.4, 1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(vnnlib-version <3.0>)" + NETWORK + BOX, "line 1: the version of VNN-LIB is not known: expected <1.0> or"),
        ("(vnnlib-version 2)" + NETWORK + BOX, "the version of VNN-LIB is not known"),
        (HEAD + "(declare-const X_0 Real)", "line 1: a query of VNN-LIB 2.0 must declare a network"),
        (
            HEAD + NETWORK + "(declare-const X_0 Real)" + BOX,
            "line 6: a query that declares networks has no other",
        ),
        (HEAD + NETWORK.replace("float32", "int8"), "line 4: Y is declared as 'int8': expected Real, real, float32"),
        (HEAD + NETWORK.replace("[3]", "[0]"), r"line 4: the shape of Y is '\[0\]': expected sizes"),
        (HEAD + NETWORK.replace("[3]", "3"), "line 4: the shape of Y is '3'"),
        (HEAD + NETWORK.replace(" Y ", " X "), "line 2: X is declared twice"),
        (HEAD + NETWORK + NETWORK.replace("X", "U").replace("Y", "V"), "line 6: the network f is declared twice"),
        (HEAD + NETWORK.replace("declare-output", "declare-hidden"), "line 4: properties of hidden values are not"),
        (HEAD + NETWORK.replace("declare-output", "declare"), "line 4: 'declare' is not supported in a network"),
        (HEAD + "(declare-network f (declare-input X Real [1]))", "line 2: the network f has no declare-output"),
        (HEAD + "(declare-network (f))", "line 2: declare-network must be followed by a name"),
        (HEAD + NETWORK.replace("f\n", "f (equal-to g)\n"), "line 2: f is equal to g, which is not declared before"),
        (HEAD + NETWORK + "(assert (<= X[0,2] 1))", r"line 6: 'X\[0,2\]' is not an entry of X, .* shape \[1, 2\]"),
        (HEAD + NETWORK + "(assert (<= X[0] 1))", r"line 6: 'X\[0\]' is not an entry of X"),
        (HEAD + NETWORK + "(assert (<= X 1))", "line 6: 'X' is not an entry of X"),
        (HEAD + NETWORK + "(assert (<= Z[0] 1))", r"line 6: 'Z\[0\]' is neither a declared variable nor a number"),
        (HEAD + NETWORK + "(assert (<= Y[0] 1))", r"X\[0,0\] has no lower bound"),
    ],
)
def test_other_queries_are_refused(text: str, message: str):
    with pytest.raises(VnnlibError, match=message):
        parse_vnnlib(text)


def test_a_network_of_many_tensors_is_found_by_its_indices():
    text = "(declare-network f (declare-input X Real [3,4,5]) (declare-output Y Real [2,2]))"
    for place in range(60):
        i, rest = divmod(place, 20)
        j, k = divmod(rest, 5)
        text += f"(assert (>= X[{i},{j},{k}] {place}))(assert (<= X[{i},{j},{k}] 99))"
    (case,) = parse_vnnlib(text + "(assert (<= Y[1,0] 0))").cases
    assert torch.equal(case.lower, torch.arange(60, dtype=torch.float64))
    assert case.unsafe[0].rows.tolist() == [[0, 0, 1, 0]]
