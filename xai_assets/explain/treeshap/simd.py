"""Sixteen rows at a time: vector types and operations for numba.

Belongs here: the two types and one instruction each. Does not belong here: any loop.

The compiler's own vectoriser gives up on loops over many arrays, because it cannot know that they do not overlap.
These operations say outright what is meant; LLVM turns sixteen lanes into one AVX-512, two AVX or four NEON/SSE
registers, whatever the machine has.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_CONTRACT = ("contract", "nsz")
"""A product may be fused with the sum that takes it (one rounding less); nothing else may be reordered."""


class Lanes(types.Type):
    """Sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="xai_assets.Lanes")


class Mask(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name="xai_assets.Mask")


lanes, mask = Lanes(), Mask()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front: Any) -> None:
        super().__init__(manager, front, _FLOATS)  # type: ignore[no-untyped-call]


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, front: Any) -> None:
        super().__init__(manager, front, _BITS)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, array_type: Any, array: Any, index_type: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    position = context.cast(builder, index, index_type, types.intp)
    return builder.bitcast(builder.gep(data, [position]), _FLOATS.as_pointer())


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_address(context, builder, signature.args[0], args[0], signature.args[1], args[1]))
        value.align = 4
        return value

    return lanes(array, index), generate


@intrinsic
def store(_: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + 16] = value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = _address(context, builder, signature.args[0], args[0], signature.args[1], args[1])
        builder.store(args[2], where).align = 4
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic
def splat(_: Any, scalar: Any) -> Any:
    """The same float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        one = builder.insert_element(undefined, args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

    return lanes(types.float32), generate


@intrinsic
def spread(_: Any, array: Any, index: Any) -> Any:
    """array[index] in every lane. The array must not be written by the function that reads it so."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        scalar = builder.load(builder.gep(data, [context.cast(builder, args[1], signature.args[1], types.intp)]))
        scalar.set_metadata("invariant.load", builder.module.add_metadata([]))  # may move out of loops with stores
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

    return lanes(array, index), generate


def _arithmetic(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def operation(_: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0], args[1])

        return lanes(lanes, lanes), generate

    return operation


add = _arithmetic(lambda builder, a, b: builder.fadd(a, b, flags=_CONTRACT))
sub = _arithmetic(lambda builder, a, b: builder.fsub(a, b, flags=_CONTRACT))
mul = _arithmetic(lambda builder, a, b: builder.fmul(a, b, flags=_CONTRACT))


@intrinsic
def fma(_: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, fused where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(builder.fmul(args[0], args[1], flags=_CONTRACT), args[2], flags=_CONTRACT)

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def at_least(_: Any, a: Any, b: Any) -> Any:
    """a ≥ b per lane; false where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fcmp_ordered(">=", args[0], args[1])

    return mask(lanes, lanes), generate


@intrinsic
def select(_: Any, m: Any, a: Any, b: Any) -> Any:
    """a where m, else b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], args[2])

    return lanes(mask, lanes, lanes), generate


def _logic(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def operation(_: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0], args[1])

        return mask(mask, mask), generate

    return operation


both = _logic(lambda builder, a, b: builder.and_(a, b))
either = _logic(lambda builder, a, b: builder.or_(a, b))
only_first = _logic(lambda builder, a, b: builder.and_(a, builder.not_(b)))
