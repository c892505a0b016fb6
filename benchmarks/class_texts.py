"""Classes whose texts are nearly one: how near, and whether the text tells their images apart.

    python benchmarks/class_texts.py EMBEDDINGS_CLIP

EMBEDDINGS_CLIP holds `<set>__train.npz` and `<set>__test.npz` of a CLIP, as `trustvlm bench arrays`
reads them. Of every pair of classes of a set whose texts have a cosine over 0.95 it prints the
cosine, and the share of their images, of train and test, that lie nearer to the text of their own
class than to that of the other; guessing gives 50 %.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from trustvlm.benchmark import load_arrays
from trustvlm.scores.arrays import unit_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--above", type=float, default=0.95)
    options = parser.parse_args()
    n_pairs, near = 0, []
    for file in sorted(options.embeddings.glob("*__test.npz")):
        test = load_arrays(file)
        train = load_arrays(file.with_name(file.name.replace("__test", "__train")))
        texts = unit_rows(np.asarray(test.text_embeddings, dtype=float))
        cosines = texts @ texts.T
        images = [np.asarray(part.image_embeddings, dtype=float) for part in (train, test)]
        agreement = unit_rows(np.concatenate(images)) @ texts.T
        labels = np.concatenate([train.labels, test.labels])
        for one, other in combinations(range(len(texts)), 2):
            n_pairs += 1
            if cosines[one, other] > options.above:
                margin = agreement[:, one] - agreement[:, other]
                right = np.concatenate([margin[labels == one] > 0, margin[labels == other] < 0])
                names = (test.class_names[one], test.class_names[other])
                near.append((cosines[one, other], right.mean(), len(right), names))
    print(f"{n_pairs} pairs of classes; with a cosine over {options.above}:")
    for cosine, share, n, (one, other) in sorted(near, reverse=True):
        print(f"  {cosine:.3f}  {share:5.1%} of {n} images told apart  {one} / {other}")


if __name__ == "__main__":
    main()
