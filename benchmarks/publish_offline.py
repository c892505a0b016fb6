"""Make docs/results.md, its figures and its page anew, from the study of the offline models.

    python benchmarks/publish_offline.py [CONFIG.toml] [--docs docs]

Needs the image folders that the study names. Embeddings come from the store and finished cells from
the study's folder, so that only what is new is computed. The same results give the same files.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from trustvlm.benchmark.analysis import Analysis, analyse
from trustvlm.benchmark.captions import findings
from trustvlm.benchmark.config import read_config
from trustvlm.benchmark.grid import Grid, run_grid
from trustvlm.benchmark.page import main_metric, sections, write_page
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.studies import STUDIES, StudySettings
from trustvlm.benchmark.studies.study import ReportSection
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.files import write_text
from trustvlm.plots.figure import Figure
from trustvlm.tables import markup
from trustvlm.tables.table import Table

METRICS = ("accuracy", "aurc", "auroc", "fpr95")
# Each data set and each class have tables of their own on the full page, which is too large here.
LEFT_OUT = ("datasets", "classes")

HEAD = """# Results with the offline models

These numbers are of **weak stand-in models, not of CLIP**, SigLIP, DINOv2 or MoCo v2, whose weights
were not at hand, and of **samples of the data sets**. They say how the scores compare on the same
images and shots; they compare with no table of the paper.

* The model that predicts: EfficientNet-Lite0's ImageNet softmax and the sentence encoder MiniLM,
  joined without training by ConSE (`--vlm offline`).
* The encoder that verifies: EfficientNet-Lite2, trained on ImageNet's labels (`vision =
  "offline"`); or the first model's own image vectors (`vision = "same"`).
* The images: the test splits of eight image sets, and six splits of other domains (Office-Caltech,
  PACS); shots are drawn from their training splits.
* Weight 1 and temperature 0.01 everywhere, tuned for nothing. What a score selects or learns, it
  selects and learns on the shots. `auto_adapted`, `auto_unlabelled` and their stars look at the
  whole unlabelled batch of test images at once.
* The scores whose names begin with `auto` are this project's own, and were developed while results
  on these very sets were in view: expect less of them elsewhere. The others are published methods
  with their defaults.

Made by `make results` from [examples/offline-sets.toml](../examples/offline-sets.toml), which
needs the image sets beside the repository; [Compare confidence scores](compare-scores.md) says what
such a study may hold. Everything is on [one page](results/offline-sets/index.html) to browse:
download it and open it. The best of a column is in bold, and the second best in italics, only where
a paired test says so.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path, nargs="?", default=Path("examples/offline-sets.toml"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    study = read_config(options.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)  # a set may have fewer shots of a class
        grid = run_grid(study)
    results = Results(grid.rows, grid.samples, grid.classes, convention=study.convention)
    folder = options.docs / "results" / "offline-sets"
    shutil.rmtree(folder, ignore_errors=True)
    shown = {setting: grid.studies.sections(setting) for setting in results.settings}
    write_page(
        results,
        folder,
        title=f"{study.name}: not CLIP",
        notes=grid.notes,
        studies=shown,
        metrics=METRICS,
        alone=True,
        without=LEFT_OUT,
    )
    text = "\n".join(document(results, grid, folder, options.docs))
    write_text(options.docs / "results.md", text.rstrip() + "\n")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{options.docs / 'results.md'}, {folder}: {size / 1e6:.2f} MB")


def document(results: Results, grid: Grid, folder: Path, docs: Path) -> Iterable[str]:
    analyses = [analyse(results.of(setting), METRICS) for setting in results.settings]
    first = analyses[0]
    by_name = {s.name: s for s in [*sections(first), *grid.studies.sections(results.settings[0])]}
    yield HEAD
    yield "## Which scores lead\n"
    yield verified(first) + " " + " ".join(findings(first, main_metric(first))) + "\n"
    yield from pictures(by_name["ranks"].figures, folder, docs)
    for analysis in analyses:
        overview = next(t for s in sections(analysis) for t in s.tables if t.name == "overview")
        yield table(overview, verified(analysis))
    yield table(by_name["metrics"].tables[1], verified(first))
    yield table(next(t for t in by_name["metrics"].folded if t.name == "auroc"), verified(first))
    yield from section(by_name["modalities"], folder, docs)
    yield from section(by_name["shots"], folder, docs, by_name["shots"].figures[:1])
    yield from section(encoders(results), folder, docs)
    # A panel for each data set makes figures large: those are on the page.
    yield from section(by_name["sensitivity"], folder, docs, by_name["sensitivity"].figures[:1])
    yield from section(by_name["shift"], folder, docs)
    yield from section(by_name["missing"], folder, docs)
    yield from section(by_name["gain"], folder, docs, ())


def encoders(results: Results) -> ReportSection:
    scores = ("trustvlm", "trustvlm_star")
    rows = [r for r in results.rows if r["shots"] == results.largest and r["score"] in scores]
    return STUDIES["encoders"].show(rows, StudySettings(convention=results.convention))


def section(
    part: ReportSection, folder: Path, docs: Path, drawings: Sequence[Figure] | None = None
) -> Iterable[str]:
    yield f"## {part.title}\n\n{markup.escape_markdown(part.text)}\n"
    yield from pictures(part.figures if drawings is None else drawings, folder, docs)
    for one in part.tables:
        yield table(one)


def pictures(drawings: Iterable[Figure], folder: Path, docs: Path) -> Iterable[str]:
    for drawing in drawings:
        file = folder / "figures" / f"{drawing.name}.svg"
        drawing.save(file)
        yield f"![{markup.escape_markdown(drawing.title)}]({file.relative_to(docs).as_posix()})\n"
        yield markup.escape_markdown(drawing.caption) + "\n"


def table(content: Table, about: str = "") -> str:
    heading, _, rest = markup.render_markdown(content).partition("\n\n")
    return f"{heading}\n\n{about + chr(10) * 2 if about else ''}{rest}"


def verified(analysis: Analysis) -> str:
    setting = analysis.results.settings[0]
    return f"`{setting.vlm}` verified by `{setting.vision}`."


if __name__ == "__main__":
    main()
