"""The 3×3 convolution compiled for the CPU, by Winograd's minimal filtering F(4×4, 3×3).

A tile of 4×4 outputs of a 3×3 convolution has 16·9 products for every pair of channels; computed through six values a side it
has 36 (Lavin & Gray 2016, section 4), which lets a training step on a CPU cost less than its direct convolutions alone. With
d a 6×6 tile of the input and w the 3×3 weights,

    y = Aᵀ [(G w Gᵀ) ∘ (Bᵀ d B)] A

where ∘ is, at each of the 36 points, a matrix product over channels. The gradients are the adjoint of the same formula. All
sums are float32; the result differs from that of a direct convolution by float32's rounding (some 1e-6 of the largest value,
and 1e-5 in the weights' gradient, a sum over all images).

Maps come as lib.kernels has them: (N, H, W, C), bfloat16 as uint16. In the transformed space the channels lie in blocks of 16,
the width of a `vector`: values (36, C/16, tiles, 16), weights (36, to/16, from, 16). A gap of 16 values follows each block of
values and each point's weights: at steps of a power of two, a cache would have room for only some of the 36 points at a time.
"""

import operator

import numba
import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic, models, overload, register_model
from torch import Tensor

from lib.kernels import as_many_threads, new_map, pixels

parallel = numba.njit(parallel=True, cache=True, error_model="numpy")
serial = numba.njit(cache=True, error_model="numpy")

LANES = 16  # values of a vector: a register of AVX-512, two of AVX2
POINTS = 36
FLOATS, BITS, HALVES = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16)))
FUSE = ("contract",)  # a product and a sum may be one instruction


# ------------------------------------------------------------------------------------------------ vectors of 16 float32


class Vector(types.Type):
    def __init__(self):
        super().__init__(name="vector")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOATS)


def filled(kind: ir.VectorType, value) -> ir.Constant:
    return ir.Constant(kind, [value] * LANES)


def splat(builder, value):
    """A vector of equal values."""
    nothing = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, filled(BITS, 0))


def address(context, builder, kind, array, index):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def read(builder, where, kind=FLOATS):
    value = builder.load(builder.bitcast(where, kind.as_pointer()))
    value.align = kind.element.width // 8 if isinstance(kind.element, ir.IntType) else 4
    return value


def write(builder, value, where):
    stored = builder.store(value, builder.bitcast(where, value.type.as_pointer()))
    stored.align = value.type.element.width // 8 if isinstance(value.type.element, ir.IntType) else 4


@intrinsic
def load(typing, array, index):
    """The 16 values from a flat array's index on, as float32."""

    def code(context, builder, signature, args):
        where = address(context, builder, array, *args)
        if array.dtype == types.float32:
            return read(builder, where)
        bits = builder.zext(read(builder, where, HALVES), BITS)
        return builder.bitcast(builder.shl(bits, filled(BITS, 16)), FLOATS)

    return vector(array, types.intp), code


@intrinsic
def store(typing, array, index, value):
    """Its inverse: bfloat16 is rounded to nearest even, as in lib.kernels."""

    def code(context, builder, signature, args):
        where, value = address(context, builder, array, *args[:2]), args[2]
        if array.dtype != types.float32:
            bits = builder.bitcast(value, BITS)
            odd = builder.and_(builder.lshr(bits, filled(BITS, 16)), filled(BITS, 1))
            rounded = builder.lshr(builder.add(builder.add(bits, filled(BITS, 0x7FFF)), odd), filled(BITS, 16))
            nan = builder.fcmp_unordered("uno", value, value)
            value = builder.select(nan, filled(HALVES, 0x7FC0), builder.trunc(rounded, HALVES))
        write(builder, value, where)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


def arithmetic(instruction: str):
    @intrinsic
    def function(typing, a, b):
        return vector(vector, vector), lambda context, builder, _, args: getattr(builder, instruction)(*args, flags=FUSE)

    return function


added, subtracted = arithmetic("fadd"), arithmetic("fsub")


@intrinsic
def scaled(typing, number, v):
    return vector(types.float32, vector), lambda context, builder, _, args: builder.fmul(
        splat(builder, args[0]), args[1], flags=FUSE
    )


