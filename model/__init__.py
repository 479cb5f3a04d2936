if __name__ != "indrnn.model":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.model, not {__name__}: everything here is imported below `indrnn`")

from indrnn.extras import need

need("model", "train", "torch")
