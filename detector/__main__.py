"""`python -m detector` is `tidewarden`."""

from __future__ import annotations

from detector.cli import main

if __name__ == "__main__":
    main()
