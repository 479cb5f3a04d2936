"""The recurrence and its gradient on NVIDIA GPUs, in Triton; needs torch and triton, so import it only where both are wanted.

h_t = f(x_t + u_t * h_{t-1}) in two ways, both of model/cells/reference.py's meaning. Where u is [H], one number for all steps, this is
IndRNN (Li et al., CVPR 2018, equation 4); where it is [T, B, H] (VARYING), with f = "clip" between LO and HI, it is every diagonal
recurrence.

loop  one program per block of neurons steps through time with the state in registers. UNROLL steps are loaded before the first is used, so
      that many loads are under way: with B * H in the tens of thousands that is a copy of X to Y.
scan  few neurons cannot keep a GPU busy, but time can. relu(x + u h) is a clamped affine map, clip(b h + a, lo, hi); maps of this kind are
      closed under composition for any sign of u, so CHUNK steps at once are an associative scan. identity is the same without the clamp,
      and the gradient of all of them is linear. Exact but for rounding: sums are taken in another order than the loop takes them.

X, Y and their gradients are float32, float64, bfloat16 or float16; the state, u and all arithmetic are float32, or float64 with float64.
No atomics: du is a sum over time within each row, written per row, and then the sum of the rows, so equal inputs give equal bits.
Where u varies, u and du are of the state's type, and there is nothing to sum.
A NaN stays in its neuron of its row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "identity", "piecewise_linear")
CLIP = "clip"  # where u varies, and only there
LINEAR = ("relu", "identity", CLIP)  # what a scan can do

# To be tuned on a GPU (bench/gpu.py): not yet measured.
SCAN_NEURONS = 4096  # B * H up to which
SCAN_STEPS = 512  # and T from which the scan is taken
CHUNK = 256  # steps of one scan
SCAN_BLOCK = 8  # neurons of one scan: 32 bytes of a row, the least that memory hands out
BLOCK, UNROLL = 64, 8  # neurons of one program of the loop, and steps loaded ahead
# Within a chunk the scan multiplies powers of u, harmless where |u| ** CHUNK is; a chunk that has a larger |u| is taken in single steps.
LARGEST_POWER = 4.0

Bounds = tuple[float | None, float | None]


@triton.jit
def _value(a, ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr):
    """f(a). Comparisons, not maximum: that would turn NaN into a number."""
    if F == "relu":
        return tl.where(a < 0, 0.0, a).to(a.dtype)
    elif F == "leaky_relu":
        return tl.where(a > 0, a, a * ALPHA).to(a.dtype)
    elif F == "tanh":
        e = tl.exp(-2 * tl.abs(a))
        m = (1 - e) / (1 + e)
        t = tl.where(a < 0, -m, m)
        if a.dtype == tl.float32:  # near 0, where 1 - e has lost its digits, the series
            s = a * a
            near = a * (1 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))))
            t = tl.where(s < 0.0625, near, t)
        return t.to(a.dtype)
    elif F == "sigmoid":
        return (1 / (1 + tl.exp(-a))).to(a.dtype)
    elif F == "piecewise_linear":
        return tl.where(a < -1, -1.0, tl.where(a > 1, 1.0, a)).to(a.dtype)
    elif F == "clip":
        if LO is not None:
            a = tl.where(a < LO, LO, a).to(a.dtype)
        if HI is not None:
            a = tl.where(a > HI, HI, a).to(a.dtype)
        return a
    else:
        return a


@triton.jit
def _times_slope(g, h, ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr):
    """g times f's derivative, told from its output h (alpha >= 0 keeps the sign)."""
    if F == "relu":
        return tl.where(h <= 0, 0.0, g).to(g.dtype)
    elif F == "leaky_relu":
        return tl.where(h > 0, g, g * ALPHA).to(g.dtype)
    elif F == "tanh":
        return g * (1 - h * h)
    elif F == "sigmoid":
        return g * (1 - h) * h
    elif F == "piecewise_linear":
        return tl.where(h <= -1, 0.0, tl.where(h >= 1, 0.0, g)).to(g.dtype)
    elif F == "clip":
        if LO is not None:
            g = tl.where(h <= LO, 0.0, g).to(g.dtype)
        if HI is not None:
            g = tl.where(h >= HI, 0.0, g).to(g.dtype)
        return g
    else:
        return g