@overload(operator.add)
def _(a, b):
    if a is vector and b is vector:
        return lambda a, b: added(a, b)


@overload(operator.sub)
def _(a, b):
    if a is vector and b is vector:
        return lambda a, b: subtracted(a, b)


@overload(operator.mul)
def _(a, b):
    if isinstance(a, types.Number) and b is vector:
        return lambda a, b: scaled(np.float32(a), b)


@intrinsic
def zeros(typing):
    return vector(), lambda context, builder, _, args: filled(FLOATS, 0.0)


def product(rows: int, columns: int, along: int):
    """What multiplies matrices: c[r][v] = sum over k of a[r, k] * b[k][v], for `rows` r and `columns` v, which are vectors, in
    registers throughout; k runs over `blocks` times 16. `along` is the step in a from k to k + 1, the other of 1 and 16 that
    from r to r + 1; a_jump and b_jump lead from block to block, b_step and c_step from v to v + 1. `more`: c is added to."""
    across = 17 - along

    @intrinsic
    def multiply(typing, a, a_at, a_jump, b, b_at, b_jump, b_step, blocks, c, c_at, c_step, more):
        def code(context, builder, signature, args):
            a_, a_at, a_jump, b_, b_at, b_jump, b_step, blocks, c_, c_at, c_step, more = args
            number = ir.IntType(64)
            starts = [address(context, builder, *x) for x in ((a, a_, a_at), (b, b_, b_at), (c, c_, c_at))]

            def step(pointer, *offsets):
                for offset in offsets:
                    pointer = builder.gep(pointer, [ir.Constant(number, offset) if isinstance(offset, int) else offset])
                return pointer

            def times(value, count: int):
                return builder.mul(value, ir.Constant(number, count))

            cells = [step(starts[2], r * LANES, times(c_step, v)) for r in range(rows) for v in range(columns)]
            with builder.if_else(more) as (then, otherwise):
                with then:
                    before, loaded = [read(builder, cell) for cell in cells], builder.block
                with otherwise:
                    empty = builder.block
            sums = []
            for value in before:
                sums.append(builder.phi(FLOATS))
                sums[-1].add_incoming(value, loaded)
                sums[-1].add_incoming(filled(FLOATS, 0.0), empty)

            entry, loop, end = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            at, totals = builder.phi(number), [builder.phi(FLOATS) for _ in sums]
            a_here, b_here = step(starts[0], builder.mul(at, a_jump)), step(starts[1], builder.mul(at, b_jump))
            found = list(totals)
            for k in range(LANES):
                right = [read(builder, step(b_here, k * LANES, times(b_step, v))) for v in range(columns)]
                for r in range(rows):
                    left = splat(builder, builder.load(step(a_here, k * along + r * across)))
                    for v in range(columns):
                        term = builder.fmul(left, right[v], flags=FUSE)
                        found[r * columns + v] = builder.fadd(found[r * columns + v], term, flags=FUSE)
            following = builder.add(at, ir.Constant(number, 1))
            for phi, first, later in zip([at, *totals], [ir.Constant(number, 0), *sums], [following, *found], strict=True):
                phi.add_incoming(first, entry)
                phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", following, blocks), loop, end)
            builder.position_at_end(end)
            for value, cell in zip(found, cells, strict=True):
                write(builder, value, cell)
            return context.get_dummy_value()

        i = types.intp
        return types.void(a, i, i, b, i, i, i, i, c, i, i, types.boolean), code

    return multiply


# How many vectors of sums fit into the registers: rows for one column of blocks, and for two at once.
ROWS, PAIR_ROWS = (16, 8) if "AVX512" in torch.backends.cpu.get_cpu_capability() else (4, 2)
across_one, across_two = product(ROWS, 1, along=1), product(PAIR_ROWS, 2, along=1)
down_one, down_two = product(ROWS, 1, along=16), product(PAIR_ROWS, 2, along=16)


# ------------------------------------------------------------------------------------------- the transforms of one side


