"""Real atomic loads, stores and fences for compiled Python, on int64 words of numpy arrays.

Owns: the only place where memory order is spelled. Plain numba code has none: LLVM merges a writer's two counter updates,
moves them past the data and deletes a reader's re-check. These intrinsics emit LLVM's ``load atomic``, ``store atomic`` and
``fence`` with the orders of the C11 memory model; on x86 all but fence_seq_cst and pause become plain moves, on ARM the right
barriers.

Every function takes a one-dimensional contiguous int64 array and a word index; words are 8 bytes and 8-aligned, so a load or
store is one access and cannot tear. Stores refuse read-only arrays while compiling. An index is not checked: it is the
caller's.

Types for explicit signatures: WORDS is private or owned memory (int64[::1]); VIEW is a segment mapped read-only. A WORDS array
is accepted where VIEW is asked for, never the other way: a reader's ``mem`` is a VIEW.
"""

import platform

import llvmlite.binding as llvm
from llvmlite import ir
from numba import int64, njit, types, void
from numba.extending import intrinsic

WORDS = types.Array(types.int64, 1, "C")
VIEW = types.Array(types.int64, 1, "C", readonly=True)
_PAUSE = {"x86_64": "pause", "AMD64": "pause", "aarch64": "isb", "arm64": "isb"}.get(platform.machine(), "")

llvm.initialize_native_asmparser()      # `pause` is inline assembly


def _is_words(ty, writable: bool) -> bool:
    return (isinstance(ty, types.Array) and ty.dtype == types.int64 and ty.ndim == 1 and ty.layout == "C"
            and not (writable and not ty.mutable))


def _address(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _load(order: str, doc: str):
    def load(typing_context, words, index):
        if not _is_words(words, writable=False) or not isinstance(index, types.Integer):
            return None

        def emit(context, builder, signature, args):
            return builder.load_atomic(_address(context, builder, signature.args[0], *args), order, 8)
        return types.int64(words, types.intp), emit
    load.__doc__ = doc
    return intrinsic(load)


def _store(order: str, doc: str):
    def store(typing_context, words, index, value):
        if not _is_words(words, writable=True) or not isinstance(index, types.Integer) or not isinstance(value, types.Integer):
            return None

        def emit(context, builder, signature, args):
            builder.store_atomic(args[2], _address(context, builder, signature.args[0], *args[:2]), order, 8)
            return context.get_dummy_value()
        return types.void(words, types.intp, types.int64), emit
    store.__doc__ = doc
    return intrinsic(store)


def _fence(order: str, doc: str):
    def fence(typing_context):
        def emit(context, builder, signature, args):
            builder.fence(order)
            return context.get_dummy_value()
        return types.void(), emit
    fence.__doc__ = doc
    return intrinsic(fence)


load_acquire = _load("acquire", "load_acquire(words, i): what was stored before the release it reads from is visible after it.")
load_relaxed = _load("monotonic", "load_relaxed(words, i): one whole word, no order with other words.")
store_release = _store("release", "store_release(words, i, v): everything stored before is visible to who acquires v.")
store_relaxed = _store("monotonic", "store_relaxed(words, i, v): one whole word, no order with other words.")
fence_acquire = _fence("acquire", "fence_acquire(): loads before it stay before loads and stores after it.")
fence_release = _fence("release", "fence_release(): loads and stores before it stay before stores after it.")
fence_seq_cst = _fence("seq_cst", "fence_seq_cst(): full fence; the only one that keeps a store before a later load.")


@intrinsic
def load_acquire_at(typing_context, address):
    """load_acquire_at(address): `load_acquire` of the word at a machine address; the caller keeps its memory mapped."""
    if not isinstance(address, types.Integer):
        return None

    def emit(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "acquire", 8)
    return types.int64(types.int64), emit


@intrinsic
def pause(typing_context):
    """pause(): tell the CPU that this is a spin loop, so that it saves power and leaves the sibling thread room."""
    def emit(context, builder, signature, args):
        builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), _PAUSE, "~{memory}", side_effect=True), [])
        return context.get_dummy_value()
    return types.void(), emit


def kernel(signature):
    """njit with one signature, compiled when imported or loaded from the cache.

    Reference counting is off, so such a function cannot create arrays; without it a poll costs 6 ns instead of 50.
    """
    return njit(signature, cache=True, _nrt=False)


@kernel(int64(VIEW, int64))
def load_word(mem, index):
    """From Python: acquire load of one word."""
    return load_acquire(mem, index)


@kernel(void(WORDS, int64, int64))
def store_word(mem, index, value):
    """From Python: release store of one word."""
    store_release(mem, index, value)


@kernel(void(WORDS, int64, int64))
def add_word(mem, index, value):
    """Add to a counter word of which the caller is the only writer."""
    store_relaxed(mem, index, load_relaxed(mem, index) + value)


@kernel(void(VIEW, int64, WORDS))
def load_words(mem, index, out):
    """Copy ``out.size`` words from ``mem[index:]``; each word is whole, the set of them is not one moment."""
    for i in range(out.size):
        store_relaxed(out, i, load_relaxed(mem, index + i))
