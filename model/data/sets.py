"""Where the data sets are, and on what terms they may be used."""

import os
from pathlib import Path


class DataMissingError(Exception):
    """A data set is not where it is looked for; the message names the file and INDRNN_DATA."""


def find(name: str) -> Path:
    """Return the path of a data file, e.g. `text/war_and_peace.txt.gz`, under INDRNN_DATA (default data/). Raises DataMissingError."""
    root = Path(os.environ.get("INDRNN_DATA", "data"))
    path = root / name
    if not path.is_file():
        raise DataMissingError(f"expected {name} under {root} (INDRNN_DATA says where the data is), found no file")
    return path


UTD_MHAD = {
    "name": "UTD-MHAD",
    "terms": "published as freely available for research; no licence text: weights only, cite",
    "citation": "C. Chen, R. Jafari, N. Kehtarnavaz: UTD-MHAD: A Multimodal Dataset for Human Action Recognition Utilizing a Depth "
    "Camera and a Wearable Inertial Sensor. ICIP 2015.",
}
SHAKESPEARE = {
    "name": "Tiny Shakespeare",
    "terms": "public domain",
    "citation": "W. Shakespeare, plays; selection of A. Karpathy (char-rnn, 2015).",
}
WAR_AND_PEACE = {
    "name": "War and Peace",
    "terms": "public domain",
    "citation": "L. Tolstoy, War and Peace, English translation; text of A. Karpathy, J. Johnson, L. Fei-Fei (2015).",
}
PTB = {
    "name": "Penn Treebank, Wall Street Journal, in T. Mikolov's preprocessing",
    "terms": "text of the Linguistic Data Consortium, not to be passed on",
    "citation": "M. Marcus, B. Santorini, M. Marcinkiewicz: Building a Large Annotated Corpus of English: The Penn Treebank. "
    "Computational Linguistics 19(2), 1993. T. Mikolov et al.: Empirical Evaluation and Combination of Advanced Language Modeling "
    "Techniques. Interspeech 2011.",
}
MNIST = {
    "name": "MNIST",
    "terms": "CC BY-SA 3.0",
    "citation": "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 86(11), "
    "1998.",
}
NW_UCLA = {
    "name": "Northwestern-UCLA Multiview Action 3D",
    "terms": "no licence stated: weights only, cite",
    "citation": "J. Wang, X. Nie, Y. Xia, Y. Wu, S.-C. Zhu: Cross-view Action Modeling, Learning and Recognition. CVPR 2014.",
}
HDM05 = {
    "name": "HDM05, 11 classes",
    "terms": "CC BY-SA 3.0",
    "citation": "M. Müller, T. Röder, M. Clausen, B. Eberhardt, B. Krüger, A. Weber: Documentation Mocap Database HDM05. "
    "Universität Bonn, CG-2007-2.",
}
MSR_ACTION3D = {
    "name": "MSR-Action3D",
    "terms": "published for research; no licence text: weights only, cite",
    "citation": "W. Li, Z. Zhang, Z. Liu: Action Recognition Based on a Bag of 3D Points. CVPR Workshops 2010.",
}
FLORENCE3D = {
    "name": "Florence 3D Action",
    "terms": "published for research; no licence text: weights only, cite",
    "citation": "L. Seidenari, V. Varano, S. Berretti, A. Del Bimbo, P. Pala: Recognizing Actions from Depth Cameras as Weakly Aligned "
    "Multi-part Bag-of-Poses. CVPR Workshops 2013.",
}