@triton.jit
def _time(s, length, REVERSE: tl.constexpr):
    """When step s of a row happens, in int64: T * B * H may be more than an int32 holds. Steps past the length keep their place."""
    if REVERSE:
        s = tl.where(s < length, length - 1 - s, s)
    return s.to(tl.int64)


@triton.jit
def _forward_loop(
    x, u, lens, h0, y, y_h, T, N, H,
    ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr, VARYING: tl.constexpr,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Neurons [pid * BLOCK, + BLOCK) of the N = B * H of a step; a block may hold the end of one row and the start of the next."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = n < N
    h = tl.load(h0 + n, mine, other=0)
    w = tl.load(u + n % H, mine, other=0) if not VARYING else h
    length = tl.maximum(tl.minimum(tl.load(lens + n // H, mine, other=0), T), 0).to(tl.int32)
    zero = tl.zeros_like(length)
    for first in range(0, T, UNROLL):
        ahead = ()
        weights = ()
        for k in tl.static_range(UNROLL):
            s = zero + first + k
            at = _time(s, length, REVERSE) * N + n
            ahead = ahead + (tl.load(x + at, mine & (s < length), other=0),)  # noqa: RUF005  # Triton's tuple
            if VARYING:
                weights = weights + (tl.load(u + at, mine & (s < length), other=0),)  # noqa: RUF005
        for k in tl.static_range(UNROLL):
            s = zero + first + k
            if VARYING:
                w = weights[k]
            h = tl.where(s < length, _value(ahead[k].to(h.dtype) + w * h, ALPHA, LO, HI, F), h)
            out = tl.where(s < length, h, 0.0)
            tl.store(y + _time(s, length, REVERSE) * N + n, out.to(y.dtype.element_ty), mine & (s < T))
    tl.store(y_h + n, h, mine)


@triton.jit
def _backward_loop(
    dy, dy_h, y, u, lens, h0, dx, du_rows, dh0, T, N, H,
    ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr, VARYING: tl.constexpr,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Run the same from the last step to the first: g is the gradient by the state, du that by u, summed up but where it varies."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = n < N
    g = tl.load(dy_h + n, mine, other=0)
    start = tl.load(h0 + n, mine, other=0)
    w = tl.load(u + n % H, mine, other=0) if not VARYING else g
    length = tl.maximum(tl.minimum(tl.load(lens + n // H, mine, other=0), T), 0).to(tl.int32)
    du = tl.zeros_like(g)
    h = tl.load(y + _time(tl.zeros_like(length) + T - 1, length, REVERSE) * N + n, mine & (length == T) & (length > 0), other=0).to(g.dtype)
    zero = tl.zeros_like(length)
    for done in range(0, T, UNROLL):
        slopes = ()
        before = ()
        weights = ()
        for k in tl.static_range(UNROLL):
            s = zero + T - 1 - done - k
            at = _time(s, length, REVERSE) * N + n
            slopes = slopes + (tl.load(dy + at, mine & (s >= 0) & (s < length), other=0),)  # noqa: RUF005
            if VARYING:
                weights = weights + (tl.load(u + at, mine & (s >= 0) & (s < length), other=0),)  # noqa: RUF005
            at = _time(s - 1, length, REVERSE) * N + n
            before = before + (tl.load(y + at, mine & (s >= 1) & (s - 1 < length), other=0),)  # noqa: RUF005
        for k in tl.static_range(UNROLL):
            s = zero + T - 1 - done - k
            live = (s >= 0) & (s < length)
            d = tl.where(live, _times_slope(slopes[k].to(g.dtype) + g, h, ALPHA, LO, HI, F), 0.0).to(g.dtype)
            h = tl.where(s == 0, start, before[k].to(g.dtype))
            at = _time(s, length, REVERSE) * N + n
            if VARYING:
                w = weights[k]
                tl.store(du_rows + at, tl.where(live, d * h, 0.0).to(g.dtype), mine & (s >= 0))
            else:
                du += tl.where(live, d * h, 0.0).to(g.dtype)
            g = tl.where(live, d * w, g)
            tl.store(dx + at, d.to(dx.dtype.element_ty), mine & (s >= 0))
    if not VARYING:
        tl.store(du_rows + n, du, mine)
    tl.store(dh0 + n, g, mine)


@triton.jit
def _then_clamped(b1, a1, lo1, hi1, b2, a2, lo2, hi2):
    """Compose two clamped affine maps, 1, then 2. b = 0 is told apart because 0 * inf is not 0."""
    e1 = tl.where(b2 == 0, a2, b2 * lo1 + a2)
    e2 = tl.where(b2 == 0, a2, b2 * hi1 + a2)
    return b2 * b1, b2 * a1 + a2, _clip(tl.where(e1 < e2, e1, e2), lo2, hi2), _clip(tl.where(e1 < e2, e2, e1), lo2, hi2)


@triton.jit
def _then_affine(b1, a1, b2, a2):
    """Compose two affine maps, 1, then 2. A factor of 0 ends whatever came before, be it NaN, as the slope 0 does in the loop."""
    return b2 * b1, tl.where(b2 == 0, a2, b2 * a1 + a2)


@triton.jit
def _then(b1, a1, b2, a2):
    """Compose two affine maps, 1, then 2, as the forward pass has it: NaN times 0 is NaN."""
    return b2 * b1, b2 * a1 + a2


@triton.jit
def _clip(v, lo, hi):
    v = tl.where(v < lo, lo, v)
    return tl.where(v > hi, hi, v)


@triton.jit
def _forward_scan(
    x, u, lens, h0, y, y_h, T, N, H, largest,
    ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr, VARYING: tl.constexpr,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Neurons [pid1 * BLOCK, + BLOCK) of row pid0, CHUNK steps at a time."""
    row = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = c < H
    n = row * H + c
    h = tl.load(h0 + n, mine, other=0)
    w = tl.load(u + c, mine, other=0) if not VARYING else h
    length = tl.maximum(tl.minimum(tl.load(lens + row), T), 0).to(tl.int32)
    step = tl.arange(0, CHUNK)
    nothing = tl.zeros([CHUNK, BLOCK], h.dtype)
    least = nothing + (LO if LO is not None else float("-inf"))
    most = nothing + (HI if HI is not None else float("inf"))
    for first in range(0, length, CHUNK):
        s = (first + step)[:, None]
        live = (s < length) & mine[None, :]
        at = _time(s, length, REVERSE) * N + n[None, :]
        b = tl.load(u + at, live, other=0) if VARYING else nothing + w[None, :]
        if tl.max(tl.abs(b)) <= largest:  # false for NaN too
            a = tl.load(x + at, live, other=0).to(h.dtype)
            if LO is not None or HI is not None:
                b, a, lo, hi = tl.associative_scan((b, a, least, most), 0, _then_clamped)
                out = _clip(b * h[None, :] + a, lo, hi)
            else:
                b, a = tl.associative_scan((b, a), 0, _then)
                out = b * h[None, :] + a
            tl.store(y + at, out.to(y.dtype.element_ty), live)
            last = step[:, None] == tl.minimum(CHUNK, length - first) - 1
            h = tl.sum(tl.where(last, out, 0.0), 0).to(h.dtype)
        else:
            for done in range(first, tl.minimum(first + CHUNK, length)):
                one = _time(tl.zeros_like(c) + done, length, REVERSE) * N + n
                v = tl.load(u + one, mine, other=0) if VARYING else w
                h = _value(tl.load(x + one, mine, other=0).to(h.dtype) + v * h, ALPHA, LO, HI, F)
                tl.store(y + one, h.to(y.dtype.element_ty), mine)
    for first in range(length, T, CHUNK):
        s = (first + step)[:, None]
        tl.store(y + s.to(tl.int64) * N + n[None, :], tl.zeros([CHUNK, BLOCK], y.dtype.element_ty), (s < T) & mine[None, :])
    tl.store(y_h + n, h, mine)


@triton.jit
def _backward_scan(
    dy, dy_h, y, u, lens, h0, dx, du_rows, dh0, T, N, H, largest,
    ALPHA: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, F: tl.constexpr, VARYING: tl.constexpr,
    REVERSE: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """dx_s = m_s (dy_s + u_{s+1} dx_{s+1}) with m the slope, 0 or 1: an affine scan from a row's last step to its first."""
    row = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = c < H
    n = row * H + c
    g = tl.load(dy_h + n, mine, other=0)
    start = tl.load(h0 + n, mine, other=0)
    w = tl.load(u + c, mine, other=0) if not VARYING else g
    length = tl.maximum(tl.minimum(tl.load(lens + row), T), 0).to(tl.int32)
    du = tl.zeros_like(g)
    step = tl.arange(0, CHUNK)
    nothing = tl.zeros([CHUNK, BLOCK], g.dtype)
    for done in range(0, length, CHUNK):
        s = (length - 1 - done - step)[:, None]
        live = (s >= 0) & mine[None, :]
        at = _time(s, length, REVERSE) * N + n[None, :]
        b = tl.load(u + at, live, other=0) if VARYING else nothing + w[None, :]
        if tl.max(tl.abs(b)) <= largest:
            h = tl.load(y + at, live, other=0).to(g.dtype)
            before = tl.load(y + _time(s - 1, length, REVERSE) * N + n[None, :], live & (s >= 1), other=0).to(g.dtype)
            before = tl.where(s == 0, start[None, :], before)
            a = tl.load(dy + at, live, other=0).to(g.dtype) + tl.where(step[:, None] == 0, g[None, :], 0.0)
            a = _times_slope(a, h, ALPHA, LO, HI, F)
            after = b
            if VARYING:  # the weight of the step after this; that of the first step here is in g
                after = tl.load(u + _time(s + 1, length, REVERSE) * N + n[None, :], live & (step[:, None] > 0), other=0)
            after = _times_slope(after, h, ALPHA, LO, HI, F)
            after, d = tl.associative_scan((after, a), 0, _then_affine)
            tl.store(dx + at, d.to(dx.dtype.element_ty), live)
            if VARYING:
                tl.store(du_rows + at, d * before, live)
            else:
                du += tl.sum(tl.where(live, d * before, 0.0), 0)
            last = step[:, None] == tl.minimum(CHUNK, length - done) - 1
            g = tl.sum(tl.where(last, d * b, 0.0), 0).to(g.dtype)
        else:
            for k in range(done, tl.minimum(done + CHUNK, length)):
                one = tl.zeros_like(c) + length - 1 - k
                here = _time(one, length, REVERSE) * N + n
                v = tl.load(u + here, mine, other=0) if VARYING else w
                past = tl.load(y + _time(one - 1, length, REVERSE) * N + n, mine & (one >= 1), other=0).to(g.dtype)
                past = tl.where(one == 0, start, past)
                now = tl.load(y + here, mine, other=0).to(g.dtype)
                e = _times_slope(tl.load(dy + here, mine, other=0).to(g.dtype) + g, now, ALPHA, LO, HI, F)
                tl.store(dx + here, e.to(dx.dtype.element_ty), mine)
                if VARYING:
                    tl.store(du_rows + here, e * past, mine)
                else:
                    du += e * past
                g = e * v
    for first in range(length, T, CHUNK):
        s = (first + step)[:, None]
        at = s.to(tl.int64) * N + n[None, :]
        tl.store(dx + at, tl.zeros([CHUNK, BLOCK], dx.dtype.element_ty), (s < T) & mine[None, :])
        if VARYING:
            tl.store(du_rows + at, nothing, (s < T) & mine[None, :])
    if not VARYING:
        tl.store(du_rows + n, du, mine)
    tl.store(dh0 + n, g, mine)


def scans(T: int, B: int, H: int, activation: str) -> bool:
    """Return whether the scan is taken for this shape."""
    return activation in LINEAR and B * H <= SCAN_NEURONS and T >= SCAN_STEPS


def state_dtype(x: Tensor) -> torch.dtype:
    """Return the type of the state and of all arithmetic for inputs of x's type."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def forward(
    x: Tensor,
    u: Tensor,
    lens: Tensor,
    h0: Tensor,
    activation: str,
    alpha: float,
    direction: str,
    scan: bool | None = None,
    bounds: Bounds = (None, None),
) -> tuple[Tensor, Tensor]:
    """x [T, B, H], u [H] (activation clip: [T, B, H]), lens [B], h0 [B, H] -> y [T, B, H] of x's type, y_h [B, H] of h0's.

    bounds: least and most, of clip. scan: to insist on one of the two ways; by default as `scans` says.
    Raises ValueError where the scan cannot do the activation.
    """
    T, B, H = x.shape
    dtype = state_dtype(x)
    x, lens = x.contiguous(), lens.to(torch.int64).contiguous()
    start, w = h0.to(dtype).contiguous(), u.to(dtype).contiguous()
    y, y_h = torch.empty_like(x), torch.empty_like(start)
    if B * H:
        _launch("forward", (x, w, lens, start, y, y_h), (T, B, H), activation, alpha, direction, scan, bounds)
    return y, y_h.to(h0.dtype)


def backward(
    dy: Tensor,
    dy_h: Tensor,
    y: Tensor,
    u: Tensor,
    lens: Tensor,
    h0: Tensor,
    activation: str,
    alpha: float,
    direction: str,
    scan: bool | None = None,
    bounds: Bounds = (None, None),
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients by x [T, B, H], of y's type, u and h0 [B, H], of their own types and shapes; y is what `forward` returned."""
    T, B, H = y.shape
    dtype = state_dtype(y)
    dy, y, lens = dy.to(y.dtype).contiguous(), y.contiguous(), lens.to(torch.int64).contiguous()
    end, start, w = (t.to(dtype).contiguous() for t in (dy_h, h0, u))
    dx, dh0 = torch.empty_like(y), torch.empty_like(start)
    du = torch.empty_like(w) if activation == CLIP else torch.empty_like(start)
    if B * H:
        _launch("backward", (dy, end, y, w, lens, start, dx, du, dh0), (T, B, H), activation, alpha, direction, scan, bounds)
    return dx, (du if activation == CLIP else du.sum(0, dtype=torch.float64)).to(u.dtype), dh0.to(h0.dtype)


def _launch(
    which: str,
    tensors: tuple[Tensor, ...],
    shape: tuple[int, int, int],
    activation: str,
    alpha: float,
    direction: str,
    scan: bool | None,
    bounds: Bounds,
) -> None:
    T, B, H = shape
    if scan and activation not in LINEAR:
        raise ValueError(f"expected an activation of {LINEAR} for the scan, got {activation!r}")
    sizes = (T, B * H, H)
    lo, hi = (0.0, None) if activation == "relu" else bounds
    options = {"ALPHA": alpha, "LO": lo, "HI": hi, "F": activation, "VARYING": activation == CLIP, "REVERSE": direction == "reverse"}
    with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]  # Triton launches on the current device
        if scans(*shape, activation) if scan is None else scan:
            kernel = _forward_scan if which == "forward" else _backward_scan
            grid = (B, triton.cdiv(H, SCAN_BLOCK))
            kernel[grid](*tensors, *sizes, LARGEST_POWER ** (1 / CHUNK), **options, BLOCK=SCAN_BLOCK, CHUNK=CHUNK)
        else:
            kernel = _forward_loop if which == "forward" else _backward_loop
            grid = (triton.cdiv(B * H, BLOCK),)
            kernel[grid](*tensors, *sizes, **options, BLOCK=BLOCK, UNROLL=UNROLL, num_warps=max(1, BLOCK // 32))
