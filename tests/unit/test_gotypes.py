"""Types: what is inferred, what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Optional

import pytest

from machinery_compat import wire
from machinery_compat.errors import ArgumentError, DecodeError, EncodeError
from machinery_compat.wire import GoNumber, GoType, decode_value, encode_value, infer_type, type_of_hint

INT_RANGES = [
    ("int8", -128, 127),
    ("int16", -32768, 32767),
    ("int32", -(2**31), 2**31 - 1),
    ("int64", -(2**63), 2**63 - 1),
    ("int", -(2**63), 2**63 - 1),
    ("uint8", 0, 255),
    ("uint16", 0, 65535),
    ("uint32", 0, 2**32 - 1),
    ("uint64", 0, 2**64 - 1),
    ("uint", 0, 2**64 - 1),
]


def test_the_types_are_those_of_machinery() -> None:
    scalars = {"bool", "string", "float32", "float64", *(name for name, _, _ in INT_RANGES)}
    assert scalars | {"[]" + name for name in scalars} | {"[]byte"} == wire.TYPES


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "bool"),
        (0, "int64"),
        (2**63 - 1, "int64"),
        (-(2**63), "int64"),
        (2**63, "uint64"),
        (2**64 - 1, "uint64"),
        (1.0, "float64"),
        ("", "string"),
        (b"", "[]byte"),
        (bytearray(b"x"), "[]byte"),
        ([1, 2], "[]int64"),
        ((1, 2), "[]int64"),
        ([1, 2**63], "[]uint64"),
        ([1, 2.5], "[]float64"),
        ([1.5], "[]float64"),
        (["a"], "[]string"),
        ([True], "[]bool"),
        ([], "[]string"),
    ],
)
def test_a_type_is_inferred(value: Any, expected: str) -> None:
    assert infer_type(value) == expected


@pytest.mark.parametrize(
    "value",
    [None, {}, {"a": 1}, [1, "a"], [True, 1], [[1]], [None], [b"x"], object(), 2**64, -(2**63) - 1, [-1, 2**63]],
)
def test_what_has_no_type_is_refused(value: Any) -> None:
    with pytest.raises(EncodeError):
        infer_type(value)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (5, wire.Int32, "int32"),
        (5, "uint8", "uint8"),
        (5, float, "float64"),
        (5, int, "int64"),
        (2**63, int, "uint64"),  # the annotation says no more than that it is an integer
        ("x", int, "string"),
        ([], list[int], "[]int64"),
        ([], list[wire.Int32], "[]int32"),
        ([], None, "[]string"),
        ([1], list[float], "[]float64"),
        (300, wire.Uint8, "uint8"),  # decides in any case; the encoder then refuses
    ],
)
def test_a_hint_decides_where_it_fits(value: Any, hint: Any, expected: str) -> None:
    assert infer_type(value, hint) == expected


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, "int64"),
        (bool, "bool"),
        (str, "string"),
        (bytes, "[]byte"),
        (bytearray, "[]byte"),
        (float, "float64"),
        (wire.Int, "int"),
        (wire.Uint64, "uint64"),
        (wire.Float32, "float32"),
        (GoType("int16"), "int16"),
        (Annotated[int, "a note"], "int64"),
        (Annotated[Any, GoType("[]int8")], "[]int8"),
        (list[str], "[]string"),
        (list[wire.Int8], "[]int8"),
        (tuple[int, ...], "[]int64"),
        (Sequence[bool], "[]bool"),
        (Optional[int], "int64"),  # noqa: UP045
        (int | None, "int64"),
        ("uint16", "uint16"),
        ("SomeClass", None),
        (list, None),
        (list[list[int]], None),
        (tuple[int, str], None),
        (dict[str, int], None),
        (int | str, None),
        (None, None),
        (Any, None),
        (object, None),
    ],
)
def test_a_hint_names_a_type(hint: Any, expected: str | None) -> None:
    assert type_of_hint(hint) == expected


def test_a_marker_names_only_what_exists() -> None:
    with pytest.raises(ValueError, match="rune is not one of supported types"):
        GoType("rune")


@pytest.mark.parametrize(("type", "low", "high"), INT_RANGES)
def test_an_integer_must_lie_in_its_range(type: str, low: int, high: int) -> None:
    for value in (low, high):
        assert encode_value(type, value) == str(value).encode()
        assert decode_value(type, str(value).encode()) == value
    for value in (low - 1, high + 1):
        with pytest.raises(EncodeError, match=f"between {low} and {high}"):
            encode_value(type, value)
        with pytest.raises(EncodeError):
            encode_value("[]" + type, [value])


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("int64", True),
        ("int64", 5.0),
        ("int64", "5"),
        ("bool", 1),
        ("string", b"x"),
        ("string", 1),
        ("string", None),
        ("int64", None),
        ("float64", "1"),
        ("float64", True),
        ("float64", 2**53 + 1),
        ("float64", 10**400),
        ("float32", 1e39),
        ("[]int64", 5),
        ("[]int64", "12"),
        ("[]int64", {}),
        ("[]int64", [1.0]),
        ("[]int64", [None]),
        ("[]string", "abc"),
        ("[]byte", "abc"),
        ("[]byte", [256]),
        ("[]uint8", [1.0]),
        ("byte", 1),
        ("[][]int64", []),
        ("", 1),
    ],
)
def test_what_does_not_fit_is_refused(type: str, value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_value(type, value)
    assert type in str(caught.value)


@pytest.mark.parametrize(("number", "name"), [("nan", "NaN"), ("inf", "+Inf"), ("-inf", "-Inf")])
@pytest.mark.parametrize("type", ["float32", "float64", "[]float64"])
def test_a_float_must_be_finite(type: str, number: str, name: str) -> None:
    value: Any = float(number)
    with pytest.raises(EncodeError) as caught:
        encode_value(type, [value] if type.startswith("[]") else value)
    assert str(caught.value) == f"json: unsupported value: {name}"


def test_an_int_is_a_float_where_a_float_is_due() -> None:
    assert encode_value("float64", 5) == b"5"
    assert encode_value("float32", 2**24 + 1) == b"16777216"
    assert encode_value("[]float64", [1, 2.5]) == b"[1,2.5]"


def test_bytes_come_in_many_forms() -> None:
    for value in (b"hi", bytearray(b"hi"), memoryview(b"hi"), [104, 105], (104, 105)):
        assert encode_value("[]byte", value) == b'"aGk="'
    assert encode_value("[]uint16", [104, 105]) == b"[104,105]"


def test_none_is_a_nil_slice() -> None:
    for type in ("[]int64", "[]byte", "[]string"):
        assert encode_value(type, None) == b"null"
    assert decode_value("[]int64", b"null") == []
    assert decode_value("[]byte", b"null") == b""


def test_a_go_number_keeps_its_spelling_if_it_fits() -> None:
    assert encode_value("float64", GoNumber("1.50E+2")) == b"1.50E+2"
    assert encode_value("int8", GoNumber("-128")) == b"-128"
    for type, number in (("int8", "300"), ("int64", "1.0"), ("uint8", "-1"), ("float64", "1e400"), ("float64", "x")):
        with pytest.raises(EncodeError):
            encode_value(type, GoNumber(number))
    with pytest.raises(EncodeError):
        encode_value("string", GoNumber("1"))


def test_very_long_integers_are_out_of_range_and_no_burden() -> None:
    digits = b"1" * 100_000
    with pytest.raises(ArgumentError, match="value out of range"):
        decode_value("int64", digits)
    with pytest.raises(ArgumentError, match="value out of range"):
        decode_value("uint64", digits)


def test_a_conversion_error_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="5 is not int64"):
        decode_value("int64", b'"5"')


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ArgumentError, match="looking for beginning of value"):
        decode_value("int64", b"x")


def test_deep_nesting_is_shown_without_recursion() -> None:
    depth = 5_000
    with pytest.raises(ArgumentError) as caught:
        decode_value("int64", b"[" * depth + b"]" * depth)
    assert str(caught.value) == "[" * depth + "]" * depth + " is not int64"
