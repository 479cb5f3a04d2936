if __name__ != "indrnn.kernels":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.kernels, not {__name__}: everything here is imported below `indrnn`")
