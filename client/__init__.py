if __name__ != "indrnn.client":  # a second copy of every module would be loaded under that name
    raise ImportError(f"import indrnn.client, not {__name__}: everything here is imported below `indrnn`")

from indrnn.extras import need

need("client", "client", "httpx", "websockets")
