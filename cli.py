"""Launcher from a checkout: `python cli.py extract ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "pipeline"))

from vbpr.__main__ import main

if __name__ == "__main__":
    main()
