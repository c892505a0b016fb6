"""Write what the software puts out as text, so that two versions of it can be compared.

    python tests/frozen_outputs.py write OUT [--data DIR] [--embeddings DIR] [--cache DIR]
    python tests/frozen_outputs.py compare OLD NEW
    python tests/frozen_outputs.py make-fixtures FOLDER

`write` runs the command line and the public functions on real sets and generated pictures. Times,
versions and the working folder are left out; arrays are a hash and a few values. Only public
interfaces are used, so that the same file runs on any version. Compare versions with one warm
`--cache`: an embedding's last bits depend on the batch in which it was computed first.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import difflib
import hashlib
import html
import io
import json
import multiprocessing
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared"
SOURCE = Path(__file__).resolve().parents[1] / "src"
SETS = ("imagenette", "office_caltech10", "dtd10", "pacs")
OFFLINE = ("--vlm", "offline", "--vision", "offline")
ENVIRONMENT = {
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "TZ": "UTC",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    # Sums in several threads differ in their last bits.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# What differs from run to run, by the key in JSON.
UNSTABLE_KEYS = {
    "created_at", "created_by", "kept_at", "undone_at", "seconds", "images_per_second", "used",
    "version", "versions", "started_at", "finished_at", "environment", "stamp",
    "manifest_sha256",
}  # fmt: skip


# ---- canonical text


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plain(value: Any) -> Any:
    """Turn results into JSON values: arrays to hash, shape, dtype and a few values."""
    import numpy as np

    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS" or value.size <= 4:
            return value.tolist()
        flat = np.ascontiguousarray(value)
        few = flat.ravel()[:: max(1, value.size // 4)][:4]
        return {
            "sha256": sha256(flat.tobytes()),
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "values": [repr(x) for x in few.tolist()],
        }
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        # The hash of a calibration, in the manifest of a bulk job, is one of its time as well.
        hashed = {"calibration"} if isinstance(value.get("calibration"), str) else set()
        left_out = UNSTABLE_KEYS | hashed
        return {str(k): "<left out>" if k in left_out else plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, bytes):
        return {"sha256": sha256(value), "bytes": len(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)


def as_json(value: Any) -> str:
    return json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def stable(text: str) -> str:
    """Leave out times, speeds, versions and the working folder."""
    text = text.replace(str(Path.cwd()), "<work>")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", "<time>", text)
    text = re.sub(
        r"\d{1,2} [A-Z][a-z]+ 20\d\d(, \d\d:\d\d)?( UTC)?|20\d\d-\d\d-\d\d", "<date>", text
    )
    text = re.sub(r"\d+(\.\d+)? images/s", "<speed> images/s", text)
    text = re.sub(r" at 0x[0-9a-f]+", " at <address>", text)
    return re.sub(r"trustvlm \d+\.\d+(\.\w+)*", "trustvlm <version>", text)


def text_of_page(page: str) -> str:
    """What a page says, figures and their labels included, one piece of text a line."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    pieces = [html.unescape(piece) for piece in re.split(r"<[^>]*>", page)]
    return "\n".join(" ".join(piece.split()) for piece in pieces if piece.strip()) + "\n"


def arrays_in(file: Path) -> dict[str, Any]:
    if file.suffix == ".npz":
        import numpy as np

        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    from safetensors import safe_open
    from safetensors.numpy import load_file

    with safe_open(file, "numpy") as stored:
        metadata = stored.metadata()
    return {**load_file(file), "(metadata)": metadata}


def tables_in(file: Path) -> dict[str, Any]:
    """Schema and rows of a SQLite database."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        schema = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        content: dict[str, Any] = {
            "user_version": database.execute("PRAGMA user_version").fetchone()[0],
            "schema": {row["name"]: row["sql"] for row in schema},
        }
        for name in [
            row["name"] for row in schema if (row["sql"] or "").startswith("CREATE TABLE")
        ]:
            rows = database.execute(f'SELECT * FROM "{name}" ORDER BY rowid').fetchall()
            content[f"rows of {name}"] = [dict(row) for row in rows]
    return content


def canonical(file: Path) -> dict[str, str]:
    """Return what to write about a file, by what to add to its name."""
    kind = file.suffix.lower()
    if kind == ".json":
        return {"": stable(as_json(json.loads(file.read_text("utf-8"))))}
    if kind == ".jsonl":
        lines = file.read_text("utf-8").splitlines()
        return {"": stable("".join(as_json(json.loads(line)) for line in lines))}
    if kind in (".csv", ".md", ".tex", ".txt", ".toml"):
        return {"": stable(file.read_text("utf-8"))}
    if kind in (".html", ".svg"):
        page = stable(file.read_text("utf-8"))
        return {".txt": text_of_page(page), ".sha256": f"{sha256(page.encode())}\n"}
    if kind in (".npz", ".safetensors"):
        return {".json": as_json(arrays_in(file))}
    if kind == ".sqlite":
        return {".json": stable(as_json(tables_in(file)))}
    if kind == ".parquet":
        from pyarrow import parquet

        table = parquet.ParquetFile(file).read()
        columns = [f"{field.name}: {field.type}" for field in table.schema]
        return {".json": stable(as_json({"columns": columns, "rows": table.to_pylist()}))}
    if kind == ".pdf" or kind == "":
        return {".exists": "yes\n"}
    return {".sha256": f"{sha256(file.read_bytes())}\n"}


class Record:
    """Writes what commands and functions give into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def value(self, name: str, compute: Any) -> None:
        """Write a result, or that of a function, or its error."""
        try:
            value = compute() if callable(compute) else compute
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}"}
        self.write(f"{name}.json", stable(as_json(value)))

    def files(self, name: str, path: Path) -> None:
        """Write what a file or a folder of files holds."""
        if not path.exists():
            self.write(f"{name}/{path.name}.missing", "yes\n")
            return
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                inside = file.relative_to(path.parent).as_posix()
                for addition, text in canonical(file).items():
                    self.write(f"{name}/{inside}{addition}", text)

    def command(self, name: str, *arguments: object, gives: tuple[str, ...] = ()) -> str:
        """Run a command; write its exit code, all that it prints and the files that it gives."""
        words = list(map(str, arguments))
        code, out, err = run(words)
        text = f"$ trustvlm {' '.join(words)}\nexit code {code}\n--- stdout\n{out}--- stderr\n{err}"
        self.write(f"{name}/command.txt", stable(text))
        for given in gives:
            self.files(name, Path(given))
        return out


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Run the command line in this process."""
    from trustvlm.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.argv = sys.argv, ["trustvlm", *arguments]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = before
    return code, out.getvalue(), err.getvalue()


# ---- inputs


def write_pictures(folder: Path, per_class: int, *, seed: int, size: int = 24) -> Path:
    """Write noisy squares in class folders of three colours."""
    import numpy as np
    from PIL import Image

    for c, (name, colour) in enumerate(
        {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 200)}.items()
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            noise = np.random.default_rng([seed, c, i]).normal(scale=35, size=(size, size, 3))
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


def copy_images(source: Path, target: Path, start: int, stop: int) -> None:
    """Copy some of the images of each class folder."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[start:stop]:
            shutil.copyfile(file, target / folder.name / file.name)


