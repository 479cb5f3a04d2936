"""Which source this is: written into the image at build time, asked of git in a checkout."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def revision() -> str:
    """The commit's short id, or "unknown"."""
    written = ROOT / "REVISION"
    if written.is_file():
        return written.read_text().strip() or "unknown"
    if not (ROOT / "service").is_symlink():  # installed, perhaps inside somebody else's repository
        return "unknown"
    try:
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return asked.stdout.strip()
