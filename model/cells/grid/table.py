"""The words on layers that look at whole pictures: nothing goes from step to step, so that they are no cells of model/cells/table.py."""

from dataclasses import dataclass

_UNROLLED = "The file is made of standard operators; every look at a picture stands in it."


@dataclass(frozen=True)
class Layers:
    """The words of a card on layers of a picture. about: the network, and the source; carried, endless, kept, bounded: as of cells."""

    about: str
    carried: str = _UNROLLED
    endless: str = "It looks at a whole picture at once: nothing goes on from one to the next."
    kept: str | None = None
    bounded: bool = True


_GRAVES = "Graves, Fernandez and Schmidhuber, 2007"
LAYERS: dict[str, Layers] = {
    "rcl": Layers("Recurrent convolutional network (Liang and Hu, 2015)"),
    "label_loop": Layers("Convolutional network whose answer is its own next input (Pinheiro and Collobert, 2014)"),
    "md_indrnn": Layers(f"Multi-dimensional recurrent network ({_GRAVES}) of independent neurons (Li et al., 2018), from four corners"),
    "md_relu": Layers(f"Multi-dimensional recurrent network ({_GRAVES}), relu, from four corners"),
    "md_tanh": Layers(f"Multi-dimensional recurrent network ({_GRAVES}), tanh, from four corners"),
}
