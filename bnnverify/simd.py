"""Vectors as values inside numba loops: 512 bits as eight words or 64 small integers, and 16 small integers.

numba compiles for the machine it runs on: one vector is one register with AVX-512, two with AVX2, four with SSE or
NEON, so the loops are written once. Loads and stores are by address and index (in words, or in bytes) and are not
checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_I32, _I64, _I8 = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_WORDS, _BYTES, _SHORT = ir.VectorType(_I64, 8), ir.VectorType(_I8, 64), ir.VectorType(_I8, 16)


class WordsType(types.Type):  # type: ignore[misc]
    """Eight uint64: 512 bits."""

    def __init__(self) -> None:
        super().__init__(name="Words512")


class BytesType(types.Type):  # type: ignore[misc]
    """64 int8."""

    def __init__(self) -> None:
        super().__init__(name="Bytes512")


class ShortType(types.Type):  # type: ignore[misc]
    """16 int8."""

    def __init__(self) -> None:
        super().__init__(name="Bytes128")


words512, bytes512, bytes128 = WordsType(), BytesType(), ShortType()


@register_model(WordsType)
class _WordsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


@register_model(BytesType)
class _BytesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _BYTES)


@register_model(ShortType)
class _ShortModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _SHORT)


def _operation(name: str, kind: Any) -> Any:
    """An intrinsic of two vectors of one kind, by the name of its LLVM instruction."""

    def typed(_context: Any, _a: Any, _b: Any) -> Any:
        def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return kind(kind, kind), generate

    return intrinsic(typed)


vand, vor, vxor = (_operation(name, words512) for name in ("and_", "or_", "xor"))
vadd = _operation("add", words512)
badd = _operation("add", bytes512)
hadd = _operation("add", bytes128)


def _pointer(builder: Any, arguments: Any, vector: Any, unit: Any) -> Any:
    first = builder.inttoptr(arguments[0], unit.as_pointer())
    return builder.bitcast(builder.gep(first, [arguments[1]]), vector.as_pointer())


def _loader(kind: Any, vector: Any, unit: Any) -> Any:
    def typed(_context: Any, _address: Any, _index: Any) -> Any:
        def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = builder.load(_pointer(builder, arguments, vector, unit))
            value.align = unit.width // 8
            return value

        return kind(types.int64, types.int64), generate

    return intrinsic(typed)


def _storer(kind: Any, vector: Any, unit: Any) -> Any:
    def typed(_context: Any, _address: Any, _index: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            builder.store(arguments[2], _pointer(builder, arguments, vector, unit)).align = unit.width // 8
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), generate

    return intrinsic(typed)


def _address(_context: Any, array: Any) -> Any:
    """Where the elements of a contiguous array begin.

    The loops work on addresses because numba counts references to arrays wherever one is handed on, in atomic
    instructions that cost more than the work between them. Whoever takes an address keeps the array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(context.make_array(signature.args[0])(context, builder, arguments[0]).data, _I64)

    return types.int64(array), generate


address: Any = intrinsic(_address)
load, store = _loader(types.int64, _I64, _I64), _storer(types.int64, _I64, _I64)
vload, vstore = _loader(words512, _WORDS, _I64), _storer(words512, _WORDS, _I64)
bload, bstore = _loader(bytes512, _BYTES, _I8), _storer(bytes512, _BYTES, _I8)
hload, hstore = _loader(bytes128, _SHORT, _I8), _storer(bytes128, _SHORT, _I8)


def _choice(name: str) -> Any:
    def typed(_context: Any, _a: Any, _b: Any) -> Any:
        def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return _call(builder, f"llvm.{name}.v16i8", _SHORT, *arguments)

        return bytes128(bytes128, bytes128), generate

    return intrinsic(typed)


hmin, hmax = _choice("smin"), _choice("smax")


def _prefetch(_context: Any, _address: Any, _index: Any) -> Any:
    """Ask for the cache line of one word; nothing happens where there is none."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = _pointer(builder, arguments, _I64, _I64)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, ir.Constant(_I32, 0), ir.Constant(_I32, 3), ir.Constant(_I32, 1)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _vsplat(_context: Any, _word: Any) -> Any:
    """Eight times the same word."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(_WORDS, ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(_I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, 8), [0] * 8))

    return words512(types.uint64), generate


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), list(arguments))


def _vpopcount(_context: Any, _vector: Any) -> Any:
    """Number of set bits of each of the eight words."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.ctpop.v8i64", _WORDS, arguments[0])

    return words512(words512), generate


def _vany(_context: Any, _vector: Any) -> Any:
    """True iff any bit is set."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = _call(builder, "llvm.vector.reduce.or.v8i64", _I64, arguments[0])
        return builder.icmp_unsigned("!=", word, ir.Constant(_I64, 0))

    return types.boolean(words512), generate


def _comparison(operator: str) -> Any:
    def typed(_context: Any, _a: Any, _b: Any) -> Any:
        def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(builder.icmp_signed(operator, *arguments), _I64)

        return types.uint64(bytes512, bytes512), generate

    return intrinsic(typed)


bgreater_equal: Callable[..., Any] = _comparison(">=")
bless: Callable[..., Any] = _comparison("<")


def _trailing_zeros(_context: Any, _word: Any) -> Any:
    """Index of the lowest set bit of a word that is not zero."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _popcount(_context: Any, _word: Any) -> Any:
    """Number of set bits of a uint64, as one machine instruction."""

    def generate(_ctx: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


prefetch: Any = intrinsic(_prefetch)
vsplat: Any = intrinsic(_vsplat)
vpopcount: Any = intrinsic(_vpopcount)
vany: Any = intrinsic(_vany)
trailing_zeros: Any = intrinsic(_trailing_zeros)
popcount: Any = intrinsic(_popcount)
