"""How long the command and the package take to start.

python benchmarks/startup.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from pipeline import machine

WAYS = {
    "python alone": ["-c", "pass"],
    "import trustvlm": ["-c", "import trustvlm"],
    "import trustvlm.metrics, trustvlm.scores": ["-c", "import trustvlm.metrics, trustvlm.scores"],
    "trustvlm --help": ["-m", "trustvlm", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine())
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    processor: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, arguments in WAYS.items():
            before, begun = os.times(), time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            wall[name].append(time.perf_counter() - begun)
            processor[name].append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
    for name in WAYS:
        print(
            f"{name:42}{statistics.median(wall[name]):6.2f} s,"
            f"{statistics.median(processor[name]):6.2f} s of processor time"
        )


if __name__ == "__main__":
    main()
