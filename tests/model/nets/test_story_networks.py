"""The networks of stories: a question after a story is what the stream of its sentences answers, of the memory and word by word."""

import numpy as np
import pytest
import torch

from indrnn.model.cells.recurrent_weight import SizeError
from indrnn.model.data.texts import stories
from indrnn.model.nets.stories import MemoryNet, StoriesConfig, StoryNet
from indrnn.model.nets.wordwise import WordwiseNet

SMALL = {"words": len(stories.WORDS), "width": stories.WIDTH, "classes": 8, "hidden": 8}


def net_of(cell: str, **sizes: object) -> StoryNet:
    torch.manual_seed(0)
    config = StoriesConfig(cell=cell, **{**SMALL, **sizes})  # type: ignore[arg-type]
    net = (MemoryNet if cell == "memory" else WordwiseNet)(config)
    with torch.no_grad():
        for w in net.parameters():
            w.add_(0.3 * torch.randn(w.shape))
    return net.fold()


@pytest.mark.parametrize("sizes", [{"cell": "memory"}, {"cell": "memory", "slots": 4}, {"cell": "lstm"}, {"cell": "indrnn", "layers": 2}])
def test_a_question_after_a_story_is_what_the_stream_answers_last(sizes: dict[str, object]) -> None:
    net, drawn = net_of(**sizes), stories.draw(3, 2, "train")  # type: ignore[arg-type]
    told, lengths, asked = (torch.from_numpy(part.astype(np.int64)) for part in (drawn.told, drawn.lengths, drawn.asked))
    x = torch.zeros(3, told.shape[1] + 1, told.shape[2])
    x[:, :-1] = told
    x[torch.arange(3), lengths] = asked.float()
    with torch.no_grad():
        want = net(x, lengths + 1, net.start(3))[1][:, -8:]
        torch.testing.assert_close(net.ask(told, lengths, asked), want)
        first, state = net(x[:, :7], torch.full((3,), 7), net.start(3))
        rest = net(x[:, 7:], lengths - 6, state)[1][:, -8:]
    torch.testing.assert_close(rest, want)
    assert first.shape == (3, 7, 8)
    assert net.state_size == sum(p.size for p in net.parts())


def test_words_that_nobody_has_are_taken_as_the_nearest() -> None:
    x = torch.tensor([[[2.0, 1e9, -4, 1e30, -1e30, 0]]])
    for cell in ("memory", "lstm"):
        net = net_of(cell)
        beyond = x.clamp(0, len(stories.WORDS))
        got, want = (net(y, torch.tensor([1]), net.start(1))[0] for y in (x, beyond))
        assert torch.equal(got, want)


def test_a_memory_has_no_other_start_and_no_penalty_and_words_are_read_by_cells_of_the_table() -> None:
    for more in ({"h0": "learned"}, {"norm_penalty": 1.0}):
        with pytest.raises(SizeError, match="expected a cell that is no memory beside"):
            MemoryNet(StoriesConfig(**SMALL, **more))  # type: ignore[arg-type]
    with pytest.raises(SizeError, match="expected a cell of"):
        WordwiseNet(StoriesConfig(**SMALL, cell="memory"))
    assert net_of("gru", h0="learned").parts()[-2].role == "started"


@pytest.mark.parametrize("cell", ["memory", "lstm"])
def test_a_story_is_answered_while_it_goes_on_and_so_not_read_backwards(cell: str) -> None:
    with pytest.raises(SizeError, match="--bidirectional: expected a network that looks at whole sequences"):
        net_of(cell, bidirectional=True)