def write_inputs(classes: list[str]) -> None:
    """Write the same images in every form of input, with unreadable and leaked ones among them."""
    files = [file for c in classes for file in sorted(Path("test", c).iterdir())[:2]]
    mixed = Path("mixed")
    mixed.mkdir()
    for number, file in enumerate(files[:6]):
        shutil.copyfile(file, mixed / f"{number}{file.suffix}")
    shot = sorted(Path("shots", classes[0]).iterdir())[0]
    shutil.copyfile(shot, mixed / f"leaked{shot.suffix}")
    (mixed / "empty.jpg").write_bytes(b"")
    (mixed / "text.png").write_bytes(b"this is no image")
    (mixed / "cut.jpg").write_bytes(files[0].read_bytes()[:200])
    shutil.copytree("test", "leaky")
    shutil.copyfile(shot, Path("leaky", classes[0], f"leaked{shot.suffix}"))
    (Path("leaky") / classes[0] / "broken.jpg").write_bytes(b"broken")
    with Path("list.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "note"])
        writer.writerows([file.as_posix(), "n"] for file in [*files[:6], Path("gone.jpg")])
    with Path("labelled.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        labelled = sorted(Path("labelled").rglob("*.*"))
        writer.writerows([file.as_posix(), file.parent.name] for file in labelled)
    Path("list.txt").write_text("".join(f"{file.as_posix()}\n" for file in files[:4]))
    with tarfile.open("images.tar", "w") as archive:
        for file in [*files[:5], mixed / "text.png"]:
            content = file.read_bytes()
            info = tarfile.TarInfo(file.name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    import pyarrow
    from pyarrow import parquet

    contents = [file.read_bytes() for file in files[:5]]
    columns = {"id": list(range(5)), "image": [{"bytes": b, "path": None} for b in contents]}
    parquet.write_table(pyarrow.table(columns), "images.parquet")


# ---- what is written


def write_set(record: Record, source: Path, every: bool) -> None:
    """Write what can be done with a folder of labelled images; `every`: in each variant."""
    copy_images(source / "train", Path("shots"), 0, 6)
    copy_images(source / "test", Path("test"), 0, 8)
    copy_images(source / "test", Path("labelled"), 8, 20)
    shutil.copyfile(source / "classes.txt", "classes.txt")
    others = sorted(source.glob("test_*"))
    if others:
        copy_images(others[0], Path("other"), 0, 5)
    write_whole_way(record, ["--classes", "classes.txt"], every)


def write_whole_way(record: Record, classes: list[str], every: bool) -> None:
    """Write what the commands give on `shots`, `test` and `labelled` in the working folder."""

    def some(options: dict[str, list[object]], n: int) -> list[tuple[str, list[object]]]:
        return list(options.items())[: None if every else n]

    folders = sorted(path.name for path in Path("shots").iterdir())
    write_inputs(folders)
    fitted: dict[str, list[object]] = {
        "trustvlm": ["--score", "trustvlm"],
        "trustvlm_star": ["--score", "trustvlm_star"],
        "auto": ["--score", "auto"],
        "auto_star": ["--score", "auto_star"],
        "adapt": ["--score", "auto", "--adapt"],
        "knn": ["--score", "knn"],
        "msp": ["--score", "msp"],
        "weight": ["--score", "trustvlm", "--set", "weight=0.5"],
        "loo": ["--score", "trustvlm", "--select", "loo"],
        "select_on": ["--score", "trustvlm", "--select-on", "labelled"],
        "drawn": ["--shots", "3", "--draw", "2"],
        "finetune": ["--score", "trustvlm_star_f", "--finetune"],
        "paper": ["--protocol", "paper"],
        "default": [],
        "no_correct": ["--no-correct"],
        "prompts": ["--prompt", "a {}.", "--prompt", "a picture of a {}."],
    }
    for name, options in some(fitted, 5):
        model = f"{name}.trust"
        given = ("fit", "shots", "-o", model, *OFFLINE, *classes, *options)
        record.command(f"fit/{name}", *given, gives=(model,))
    shutil.copytree("shots", "fewer")
    shutil.rmtree(Path("fewer", folders[-1]))
    (Path("fewer", folders[-1])).mkdir()
    (Path("fewer", folders[0]) / "broken.jpg").write_bytes(b"broken")
    names = Path("classes.txt").read_text("utf-8") if classes else "\n".join(folders)
    Path("with_more.txt").write_text(names.rstrip("\n") + "\nnowhere\n", encoding="utf-8")
    for name, more in {
        "fewer": "classes.txt" if classes else "with_more.txt",
        "more": "with_more.txt",
    }.items():
        given = ("fit", "fewer", "-o", f"{name}.trust", *OFFLINE, "--classes", more)
        record.command(f"fit/{name}", *given, gives=(f"{name}.trust",))
    record.command(
        "fit/same", "fit", "labelled.csv", "-o", "same.trust", "--vlm", "offline",
        "--vision", "same", *classes, gives=("same.trust",),
    )  # fmt: skip
    record.command(
        "fit/wrong_score", "fit", "shots", "-o", "x.trust", *OFFLINE, "--score", "trustvml"
    )

    goals: dict[str, list[object]] = {
        "risk": ["labelled", "--risk", "0.2"],
        "per_class": ["labelled", "--risk", "0.4", "--per-class", "--calibrator", "beta"],
        "coverage": ["labelled", "--min-coverage", "0.6", "--calibrator", "venn_abers"],
        "cost": ["labelled", "--cost-error", "10", "--cost-review", "1"],
        "without_leaks": ["leaky", "--risk", "0.2", "--exclude-shots"],
        "strict": ["labelled", "--risk", "0.001"],
        "csv": ["labelled.csv", "--risk", "0.3", "--confidence", "0.9", "--calibrator", "platt"],
        "bonferroni": ["labelled", "--risk", "0.2", "--method", "bonferroni"],
        "learn_then_test": ["labelled", "--risk", "0.2", "--method", "learn_then_test"],
        "from_shots": ["--from-shots"],
        "leaky": ["leaky", "--risk", "0.2"],
    }
    for goal, options in some(goals, 5):
        for model in (
            ("trustvlm", "auto_star")
            if goal in ("risk", "per_class", "from_shots")
            else ("trustvlm",)
        ):
            out, said = f"{model}-{goal}.trust", f"{model}-{goal}.json"
            given = ("calibrate", f"{model}.trust", *options, "-o", out, "--json", said)
            record.command(f"calibrate/{model}-{goal}", *given)
            for path in (Path(said), Path(out)):
                if path.exists():
                    record.files(f"calibrate/{model}-{goal}", path)

    models = ["trustvlm", "auto", "auto_star", "adapt", "more", "trustvlm-per_class"]
    if every:
        models += ["trustvlm_star", "knn", "fewer", "same", "finetune", "trustvlm-risk"]
        models += ["trustvlm-cost", "auto_star-risk", "trustvlm-from_shots"]
    for model in models:
        record.command(f"predict/{model}", "predict", f"{model}.trust", "mixed", "test")
    inputs = ("mixed", "list.csv", "list.txt", "images.tar", "images.parquet")
    for number, source in enumerate(
        (*inputs, "mixed/empty.jpg", "gone.png")[: None if every else 1]
    ):
        out = f"rows{number}.jsonl"
        record.command(
            f"predict/from {Path(source).name}", "predict", "trustvlm-risk.trust", source, "-o", out
        )
        if Path(out).exists():
            record.files(f"predict/from {Path(source).name}", Path(out))
    record.command(
        "predict/together",
        "predict",
        "auto_star.trust",
        *inputs,
        "-o",
        "rows.parquet",
        gives=("rows.parquet",),
    )
    bulk = ("predict", "trustvlm-risk.trust", *inputs, "-o", "bulk/", "--part-size", "8")
    record.command("predict/bulk", *bulk, gives=("bulk",))
    record.command("predict/bulk again", *bulk)

    names_option = classes or ["--classes", ",".join(folders)]
    record.command("label/plain", "label", "test", "mixed", *names_option, *OFFLINE)
    record.command("label/correct", "label", "test", *names_option, *OFFLINE, "--correct")
    record.command(
        "label/csv",
        "label",
        "list.csv",
        *names_option,
        *OFFLINE,
        "-o",
        "l.jsonl",
        gives=("l.jsonl",),
    )

    evaluated: dict[str, list[object]] = {
        "trustvlm": ["trustvlm.trust", "test", "--report", "report0"],
        "auto_star-risk": ["auto_star-risk.trust", "test", "--report", "report1"],
        "trustvlm-per_class": ["trustvlm-per_class.trust", "test", "--scores", "msp,trustvlm"],
        "convention": ["trustvlm.trust", "test", "--convention", "trustvlm"],
        "fewer": ["fewer.trust", "labelled.csv"],
        "leaky": ["trustvlm.trust", "leaky"],
        "without_leaks": ["trustvlm.trust", "leaky", "--exclude-shots"],
    }
    for name, options in some(evaluated, 3):
        out = f"evaluation-{name}.json"
        record.command(f"evaluate/{name}", "evaluate", *options, "--json", out)
        for path in (Path(out), Path(str(options[-1]))):
            if path.exists() and path.name.startswith(("evaluation", "report")):
                record.files(f"evaluate/{name}", path)
    record.command(
        "compare/models", "report", "compare", "evaluation-trustvlm.json",
        "evaluation-auto_star-risk.json",
        "-o", "page.html", "--json", "compared.json", "--resamples", "300",
        gives=("page.html", "compared.json"),
    )  # fmt: skip
    record.command(
        "compare/scores", "report", "compare", "evaluation-trustvlm.json",
        "evaluation-trustvlm.json",
        "--score-b", "msp", "--resamples", "300",
    )  # fmt: skip

    record.command(
        "advise/shots", "advise", "trustvlm.trust", "--json", "a.json", gives=("a.json",)
    )
    record.command(
        "advise/labelled", "advise", "trustvlm.trust", "labelled", "--json", "b.json",
        "--examples", "3", gives=("b.json",),
    )  # fmt: skip
    for model in ("fewer", "auto_star") if every else ():
        record.command(f"advise/{model}", "advise", f"{model}.trust")
    other = "other" if Path("other").exists() else "labelled"
    for number, source in enumerate(("mixed", other, "test")):
        given = ("monitor", "trustvlm.trust", source, "--state", "state.json", "--json", "m.json")
        record.command(f"monitor/{number}", *given, gives=("state.json", "m.json"))
    record.command("monitor/reference", "monitor", "auto_star.trust", other, "--reference", "test")
    for model in ("trustvlm", "auto_star"):
        given = ("crossvalidate", f"{model}.trust", "--folds", "3", "--json", "cv.json")
        record.command(f"crossvalidate/{model}", *given, gives=("cv.json",))
    record.command("crossvalidate/all", "crossvalidate", "trustvlm.trust", "--scores", "all")
    write_python_api(record)


def write_python_api(record: Record) -> None:

    import trustvlm

    files = sorted(Path("mixed").iterdir())
    shots = {path.name: sorted(path.iterdir()) for path in sorted(Path("shots").iterdir())}

    def rows(verdicts: Any) -> list[Any]:
        return [verdict.to_row() for verdict in verdicts]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = trustvlm.TrustVLM.load("auto_star-risk.trust")
        record.value(
            "python/paths", lambda: rows(model.predict([str(files[0]), *files[1:], "gone.png"]))
        )
        record.value("python/iterated", lambda: rows(model.iter_predict(files)))
        record.value("python/repr", lambda: [repr(model), repr(model.predict(files[:3]))])
        record.value("python/evaluation", lambda: model.evaluate("test").to_dict())
        record.value("python/none", lambda: rows(model.predict([])))
        other = trustvlm.TrustVLM("offline", "offline", classes=list(shots), score="trustvlm")
        record.value("python/pairs", lambda: rows(fitted_on_pairs(other, shots).predict(files)))
        record.value("python/unfitted", lambda: trustvlm.TrustVLM("offline").predict(files))


def fitted_on_pairs(model: Any, shots: Mapping[str, list[Path]]) -> Any:
    pairs = [(file, name) for name, files in shots.items() for file in files[:3]]
    return model.fit(([file for file, _ in pairs], [name for _, name in pairs]))


def write_arrays(record: Record, train_file: Path) -> None:
    """Write every score at 1, 4 and 16 shots, and what is computed from some of them."""
    import numpy as np

    from trustvlm import scores

    def loaded(file: Path) -> dict[str, Any]:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    train = loaded(train_file)
    name = train_file.stem.removesuffix("__train")
    order = np.random.default_rng(0).permutation(len(train["labels"]))
    for test_file in sorted(train_file.parent.glob(f"{name}__test*.npz")):
        test = loaded(test_file)
        for shots in (1, 4, 16):
            by_class = [
                order[train["labels"][order] == c][:shots] for c in range(len(train["class_names"]))
            ]
            chosen = np.concatenate(by_class)
            evidence = {
                "logits": test["logits"],
                "features": test["features"],
                "support_features": train["features"][chosen],
                "support_labels": train["labels"][chosen],
                "support_logits": train["logits"][chosen],
                "image_embeddings": test["image_embeddings"],
                "text_embeddings": test["text_embeddings"],
                "support_image_embeddings": train["image_embeddings"][chosen],
            }
            results = {}
            for score in sorted(scores.names()):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        results[score] = scores.compute(score, **evidence)
                    except Exception as error:
                        results[score] = f"{type(error).__name__}: {error}"
            record.value(f"{test_file.stem}/{shots:02d} shots", results)
        write_decisions(record, test_file.stem, results, test, evidence)
    if name in ("pacs", "dtd10", "cifar10_openclip_vitb32"):
        test_files = sorted(train_file.parent.glob(f"{name}__test*.npz"))[:2]
        for preset in ("untuned", "loo"):
            given = ("bench", "arrays", *test_files, "--support", train_file, "--shots", "1,4,16")
            more = ("--draws", "2", "--preset", preset, "--jobs", "1", "--json", "rows.json")
            report = ("--verdicts", "v.npz", "--report", "page") if preset == "untuned" else ()
            gives = ("rows.json", "v.npz", "page") if report else ("rows.json",)
            record.command(f"bench arrays {preset}", *given, *more, *report, gives=gives)
    if name == "pacs":
        for study in ("modalities", "sensitivity", "shift", "missing", "gain", "shots"):
            tests = sorted(train_file.parent.glob(f"{name}__test*.npz"))
            given = ("bench", "study", study, *tests, "--support", train_file, "--out", study)
            record.command(
                f"study {study}", *given, "--shots", "1,4", "--draws", "2", gives=(study,)
            )


def write_decisions(
    record: Record,
    name: str,
    results: Mapping[str, Any],
    test: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> None:
    n_classes = len(test["class_names"])
    asked = about_batch(results, test, evidence)
    for score in ("msp", "trustvlm", "trustvlm_star", "auto"):
        asked |= about_score(score, results[score], test["labels"], n_classes)
    written: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, function in asked.items():
            try:
                value = function()
                said = value.statement() if hasattr(value, "statement") else ""
                written[key] = {"value": value, "says": said} if said else value
            except Exception as error:
                written[key] = f"{type(error).__name__}: {error}"
    record.value(f"{name}/decisions", written)


def about_score(
    score: str, result: Any, truth: Any, n_classes: int
) -> dict[str, Callable[[], Any]]:
    """Return what to compute from one score's confidences, by name."""
    from trustvlm import decisions as d
    from trustvlm import metrics as m

    c, prediction = result.confidence, result.prediction
    right = prediction == truth

    def calibrated(kind: str) -> Any:
        calibrator = d.Calibrator(kind).fit(c[::2], right[::2])
        p = calibrator.predict(c)
        measured = [m.brier(p, right), m.ece(p, right), m.ece_debiased(p, right)]
        return {"state": calibrator.to_dict(), "p": p, "measured": measured}

    asked: dict[str, Callable[[], Any]] = {
        "risk_coverage": partial(m.risk_coverage, c, right),
        "bootstrap": partial(m.bootstrap, c, right, n_resamples=60, seed=3),
        "risk_band": partial(m.risk_band, c, right, [0.2, 0.5, 1.0], n_resamples=60, seed=3),
        "certify strict": partial(d.certify, c, right, 0.001),
        "certify eligible": partial(d.certify, c, right, 0.3, eligible=prediction > 0),
        "certify_coverage": partial(d.certify_coverage, c, right, 0.7),
        "certify_per_class": partial(
            d.certify_per_class, c, right, prediction, risk=0.3, n_classes=n_classes
        ),
        "cheapest": partial(d.cheapest, c, right, 10, 1),
        "cross_fitted": partial(d.cross_fitted, c, right),
    }
    for convention in m.CONVENTIONS:
        asked[f"evaluate {convention}"] = partial(m.evaluate, c, right, convention)
    for method in d.METHODS:
        asked[f"certify {method}"] = partial(d.certify, c, right, 0.1, method=method)
    for kind in d.CALIBRATORS:
        asked[f"calibrate {kind}"] = partial(calibrated, kind)
    return {f"{score} {name}": function for name, function in asked.items()}


def about_batch(
    results: Mapping[str, Any], test: Mapping[str, Any], evidence: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    """Return what to compute from several scores, or from the shots, by name."""
    import numpy as np

    from trustvlm import decisions, metrics, scores

    n_classes = len(test["class_names"])
    labels, features = evidence["support_labels"], evidence["support_features"]
    a, b = results["trustvlm"], results["msp"]
    right = a.prediction == test["labels"]

    def drift() -> Any:
        monitor = decisions.DriftMonitor.start({"c": np.sort(a.confidence)[100:200]})
        return monitor.after({"c": a.confidence[:80]}).to_dict()

    def bank() -> Any:
        made = scores.PrototypeBank().fit(features, labels, n_classes=n_classes)
        return {"counts": made.counts_, "similarities": made.similarities(test["features"])}

    def without_shots(score: str) -> Any:
        return scores.compute(score, **without_first_class(evidence))

    asked: dict[str, Callable[[], Any]] = {
        "paired": partial(
            metrics.paired_bootstraps, a.confidence, b.confidence, right, n_resamples=60
        ),
        "drift": drift,
        "check_shots": partial(
            decisions.check_shots,
            features,
            labels,
            n_classes=n_classes,
            logits=evidence["support_logits"],
        ),
        "near_duplicates": partial(decisions.near_duplicates, features, threshold=0.9),
        "out of distribution": partial(decisions.Scope.of, a.confidence),
        "bank": bank,
    }
    for score in scores.names():
        asked[f"class without shots {score}"] = partial(without_shots, score)
    return asked


def without_first_class(evidence: Mapping[str, Any]) -> dict[str, Any]:
    kept = evidence["support_labels"] != 0
    return {
        key: value[kept] if key.startswith("support_") else value for key, value in evidence.items()
    }


def write_commands(record: Record) -> None:
    """Write the help of every command, and the lists."""

    def walk(words: list[str]) -> None:
        out = record.command(f"help/{'-'.join(['trustvlm', *words])}", *words, "--help")
        panel = out.partition("─ Commands ─")[2]
        for name in re.findall(r"^│ ([a-z][a-z-]*)  ", panel, flags=re.MULTILINE):
            walk([*words, name])

    walk([])
    for name in ("scores", "models", "datasets"):
        record.command(f"lists/{name}", name)
        record.command(f"lists/{name} json", name, "--json")
    record.command("lists/version", "--version")
    record.command("lists/imagenet", "datasets", "--classes", "imagenet")
    for number, words in enumerate(
        (
            ["nothing"],
            [],
            ["predict"],
            ["predict", "gone.trust", "x"],
            ["fit", "gone", "-o", "m"],
            ["bench", "x.toml"],
        )
    ):
        record.command(f"errors/{number}", *words)


def write_study(record: Record, source: Path) -> None:
    """Write a small study from image folders."""
    copy_images(source / "train", Path("train"), 0, 6)
    copy_images(source / "test", Path("test"), 0, 10)
    Path("study.toml").write_text(
        'name = "Small"\nout = "results"\nshots = [1, 4]\ndraws = 2\n'
        'scores = ["msp", "trustvlm", "trustvlm_star", "auto", "knn"]\n'
        'studies = ["modalities", "missing"]\n'
        '[[models]]\nvlm = "offline"\nvision = "offline"\n'
        '[[models]]\nvlm = "offline"\nvision = "same"\n'
        '[[datasets]]\nname = "small"\ntrain = "train"\ntest = ["test"]\n'
        f'classes = "{(source / "classes.txt").as_posix()}"\n'
    )
    record.command("study", "bench", "study.toml", "--jobs", "1", gives=("results",))
    record.command(
        "encoders",
        "bench",
        "study",
        "encoders",
        "study.toml",
        "--out",
        "encoders",
        gives=("encoders",),
    )


@contextlib.contextmanager
def service(*arguments: object) -> Iterator[Callable[..., Any]]:
    """Run `trustvlm serve` and give a function that asks it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "trustvlm", "serve", *map(str, arguments), "--port", str(port)]
    with Path("service.log").open("wb") as log:
        process = subprocess.Popen(words, stderr=log)

    def ask(path: str, body: Any = None, method: str | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            content,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return {"status": status, "body": json.loads(text)}
        except ValueError:
            return {"status": status, "body": text.decode("utf-8", "replace")}

    try:
        for _ in range(600):
            try:
                ask("/healthz")
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(Path("service.log").read_text()) from None
                time.sleep(0.1)
        yield ask
    finally:
        process.terminate()
        process.wait()


def write_service(record: Record) -> None:
    """Write the OpenAPI document, answers of the service, and its database."""
    write_pictures(Path("shots"), 4, seed=0)
    write_pictures(Path("labelled"), 12, seed=1)
    write_pictures(Path("test"), 2, seed=2)
    record.command("fit", "fit", "shots", "-o", "m.trust", *OFFLINE)
    record.command("calibrate", "calibrate", "m.trust", "labelled", "--risk", "0.3")
    with service("m.trust", "--feedback", "f.sqlite") as ask:
        for path in (
            "/openapi.json",
            "/v1/models",
            "/v1/model",
            "/readyz",
            "/v1/queue",
            "/v1/model?model=x",
        ):
            record.value(f"GET {path.strip('/').replace('/', ' ').replace('?', ' ')}", ask(path))
        record.value("answers", review(ask))
        metrics = ask("/metrics")["body"]
        record.write(
            "metrics.txt",
            "".join(f"{line}\n" for line in metrics.splitlines() if line.startswith("# ")),
        )
    record.files("database", Path("f.sqlite"))
    record.command(
        "corrections",
        "corrections",
        "f.sqlite",
        "-o",
        "corrected",
        "--shots",
        "shots",
        gives=("corrected",),
    )


def review(ask: Callable[..., Any]) -> list[Any]:
    """Predict the test pictures and answer some of them."""
    import base64

    files = sorted(Path("test").rglob("*.png"))
    images = [
        {"name": file.as_posix(), "data": base64.b64encode(file.read_bytes()).decode()}
        for file in files
    ]
    said = [
        ask("/v1/predict?keep=true", {"images": [*images, {"name": "broken.png", "data": "AAAA"}]})
    ]
    digests = [sha256(file.read_bytes()) for file in files]
    answers = [{"action": "accept"}, {"action": "correct", "label": "red"}, {"action": "skip"}]
    for digest, answer in zip(digests, [*answers, {"action": "no such action"}], strict=False):
        said.append(ask("/v1/feedback", {"image": digest, **answer}))
    said.append(ask("/v1/queue"))
    said.append(ask("/v1/feedback/2", method="DELETE"))
    said.append(ask("/v1/feedback", {"image": digests[3], "action": "accept"}))
    said += [ask(path) for path in ("/v1/feedback.csv", "/v1/curve", "/v1/queue?limit=2")]
    return said


def write_generated(record: Record) -> None:
    """Write a little of everything from generated pictures alone."""
    for name, (n, seed) in {"shots": (4, 0), "labelled": (8, 1), "test": (3, 2)}.items():
        write_pictures(Path(name), n, seed=seed)
    record.command("fit", "fit", "shots", "-o", "m.trust", *OFFLINE, gives=("m.trust",))
    record.command(
        "calibrate", "calibrate", "m.trust", "labelled", "--risk", "0.3", gives=("m.trust",)
    )
    record.command(
        "predict", "predict", "m.trust", "test", "-o", "rows.jsonl", gives=("rows.jsonl",)
    )
    given = ("evaluate", "m.trust", "test", "--scores", "msp,trustvlm", "--json", "e.json")
    record.command("evaluate", *given, gives=("e.json",))
    record.command("help", "fit", "--help")


# ---- fixtures: files of this version that later ones must read


def make_fixtures(folder: Path) -> None:
    """Write a fitted model, a store, an evaluation, a bulk folder, a state and a database."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    write_pictures(Path("pictures"), 2, seed=2, size=16)
    from trustvlm.pipeline.artefact import read_artefact, write_artefact

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TRUSTVLM_CACHE"] = temporary
        shots = write_pictures(Path(temporary, "shots"), 2, seed=0, size=16)
        labelled = write_pictures(Path(temporary, "labelled"), 12, seed=1, size=16)
        for words in (
            ["fit", shots, "-o", "demo.trust", *OFFLINE, "--score", "trustvlm_star"],
            ["calibrate", "demo.trust", labelled, "--risk", "0.3"],
        ):
            done(words)
    stored, arrays = read_artefact("demo.trust")
    stored = json.loads(json.dumps(stored).replace(str(shots), "shots"))
    write_artefact("demo.trust", stored, arrays)
    # The store holds some pictures alone, so that it stays small.
    os.environ["TRUSTVLM_CACHE"] = str(Path("store").resolve())
    done(["monitor", "demo.trust", "pictures/red", "--state", "state.json"])
    shutil.rmtree(Path("store", "offline"), ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TRUSTVLM_CACHE"] = temporary
        done(["evaluate", "demo.trust", "pictures", "--json", "evaluation.json"])
        done(["predict", "demo.trust", "pictures", "-o", "bulk/", "--part-size", "2"])
        # As if the job had been interrupted before its last part.
        journal = Path("bulk", "_trustvlm", "done.jsonl")
        lines = journal.read_text("utf-8").splitlines(keepends=True)
        journal.write_text("".join(lines[:-1]), encoding="utf-8")
        Path("bulk", json.loads(lines[-1])["file"]).unlink()
        Path("bulk", "_trustvlm", "summary.json").unlink(missing_ok=True)
        Path("test").symlink_to("pictures")
        with service("demo.trust", "--feedback", "demo.feedback.sqlite") as ask:
            review(ask)
        Path("test").unlink()
        Path("service.log").unlink()
    expected = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in sorted(path.name for path in Path.cwd().iterdir()):
            copy = shutil.copytree if Path(name).is_dir() else shutil.copyfile
            copy(name, Path(temporary, name))
        expected = loaded_fixtures(Path(temporary))
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def done(words: list[Any]) -> tuple[str, str]:
    code, out, err = run(list(map(str, words)))
    if code not in (0, 3, 4):
        raise RuntimeError(f"trustvlm {words}: {err}")
    return out, err


def loaded_fixtures(folder: Path) -> dict[str, Any]:
    """Return what reading a copy of the fixtures gives; the copy is changed."""
    before, cache = Path.cwd(), os.environ.get("TRUSTVLM_CACHE")
    os.chdir(folder)
    os.environ["TRUSTVLM_CACHE"] = str(folder / "store")
    try:
        said: dict[str, Any] = {}
        n_stored = stored_embeddings(folder)
        done(["predict", "demo.trust", "pictures", "-o", "new.jsonl"])
        said["predict"] = rows_of(Path("new.jsonl"))
        said["embeddings in the store"] = [n_stored, stored_embeddings(folder)]
        given = ["evaluation.json", "evaluation.json", "--score-b", "msp", "--resamples", "200"]
        done(["report", "compare", *given, "--json", "compared.json"])
        said["compare"] = json.loads(Path("compared.json").read_text("utf-8"))
        done(["evaluate", "demo.trust", "pictures", "--json", "again.json"])
        rows = json.loads(Path("again.json").read_text("utf-8"))["rows"]
        said["evaluate"] = {row["score"]: row for row in rows}
        done(["monitor", "demo.trust", "pictures", "--state", "state.json", "--json", "m.json"])
        said["monitor"] = json.loads(Path("m.json").read_text("utf-8"))
        done(["predict", "demo.trust", "pictures", "-o", "bulk/", "--part-size", "2"])
        from pyarrow import parquet

        parts = [
            parquet.ParquetFile(file).read() for file in sorted(Path("bulk").glob("*.parquet"))
        ]
        said["bulk"] = [row for part in parts for row in part.to_pylist()]
        summary = json.loads(Path("bulk", "_trustvlm", "summary.json").read_text("utf-8"))
        said["bulk images now"] = [summary["images"], summary["images_now"]]
        done(["corrections", "demo.feedback.sqlite", "-o", "corrected"])
        labels = Path("corrected", "labels.csv").read_text("utf-8")
        said["corrections"] = sorted(labels.splitlines())
        return said
    finally:
        os.chdir(before)
        if cache is None:
            del os.environ["TRUSTVLM_CACHE"]
        else:
            os.environ["TRUSTVLM_CACHE"] = cache


def rows_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def stored_embeddings(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "store" / "embeddings.sqlite")) as database:
        return int(database.execute("SELECT count(*) FROM embeddings").fetchone()[0])


# ---- the tool


def sections(
    data: Path, embeddings: list[Path]
) -> dict[str, tuple[Callable[..., None], tuple[Any, ...]]]:
    """Return what to write by name, each in a process of its own."""
    work: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {}
    for name in SETS:
        if (data / name).is_dir():
            work[f"sets/{name}"] = (write_set, (data / name, name == SETS[0]))
    if (data / "eurosat").is_dir():
        work["study"] = (write_study, (data / "eurosat",))
    for folder in embeddings:
        for file in sorted(folder.glob("*__train.npz"), key=lambda file: -file.stat().st_size):
            # This one has 397 classes and takes as long as all others.
            if not file.name.startswith("sun397"):
                work[f"arrays/{file.stem.removesuffix('__train')}"] = (write_arrays, (file,))
    work["commands"] = (write_commands, ())
    work["service"] = (write_service, ())
    work["generated"] = (write_generated, ())
    return work


def write_section(
    name: str, function: Callable[..., None], arguments: tuple[Any, ...], out: Path
) -> float:
    start = time.monotonic()
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="frozen-") as temporary:
        # Data sets are called after the last folders of their path.
        work = Path(temporary, "work").resolve()
        work.mkdir()
        os.chdir(work)
        try:
            function(Record(out / name), *arguments)
        finally:
            os.chdir(before)
    return time.monotonic() - start


def write(out: Path, data: Path, embeddings: list[Path], cache: Path | None, only: str) -> None:
    """Write every section into a folder, two at a time."""
    if out.exists() and any(out.iterdir()):
        sys.exit(f"Expected {out} to be new or empty.")
    out.mkdir(parents=True, exist_ok=True)
    work = {
        name: task for name, task in sections(data, embeddings).items() if re.search(only, name)
    }
    with contextlib.ExitStack() as stack:
        kept = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["TRUSTVLM_CACHE"] = str(kept.resolve())
        # Fresh processes: nothing that one section imports or keeps changes another.
        pool = stack.enter_context(
            ProcessPoolExecutor(
                2, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
            )
        )
        running = {
            pool.submit(write_section, name, *task, out.resolve()): name
            for name, task in work.items()
        }
        for future in as_completed(running):
            sys.stderr.write(f"{running[future]}: {future.result():.1f} s\n")


def differences(old: Path, new: Path, lines: int = 20, any_order: bool = False) -> list[str]:
    """Return a text about each file that differs: the first lines of a unified diff.

    With `any_order`, files with the same lines in another order are the same.
    """
    files = {
        file.relative_to(folder).as_posix()
        for folder in (old, new)
        for file in folder.rglob("*")
        if file.is_file()
    }
    said = []
    for name in sorted(files):
        if not (old / name).exists():
            said.append(f"only in {new}: {name}\n")
        elif not (new / name).exists():
            said.append(f"only in {old}: {name}\n")
        elif (old / name).read_bytes() != (new / name).read_bytes():
            before, after = (
                (folder / name).read_text("utf-8").splitlines() for folder in (old, new)
            )
            if any_order and in_order(before) == in_order(after):
                continue
            diff = list(
                difflib.unified_diff(before, after, f"old/{name}", f"new/{name}", "", "", 1, "")
            )
            more = [f"... and {len(diff) - lines} more lines"] if len(diff) > lines else []
            said.append("".join(f"{line[:300]}\n" for line in [*diff[:lines], *more]))
    return said


def use_code(source: Path) -> None:
    """Run the code of this folder, here and in processes that are started, and say which it is."""
    sys.path.insert(0, str(source))
    os.environ.update(ENVIRONMENT)
    os.environ["PYTHONPATH"] = str(source)
    import trustvlm

    if source not in Path(trustvlm.__file__).parents:
        sys.exit(f"Expected `trustvlm` in {source}, but got {trustvlm.__file__}.")
    sys.stderr.write(f"trustvlm in {source}\n")


def in_order(lines: list[str]) -> list[str]:
    return sorted(line.rstrip(",") for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="write what the software puts out")
    writing.add_argument("out", type=Path)
    writing.add_argument("--data", type=Path, default=SHARED / "data")
    writing.add_argument(
        "--embeddings",
        type=Path,
        nargs="*",
        default=[SHARED / "embeddings", SHARED / "embeddings_clip"],
    )
    writing.add_argument("--cache", type=Path, help="store of embeddings; a fresh one by default")
    writing.add_argument("--only", default="", help="only sections whose name matches this pattern")
    comparing = commands.add_parser(
        "compare", help="say what differs; exit code 1 if anything does"
    )
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--lines", type=int, default=20, help="shown of each difference")
    comparing.add_argument("--any-order", action="store_true", help="of the lines in a file")
    making = commands.add_parser("make-fixtures", help="write files that later versions must read")
    making.add_argument("folder", type=Path)
    for command in (writing, making):
        command.add_argument("--src", type=Path, default=SOURCE, help="the code to run")
    given = parser.parse_args()
    if given.command != "compare":
        use_code(given.src.resolve())
    if given.command == "write":
        folders = [folder.resolve() for folder in given.embeddings]
        write(given.out, given.data.resolve(), folders, given.cache, given.only)
    elif given.command == "compare":
        said = differences(given.old, given.new, given.lines, given.any_order)
        sys.stdout.write("\n".join([*said, f"{len(said)} files differ\n"]))
        sys.exit(bool(said))
    else:
        make_fixtures(given.folder)


if __name__ == "__main__":
    main()
