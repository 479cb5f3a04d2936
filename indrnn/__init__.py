import os

if os.path.isfile(os.path.join(os.path.dirname(__file__), "service")):  # git wrote the links as text, as it does on Windows
    # With a name, `python -m indrnn` shows the sentence without a traceback.
    raise ImportError("this checkout has no symbolic links: install the wheel, or clone it with -c core.symlinks=true", name=__name__)
