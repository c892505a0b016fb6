"""How long the first `certify` of a million images takes, in a new process without its imports.

    python benchmarks/certify_cold.py [RISK ...]

Put another version first on PYTHONPATH to compare.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time
import numpy as np
from trustvlm.decisions import certify

rng = np.random.default_rng(0)
v = rng.random(10**6)
correct = rng.random(10**6) > 0.6 * v**2
begin = time.perf_counter()
certificate = certify(-v, correct, float(sys.argv[1]))
print(f"risk {sys.argv[1]}: {time.perf_counter() - begin:.2f} s, ", end="")
print(f"coverage {certificate.coverage:.4f}")
"""

if __name__ == "__main__":
    for risk in sys.argv[1:] or ("0.01", "0.05", "0.1", "0.3"):
        subprocess.run([sys.executable, "-c", CODE, risk], check=True)
