if __name__ != "indrnn.export":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.export, not {__name__}: everything here is imported below `indrnn`")
