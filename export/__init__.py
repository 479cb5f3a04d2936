if __name__ != "indrnn.export":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.export, not {__name__}: everything here is imported below `indrnn`")


def __getattr__(name: str) -> object:
    """Find `indrnn.export.to_onnx` when it is asked for: it needs PyTorch, and reading bundles does not."""
    if name == "to_onnx":
        from indrnn.export.module import to_onnx

        return to_onnx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
