"""A part: the piece of a bulk job that is computed, written and counted as one."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trustvlm.environment import require
from trustvlm.images import ImageShard
from trustvlm.images.references import Skipped
from trustvlm.pipeline.runs import RunSums
from trustvlm.pipeline.verdict import Verdict, Verdicts


@dataclass(frozen=True)
class Part:
    """Which images to predict on.

    Parameters
    ----------
    number
        Position of the shard in the input.
    shard
        Where the images are.
    start, size
        Position of the first image in the shard, and how many at most.
    """

    number: int
    shard: ImageShard
    start: int
    size: int

    @property
    def key(self) -> tuple[int, int]:
        """What tells a part from the others of its job."""
        return self.number, self.start

    def next(self) -> Part:
        """Return the part after this one in the same shard."""
        return Part(self.number, self.shard, self.start + self.size, self.size)

    @property
    def file_name(self) -> str:
        """Name of the file with its verdicts; the names sort in input order.

        Examples
        --------
        >>> from trustvlm.images.references import FileShard
        >>> Part(2, FileShard("photos", ()), 4096, 2048).file_name
        'part-000002-000002.parquet'
        """
        return f"part-{self.number:06d}-{self.start // self.size:06d}.parquet"


@dataclass(frozen=True)
class FinishedPart:
    """The verdicts on a part, ready to be written.

    Attributes
    ----------
    number, start
        As in `Part`.
    n_images
        How many images there were: `size`, or fewer at the end of a shard.
    last
        Whether the shard ends here.
    content
        A Parquet file; b"" without images.
    decisions, errors
        Counts by decision and, of the errors, by kind.
    seconds
        By stage of the computing, as `Profile` has them.
    skipped
        Members of an archive that were passed over, where it ends.
    """

    number: int
    start: int
    n_images: int
    last: bool
    content: bytes = field(repr=False)
    decisions: dict[str, int]
    errors: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    skipped: Skipped = field(default_factory=Skipped, compare=False)


SUMS = "trustvlm.part"
"""Key of the sums over a part's images in the metadata of its file: `RunSums.to_dict`."""


def part_content(verdicts: Verdicts, sums: RunSums) -> bytes:
    """Return verdicts as a Parquet file, the same bytes for the same verdicts; b"" for none."""
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Bulk output")
    if not len(verdicts):
        return b""
    table, content = verdicts.to_arrow(), io.BytesIO()
    metadata = {**(table.schema.metadata or {}), SUMS: json.dumps(sums.to_dict())}
    parquet.write_table(table.replace_schema_metadata(metadata), content, compression="zstd")
    return content.getvalue()


def finished_part(
    part: Part,
    verdicts: Sequence[Verdict],
    kinds: Sequence[str],
    *,
    sums: RunSums,
    last: bool,
    seconds: Mapping[str, float],
    skipped: Skipped,
) -> FinishedPart:
    """Say what a part came to; its decisions are those of its images one by one."""
    return FinishedPart(
        number=part.number,
        start=part.start,
        n_images=len(verdicts),
        last=last,
        content=part_content(Verdicts(verdicts), sums),
        decisions=dict(Counter(verdict.decision for verdict in verdicts)),
        errors=dict(Counter(kinds)),
        seconds=dict(seconds),
        skipped=skipped,
    )
