"""Every measurement, one after another: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run each file beside this one in a process of its own, so that none warms up another."""
    codes = []
    for path in sorted(HERE.glob("*.py")):
        if path.name != Path(__file__).name:
            print(f"\n== {path.stem}", flush=True)
            codes.append(subprocess.run([sys.executable, str(path)], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