@serial
def forward_b(d0, d1, d2, d3, d4, d5):
    """Bᵀ d"""
    even, odd, e, o = d4 - 4.0 * d2, d3 - 4.0 * d1, d4 - d2, 2.0 * (d3 - d1)
    return 4.0 * d0 - 5.0 * d2 + d4, even + odd, even - odd, e + o, e - o, 4.0 * d1 - 5.0 * d3 + d5


@serial
def backward_b(v0, v1, v2, v3, v4, v5):
    """B v"""
    s, d, p, q = v1 + v2, v1 - v2, v3 + v4, 2.0 * (v3 - v4)
    return 4.0 * v0, 4.0 * (v5 - d) - q, -1.0 * p - 4.0 * s - 5.0 * v0, d + q - 5.0 * v5, v0 + s + p, v5


@serial
def forward_a(m0, m1, m2, m3, m4, m5):
    """Aᵀ m"""
    s, d, p, q = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + s + p, d + 2.0 * q, s + 4.0 * p, d + 8.0 * q + m5


@serial
def backward_a(y0, y1, y2, y3):
    """A y"""
    even, odd, e, o = y0 + y2, y1 + y3, y0 + 4.0 * y2, 2.0 * y1 + 8.0 * y3
    return y0, even + odd, even - odd, e + o, e - o, y3


@serial
def forward_g(w0, w1, w2):
    """G w"""
    s, p = (-1 / 6) * (w0 + w2), (1 / 24) * w0 + (1 / 6) * w2
    return 0.25 * w0, s - (1 / 6) * w1, s + (1 / 6) * w1, p + (1 / 12) * w1, p - (1 / 12) * w1, w2


@serial
def backward_g(u0, u1, u2, u3, u4, u5):
    """Gᵀ u"""
    s, p = (-1 / 6) * (u1 + u2), u3 + u4
    return 0.25 * u0 + s + (1 / 24) * p, (1 / 6) * (u2 - u1) + (1 / 12) * (u3 - u4), s + (1 / 6) * p + u5


# ------------------------------------------------------------------------------------------- between maps and tiles


@serial
def six(a, at, step):
    return (
        load(a, at), load(a, at + step), load(a, at + 2 * step), load(a, at + 3 * step), load(a, at + 4 * step),
        load(a, at + 5 * step),
    )  # fmt: skip


@serial
def four(a, at, step):
    return load(a, at), load(a, at + step), load(a, at + 2 * step), load(a, at + 3 * step)


@serial
def store_six(a, at, step, values):
    store(a, at, values[0])
    store(a, at + step, values[1])
    store(a, at + 2 * step, values[2])
    store(a, at + 3 * step, values[3])
    store(a, at + 4 * step, values[4])
    store(a, at + 5 * step, values[5])


@serial
def copy_in(x, at, height, width, channels, padded, to):
    """An image, from x's index `at` on, into a frame of zeros that is one pixel wide."""
    row = width * channels
    for h in range(height):
        for i in range(0, row, LANES):
            store(padded, to + ((h + 1) * (width + 2) + 1) * channels + i, load(x, at + h * row + i))


