"""`python -m trustvlm`."""

from __future__ import annotations

from trustvlm.cli import main

if __name__ == "__main__":
    main()
