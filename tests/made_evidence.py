"""Evidence of classes that can be told apart, made at random."""

import numpy as np


def case(seed, n=40, n_classes=4, d=8, per_class=5, absent=(), signal=2.0, shift=0.0):
    """Classes with means of their own in image space, and logits that know a little of them."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_classes, d))
    truth = rng.integers(n_classes, size=n)
    labels = np.array([c for c in np.repeat(np.arange(n_classes), per_class) if c not in absent])

    def seen(classes, moved=0.0):
        return signal * means[classes] + rng.normal(size=(len(classes), d)) + 0.5 + moved

    def text_logits(classes):
        return 1.5 * np.eye(n_classes)[classes] + rng.normal(size=(len(classes), n_classes))

    evidence = {
        "logits": text_logits(truth),
        "features": seen(truth, shift),
        "support_features": seen(labels),
        "support_labels": labels,
        "support_logits": text_logits(labels),
    }
    return evidence, truth