@serial
def copy_out(padded, to, height, width, channels, stride, other, other_at, x, at):
    """A frame's image into x; to every `stride`-th pixel of both directions is added that of `other`, if it is not empty."""
    row = width * channels
    for h in range(height):
        here = to + ((h + 1) * (width + 2) + 1) * channels
        if len(other) == 0 or h % stride:
            for i in range(0, row, LANES):
                store(x, at + h * row + i, load(padded, here + i))
            continue
        line = other_at + h // stride * (width // stride) * channels
        for w in range(width):
            for i in range(w * channels, (w + 1) * channels, LANES):
                value = load(padded, here + i)
                if w % stride == 0:
                    value = value + load(other, line + i - (w - w // stride) * channels)
                store(x, at + h * row + i, value)


@serial
def corner_of(tile, height, width, edge, row, size):
    """Where a tile of an image of height × width has its first pixel in a map of `size` pixels an image and `row` a row, in
    which the tiles' corners are `edge` pixels apart."""
    image, place = divmod(tile, height // 4 * (width // 4))
    y, x = divmod(place, width // 4)
    return image * size + edge * (y * row + x)


@serial
def values_of(padded, first, count, height, width, channels, v, plane, part):
    """Bᵀ d B of `count` tiles; zeros where the last block of 16 tiles is not full."""
    blocks, row = channels // LANES, (width + 2) * channels
    for t in range(count):
        corner = corner_of(first + t, height, width, 4, width + 2, (height + 2) * (width + 2)) * channels
        for b in range(blocks):
            for j in range(6):
                found = six(padded, corner + j * channels + b * LANES, row)
                store_six(part, j * LANES, 6 * LANES, forward_b(*found))
            for i in range(6):
                found = six(part, 6 * i * LANES, LANES)
                store_six(v, (6 * i * blocks + b) * plane + t * LANES, blocks * plane, forward_b(*found))
    clear(v, count, blocks, plane)


@serial
def clear(v, count, blocks, plane):
    for t in range(count, up(count)):
        for p in range(POINTS * blocks):
            store(v, p * plane + t * LANES, zeros())


@serial
def up(count):
    """To the next multiple of 16."""
    return (count + LANES - 1) // LANES * LANES


@serial
def outputs_of(m, plane, first, count, height, width, channels, stride, bias, y, at, part):
    """Aᵀ m A of `count` tiles, plus the bias, into the map y from its index `at` on; of stride 2, every second pixel of both
    directions."""
    blocks, row = channels // LANES, width // stride * channels
    for t in range(count):
        corner = at + corner_of(first + t, height, width, 4 // stride, width // stride, height * width // stride**2) * channels
        for b in range(blocks):
            for j in range(6):
                rows = forward_a(*six(m, (j * blocks + b) * plane + t * LANES, 6 * blocks * plane))
                store(part, j * LANES, rows[0])
                store(part, (6 + j) * LANES, rows[1])
                store(part, (12 + j) * LANES, rows[2])
                store(part, (18 + j) * LANES, rows[3])
            shift = load(bias, b * LANES)
            for i in range(0, 4, stride):
                found = forward_a(*six(part, 6 * i * LANES, LANES))
                here = corner + i // stride * row + b * LANES
                store(y, here, found[0] + shift)
                if stride == 1:
                    store(y, here + channels, found[1] + shift)
                    store(y, here + 3 * channels, found[3] + shift)
                store(y, here + 2 // stride * channels, found[2] + shift)


@serial
def gradients_of(g, at, first, count, height, width, channels, stride, dm, plane, part):
    """A g Aᵀ of `count` tiles of the map g from its index `at` on: the adjoint of outputs_of."""
    blocks, row, edge = channels // LANES, width // stride * channels, 4 // stride
    for t in range(count):
        corner = at + corner_of(first + t, height, width, edge, width // stride, height * width // stride**2) * channels
        for b in range(blocks):
            for j in range(0, 4, stride):
                here = corner + j // stride * channels + b * LANES
                found = four(g, here, row) if stride == 1 else (load(g, here), zeros(), load(g, here + row), zeros())
                store_six(part, j * LANES, 4 * LANES, backward_a(*found))
            for i in range(6):
                here = 4 * i * LANES
                if stride == 1:
                    found = four(part, here, LANES)
                else:
                    found = load(part, here), zeros(), load(part, here + 2 * LANES), zeros()
                store_six(dm, (6 * i * blocks + b) * plane + t * LANES, blocks * plane, backward_a(*found))
    clear(dm, count, blocks, plane)


@serial
def add_inputs_of(dv, plane, first, count, height, width, channels, padded, part):
    """B dv Bᵀ of `count` tiles, added into the frames where tiles overlap: the adjoint of values_of."""
    blocks, row = channels // LANES, (width + 2) * channels
    for t in range(count):
        corner = corner_of(first + t, height, width, 4, width + 2, (height + 2) * (width + 2)) * channels
        for b in range(blocks):
            for j in range(6):
                found = six(dv, (j * blocks + b) * plane + t * LANES, 6 * blocks * plane)
                store_six(part, j * LANES, 6 * LANES, backward_b(*found))
            for i in range(6):
                here = corner + i * row + b * LANES
                old, new = six(padded, here, channels), backward_b(*six(part, 6 * i * LANES, LANES))
                store(padded, here, old[0] + new[0])
                store(padded, here + channels, old[1] + new[1])
                store(padded, here + 2 * channels, old[2] + new[2])
                store(padded, here + 3 * channels, old[3] + new[3])
                store(padded, here + 4 * channels, old[4] + new[4])
                store(padded, here + 5 * channels, old[5] + new[5])


@serial
def weights_plane(inputs, outputs):
    """From one point's transformed weights to the next."""
    return inputs * outputs + LANES


@serial
def transform_weights(w, u):
    """G w Gᵀ of weights (from, 3, 3, to), for a product that leads so: (36, to/16, from, 16)."""
    sources, targets, part = w.shape[0], w.shape[3], np.empty(18 * LANES, np.float32)
    flat, step = w.reshape(-1), weights_plane(sources, targets)
    for source in range(sources):
        for b in range(0, targets, LANES):
            for j in range(3):
                at = (source * 9 + j) * targets + b
                found = forward_g(load(flat, at), load(flat, at + 3 * targets), load(flat, at + 6 * targets))
                store_six(part, j * LANES, 3 * LANES, found)
            for i in range(6):
                at = 3 * i * LANES
                found = forward_g(load(part, at), load(part, at + LANES), load(part, at + 2 * LANES))
                store_six(u, 6 * i * step + b * sources + source * LANES, step, found)


@serial
def weights_of(du, outputs, inputs, dw):
    """Gᵀ du G, (outputs, 3, 3, inputs), of du (36, inputs/16, outputs, 16): the adjoint of transform_weights."""
    blocks, part = inputs // LANES, np.empty(18 * LANES, np.float32)
    step = weights_plane(inputs, outputs)
    for o in range(outputs):
        for b in range(blocks):
            for j in range(6):
                found = backward_g(*six(du, j * step + (b * outputs + o) * LANES, 6 * step))
                for_j = j * LANES
                store(part, for_j, found[0])
                store(part, for_j + 6 * LANES, found[1])
                store(part, for_j + 12 * LANES, found[2])
            for i in range(3):
                found = backward_g(*six(part, 6 * i * LANES, LANES))
                at = (o * 9 + 3 * i) * inputs + b * LANES
                store(dw, at, found[0])
                store(dw, at + inputs, found[1])
                store(dw, at + 2 * inputs, found[2])


# ---------------------------------------------------------------------------------------------------- matrix products


@serial
def multiply(a, inputs, u, outputs, count, plane, c):
    """Values (36, inputs/16, tiles, 16) times weights (36, outputs/16, inputs, 16): values (36, outputs/16, tiles, 16)."""
    rows, blocks, size = up(count), inputs // LANES, inputs * LANES
    for p in range(POINTS):
        start, weights, b = p * blocks * plane, p * weights_plane(inputs, outputs), 0
        while b < outputs // LANES:
            at, to = weights + b * size, (p * (outputs // LANES) + b) * plane
            if b + 1 < outputs // LANES:
                for t in range(0, rows, PAIR_ROWS):
                    here = t * LANES
                    across_two(a, start + here, plane, u, at, LANES * LANES, size, blocks, c, to + here, plane, False)
                b += 2
            else:
                for t in range(0, rows, ROWS):
                    here = t * LANES
                    across_one(a, start + here, plane, u, at, LANES * LANES, size, blocks, c, to + here, plane, False)
                b += 1


@serial
def add_products(dm, outputs, v, inputs, count, plane, du, more):
    """dmᵀ v at each point, as du (36, inputs/16, outputs, 16) or (`more`) added to it."""
    block, blocks, step = LANES * LANES, up(count) // LANES, outputs * LANES
    for p in range(POINTS):
        for o in range(outputs // LANES):
            left, b = (p * (outputs // LANES) + o) * plane, 0
            while b < inputs // LANES:
                right = (p * (inputs // LANES) + b) * plane
                to = p * weights_plane(inputs, outputs) + (b * outputs + o * LANES) * LANES
                if b + 1 < inputs // LANES:
                    for r in range(0, LANES, PAIR_ROWS):
                        here = to + r * LANES
                        down_two(dm, left + r, block, v, right, block, plane, blocks, du, here, step, more)
                    b += 2
                else:
                    for r in range(0, LANES, ROWS):
                        here = to + r * LANES
                        down_one(dm, left + r, block, v, right, block, plane, blocks, du, here, step, more)
                    b += 1


# ------------------------------------------------------------------------------------------------------ the convolution


@serial
def shares(images, height, width, channels):
    """How many images share the frames at a time, and how many tiles a block has: what a core's own cache holds."""
    most = 64 if channels == LANES else 32
    return max(1, min(images, most // (height // 4 * (width // 4)))), most


@serial
def aligned(count):
    """Float32 values from the start of a cache line on, so that no vector lies across two."""
    values = np.empty(count + LANES, np.float32)
    skip = -(values.ctypes.data // 4) % LANES
    return values[skip : skip + count]


@serial
def frame_of_zeros(group, height, width, channels):
    frames = aligned(group * (height + 2) * (width + 2) * channels)
    frames[:] = 0
    return frames


@parallel
def forward(x, forth, bias, y, outputs, shape, stride, threads):
    """y = the convolution of x plus the bias; both flat."""
    images, height, width, inputs = shape
    group, most = shares(images, height, width, max(inputs, outputs))
    plane, per_image, size = most * LANES + LANES, height // 4 * (width // 4), height * width
    groups = (images + group - 1) // group
    for chunk in prange(threads):
        padded, part = frame_of_zeros(group, height, width, inputs), aligned(POINTS * LANES)
        v, m = aligned(POINTS * inputs // LANES * plane), aligned(POINTS * outputs // LANES * plane)
        for g in range(groups * chunk // threads, groups * (chunk + 1) // threads):
            image, now = g * group, min(group, images - g * group)
            for n in range(now):
                to = n * (height + 2) * (width + 2) * inputs
                copy_in(x, (image + n) * size * inputs, height, width, inputs, padded, to)
            for first in range(0, now * per_image, most):
                count = min(most, now * per_image - first)
                values_of(padded, first, count, height, width, inputs, v, plane, part)
                multiply(v, inputs, forth, outputs, count, plane, m)
                at = image * size // stride**2 * outputs
                outputs_of(m, plane, first, count, height, width, outputs, stride, bias, y, at, part)


@parallel
def backward(x, back, g, other, dx, du, outputs, shape, stride):
    """The gradient of x (nothing if dx is empty), to which that of a shortcut (`other`) is added, if there is one; and that of
    the transformed weights, a part from every thread."""
    images, height, width, inputs = shape
    group, most = shares(images, height, width, max(inputs, outputs))
    plane, per_image, size = most * LANES + LANES, height // 4 * (width // 4), height * width
    groups, threads = (images + group - 1) // group, len(du)
    for chunk in prange(threads):
        padded, dpadded = frame_of_zeros(group, height, width, inputs), frame_of_zeros(group, height, width, inputs)
        v, m = aligned(POINTS * inputs // LANES * plane), aligned(POINTS * outputs // LANES * plane)
        part, more = aligned(POINTS * LANES), False
        for k in range(groups * chunk // threads, groups * (chunk + 1) // threads):
            image, now = k * group, min(group, images - k * group)
            for n in range(now):
                to = n * (height + 2) * (width + 2) * inputs
                copy_in(x, (image + n) * size * inputs, height, width, inputs, padded, to)
            dpadded[:] = 0
            for first in range(0, now * per_image, most):
                count = min(most, now * per_image - first)
                values_of(padded, first, count, height, width, inputs, v, plane, part)
                at = image * size // stride**2 * outputs
                gradients_of(g, at, first, count, height, width, outputs, stride, m, plane, part)
                add_products(m, outputs, v, inputs, count, plane, du[chunk], more)
                more = True
                if len(dx):
                    multiply(m, outputs, back, inputs, count, plane, v)
                    add_inputs_of(v, plane, first, count, height, width, inputs, dpadded, part)
            for n in range(now if len(dx) else 0):
                to = n * (height + 2) * (width + 2) * inputs
                at = (image + n) * size * inputs
                copy_out(dpadded, to, height, width, inputs, stride, other, at // stride**2, dx, at)
        if not more:
            du[chunk] = 0


def fits(x: Tensor, weight: Tensor, stride: tuple) -> bool:
    """Whether the loops take this: a float32 or bfloat16 map on the CPU whose sides are multiples of 4, float32 weights."""
    shapes = x.dim() == 4 and x.numel() > 0 and not any(side % 4 for side in x.shape[2:])
    layer = weight.shape[1:] == (*x.shape[1:2], 3, 3) and weight.shape[0] % LANES == 0 and tuple(stride) in ((1, 1), (2, 2))
    kinds = x.dtype in (torch.float32, torch.bfloat16) and weight.dtype == torch.float32 and x.device.type == "cpu"
    return shapes and layer and kinds


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """F.conv2d(x, weight, bias, stride, padding=1) for what `fits`: x (N, C, H, W), weight (K, C, 3, 3) float32 -> (N, K, H/s,
    W/s) in x's type. Of stride s = 2, every second output of both directions is kept."""
    missing = -x.shape[1] % LANES
    if missing:  # of an image's three channels: channels of zeros
        x, weight = (F.pad(t, (0, 0, 0, 0, 0, missing)) for t in (x, weight))
    return Convolution.apply(x, weight, bias, stride, False)


def conv3x3_and_shortcut(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> tuple[Tensor, Tensor]:
    """`conv3x3`, and x at every stride-th pixel of both directions, (N, C, H/s, W/s): the two ways on from x, whose gradients
    meet in one pass. C must be a multiple of 16."""
    return Convolution.apply(x, weight, bias, stride, True)


class Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, with_shortcut):
        as_many_threads()
        outputs, inputs = weight.shape[:2]
        array, (back, forth) = pixels(x), torch.empty(2, POINTS * weights_plane(inputs, outputs)).numpy()
        transform_weights(weight.detach().permute(1, 2, 3, 0).contiguous().numpy(), forth)
        transform_weights(pixels(weight), back)
        shift = np.zeros(outputs, np.float32) if bias is None else bias.detach().numpy()
        sides = [side // stride for side in x.shape[2:]]
        y = torch.empty((len(x), outputs, *sides), dtype=x.dtype, memory_format=torch.channels_last)
        threads = numba.get_num_threads()
        forward(array.reshape(-1), forth, shift, pixels(y).reshape(-1), outputs, array.shape, stride, threads)
        ctx.save_for_backward(x)
        ctx.back, ctx.outputs, ctx.stride = back, outputs, stride
        if not with_shortcut:
            return y
        last = torch.channels_last
        return y, x.detach() if stride == 1 else x[:, :, ::stride, ::stride].contiguous(memory_format=last)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g, g_shortcut=None):
        (x,), outputs, inputs = ctx.saved_tensors, ctx.outputs, ctx.saved_tensors[0].shape[1]
        array, g = pixels(x), g.to(x.dtype)
        dx = new_map(x) if ctx.needs_input_grad[0] else None
        nothing = array.reshape(-1)[:0]
        flat = nothing if dx is None else pixels(dx).reshape(-1)
        other = nothing if g_shortcut is None else pixels(g_shortcut.to(x.dtype)).reshape(-1)
        as_many_threads()
        du, flat_g = torch.empty(numba.get_num_threads(), POINTS * weights_plane(inputs, outputs)), pixels(g).reshape(-1)
        backward(array.reshape(-1), ctx.back, flat_g, other, flat, du.numpy(), outputs, array.shape, ctx.stride)
        dw = torch.empty(outputs, 3, 3, inputs)
        weights_of((du[0] if len(du) == 1 else du.sum(0)).numpy(), outputs, inputs, dw.numpy().reshape(-1))
        dbias = g.float().sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return dx, dw.permute(0, 3, 1, 2), dbias, None, None
