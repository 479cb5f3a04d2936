if __name__ != "indrnn.service":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.service, not {__name__}: everything here is imported below `indrnn`")

from indrnn.extras import need

need("service", "serve", "fastapi")
