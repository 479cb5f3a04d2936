"""The end-to-end memory network as a cell: a step is a sentence, told or asked; its state is the last M sentences that were told.

Sukhbaatar, Szlam, Weston and Fergus, End-To-End Memory Networks, NIPS 2015 (arXiv 1503.08895), sections 2 and 4.1. Of M slots of W words,
slot i holding the words x_i, and a question q, over hops k = 1 ... K, with one embedding E^1 ... E^K+1 more than hops ("adjacent" weights:
A^k = E^k, C^k = E^k+1, B = E^1):

    m_i^k   = sum_j l_j * E^k x_ij + T_i^k             position encoding l, T: one vector for how long ago a sentence was told
    u^1     = sum_j l_j * E^1 q_j
    p_i^k   = softmax_i(u^k . m_i^k)                   over the slots that hold a sentence
    o^k     = sum_i p_i^k m_i^k+1
    u^k+1   = u^k + o^k
    y       = o^K

    l_j     = (1 - j / W) - (n / d) (1 - 2 j / W)      for number n of d, both counted from 1

A sentence with the word `?` is asked: it is answered and not kept. Any other is told: it takes the last slot, and the first is forgotten;
what is answered then says nothing. Departures: y is what was found last, without u^K,
which would let the question itself say which answers go with whom it names, and W behind it is a matrix of its own, as the answers are few
of the words; a slot without a sentence has no share in the softmax; W in l_j is the width of all rows, where the paper's J is the number of
words of the sentence itself. A sentence is a row of word numbers, 0 past its end.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn

from indrnn.model.cells.cell import Floats, Lowering, StatePart, Stepwise

QUESTION = 1  # the number of the word `?`
LEAST = -1e9  # the score of a slot without a sentence
SPREAD = 0.1  # deviation of all embeddings at the start (section 4.2)


class Memory(Stepwise):
    """x [T, B, W] word numbers -> y [T, B, d], what was found for each as a question; state [B, M W], the words of the last M told.

    inputs W, size d. words V: how many, without number 0. Numbers beyond are taken as the nearest, NaN as 0, so that nothing that is sent
    overflows.
    """

    name = "memory"
    about = "End-to-end memory network (Sukhbaatar et al., NIPS 2015)"
    carried = "Its memory is a `Loop` of standard operators."
    endless = "its memory holds so many sentences, and forgets the first."
    kept = "word numbers in its slots"

    def __init__(self, inputs: int, size: int, words: int, slots: int, hops: int) -> None:
        super().__init__(inputs, size)
        if min(inputs, size, words, slots, hops) < 1:
            raise ValueError(f"expected W, d, words, slots and hops of 1 and more, got {inputs}, {size}, {words}, {slots}, {hops}")
        self.words, self.slots, self.hops = words, slots, hops
        self.embedding = nn.Parameter(torch.randn(words + 1, (hops + 1) * size) * SPREAD)  # E of number 0 counts as 0
        self.when = nn.Parameter(torch.randn(slots, (hops + 1) * size) * SPREAD)
        self.register_buffer("place", _places(inputs, size).repeat(1, hops + 1), persistent=False)  # [W, (K + 1) d]
        self.linear = False  # "linear start": while it is set, no softmax (section 4.2)

    place: Tensor

    def parts(self) -> tuple[StatePart, ...]:
        """Return the one part, slots of words."""
        return (StatePart("hidden", self.slots * self.inputs, name="slots"),)

    def one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sentence in PyTorch, as the module says."""
        asked = numbers(x, self.words)  # [B, W]
        told = numbers(state, self.words).reshape(-1, self.slots, self.inputs)  # [B, M, W]
        after = torch.cat([told[:, 1:], asked[:, None]], 1)
        after = torch.where((asked == QUESTION).any(1)[:, None, None], told, after)
        return self.find(told, asked), after.flatten(1).to(x.dtype)

    def find(self, told: Tensor, asked: Tensor) -> Tensor:
        """told [B, M, W], asked [B, W], int64 in [0, V] -> y [B, d]."""
        there = (told > 0).any(2)  # [B, M]
        table = self._table()  # [W (V + 1), (K + 1) d]
        memories = self._bags(table, told.flatten(0, 1)).view(*there.shape, -1)  # [B, M, (K + 1) d]
        memories = (memories + self.when) * there[..., None]
        at = memories.view(*there.shape, self.hops + 1, self.size).unbind(2)  # m^1 ... m^K+1, each [B, M, d]
        u = self._bags(table, asked)[:, : self.size]
        found = torch.zeros_like(u)
        for k in range(self.hops):
            score = (at[k] @ u[..., None]).squeeze(2)  # [B, M]
            share = score if self.linear else score.masked_fill(~there, LEAST).softmax(1)
            found = ((share * there)[:, None] @ at[k + 1]).squeeze(1)
            u = u + found
        return found

    def _table(self) -> Tensor:
        """Return l_j * E of each place j and word, [W (V + 1), (K + 1) d]; of no word 0."""
        known = torch.cat([torch.zeros_like(self.embedding[:1]), self.embedding[1:]])
        return (self.place[:, None] * known).flatten(0, 1)

    def _bags(self, table: Tensor, words: Tensor) -> Tensor:
        """words [n, W] -> the sum over their places [n, (K + 1) d]."""
        offsets = torch.arange(self.inputs, device=words.device) * (self.words + 1)
        return F.embedding_bag(words + offsets, table, mode="sum")

    def step_lowering(self) -> Lowering:
        """Return the step in ONNX."""
        V = self.words + 1
        weights = {"Table": self._table().detach().cpu().numpy(), "When": self.when.detach().cpu().numpy()}
        hops = "\n".join(_HOP.format(k=k, next=k + 1) for k in range(self.hops))
        memories = ", ".join(f"m{k}" for k in range(self.hops + 1))
        text = _STEP.format(
            V=V - 1,
            W=self.inputs,
            M=self.slots,
            N=self.slots * self.inputs,
            d=self.size,
            offsets=", ".join(str(j * V) for j in range(self.inputs)),
            memories=memories,
            parts=self.hops + 1,
            hops=hops,
            last=f"found{self.hops - 1}",
            question=QUESTION,
            least=LEAST,
        )
        return Lowering(weights, text)

    def reference(self, weights: Mapping[str, Floats], x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """One sentence in NumPy, the specification."""
        W, d, K = self.inputs, self.size, self.hops
        j, n = np.arange(1, W + 1)[:, None], np.arange(1, d + 1)
        place = (1 - j / W) - (n / d) * (1 - 2 * j / W)
        E = weights["embedding"].reshape(-1, K + 1, d)
        when = weights["when"].reshape(-1, K + 1, d)

        def bag(words: Floats, k: int) -> Floats:
            total: Floats = sum((place[j] * E[int(w), k] for j, w in enumerate(words) if w > 0), np.zeros(d))
            return total

        told, asked = (np.nan_to_num(np.clip(np.trunc(sent), 0, self.words)) for sent in (state.reshape(-1, W), x))
        held = [i for i, slot in enumerate(told) if (slot > 0).any()]
        u, found = bag(asked, 0), np.zeros(d)
        for k in range(K):
            score = np.array([u @ (bag(told[i], k) + when[i, k]) for i in held])
            share = np.exp(score - score.max(initial=-np.inf)) if held else score
            found = sum((p / share.sum() * (bag(told[i], k + 1) + when[i, k + 1]) for p, i in zip(share, held, strict=True)), np.zeros(d))
            u = u + found
        kept = told if (asked == QUESTION).any() else np.concatenate([told[1:], asked[None]])
        return found, kept.reshape(-1)


def numbers(x: Tensor, words: int) -> Tensor:
    """Return what is sent as int64 in [0, words], the nearest; NaN, of which a cast makes the least number or 0, as 0."""
    return x.clamp(0, words).to(torch.int64).clamp(0, words)


def _places(W: int, d: int) -> Tensor:
    j, n = torch.arange(1, W + 1)[:, None], torch.arange(1, d + 1)
    return (1 - j / W) - (n / d) * (1 - 2 * j / W)


_STEP = """
    zero = Constant <value_int = 0> ()
    most = Constant <value_int = {V}> ()
    question = Constant <value_int = {question}> ()
    least = Constant <value_float = {least}> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    first = Constant <value_ints = [0]> ()
    width = Constant <value_ints = [{W}]> ()
    whole = Constant <value_ints = [{N}]> ()
    numbers = Constant <value_ints = [{d}]> ()
    places = Constant <value_ints = [{offsets}]> ()
    slots = Constant <value_ints = [0, {M}, {W}]> ()
    least_float = Constant <value_float = 0.0> ()
    most_float = Constant <value_float = {V}.0> ()
    x_near = Clip (x, least_float, most_float)
    x_whole = Cast <to = 7> (x_near)
    asked = Clip (x_whole, zero, most)
    s_near = Clip (s, least_float, most_float)
    s_whole = Cast <to = 7> (s_near)
    told_flat = Clip (s_whole, zero, most)
    told = Reshape (told_flat, slots)
    is_word = Greater (told, zero)
    word = Cast <to = 1> (is_word)
    there = ReduceMax <keepdims = 1> (word, axis_2)
    is_there = Cast <to = 9> (there)
    told_at = Add (told, places)
    told_embedded = Gather <axis = 0> (Table, told_at)
    told_sum = ReduceSum <keepdims = 0> (told_embedded, axis_2)
    timed = Add (told_sum, When)
    held = Mul (timed, there)
    {memories} = Split <axis = 2, num_outputs = {parts}> (held)
    asked_at = Add (asked, places)
    asked_embedded = Gather <axis = 0> (Table, asked_at)
    asked_sum = ReduceSum <keepdims = 0> (asked_embedded, axis_1)
    u0 = Slice (asked_sum, first, numbers, axis_1)
    {hops}
    y = Identity ({last})
    is_mark = Equal (asked, question)
    mark = Cast <to = 1> (is_mark)
    is_asked = ReduceMax <keepdims = 1> (mark, axis_1)
    asks = Cast <to = 9> (is_asked)
    later = Slice (told_flat, width, whole, axis_1)
    moved = Concat <axis = 1> (later, asked)
    kept = Where (asks, told_flat, moved)
    s_next = Cast <to = 1> (kept)
"""

_HOP = """
    column{k} = Unsqueeze (u{k}, axis_2)
    raw{k} = MatMul (m{k}, column{k})
    score{k} = Where (is_there, raw{k}, least)
    odds{k} = Softmax <axis = 1> (score{k})
    share{k} = Mul (odds{k}, there)
    weighted{k} = Mul (m{next}, share{k})
    found{k} = ReduceSum <keepdims = 0> (weighted{k}, axis_1)
    u{next} = Add (u{k}, found{k})
"""
