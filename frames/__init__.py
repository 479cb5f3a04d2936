if __name__ != "indrnn.frames":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.frames, not {__name__}: everything here is imported below `indrnn`")
