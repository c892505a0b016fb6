"""TrustVLM*(F): prototypes that go on learning from the shots they were made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.extras import require
from trustvlm.scores import PrototypeBank
from trustvlm.scores.arrays import as_labels, as_nonzero_rows
from trustvlm.scores.zero_shot import unit_rows

__all__ = ["FineTuned", "finetune_prototypes"]


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gave.

    Attributes
    ----------
    bank
        The bank with the learned prototypes; its shots and counts are those of the original.
    losses
        `(epochs,)` mean cross-entropy on the shots, in nats, one per epoch.
    """

    bank: PrototypeBank
    losses: NDArray[np.float64]


def finetune_prototypes(
    bank: PrototypeBank,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float = 0.01,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    seed: int = 0,
    device: str = "cpu",
) -> FineTuned:
    """Fine-tune prototypes, and nothing else, on the shots.

    They start at the bank's, and minimise the cross-entropy of softmax(S / T), S the cosines of
    the shots with all prototypes, by AdamW (eps 1e-4) with cosine decay over a fixed number of
    epochs. No epoch is chosen by any result. Classes without shots stay as they are: absent.

    Parameters
    ----------
    bank
        Prototypes fitted on the same shots.
    features, labels
        `(m, d)` un-normalised features and `(m,)` class indices of the shots.
    temperature
        T.
    epochs, learning_rate, batch_size
        Of the optimisation.
    seed
        Of the order of shots within an epoch; the same seed gives the same prototypes.
    device
        A torch device.

    Raises
    ------
    InputError
        For arrays that do not fit, or parameters out of range.
    MissingExtraError
        If torch is not installed.

    Notes
    -----
    The paper (arXiv 2505.23745) names the variant and not its details; these are our choice.
    """
    if not (temperature > 0 and epochs >= 1 and learning_rate > 0 and batch_size >= 1):
        raise InputError(
            "Expected `temperature`, `epochs`, `learning_rate` and `batch_size` to be positive, "
            f"but got {temperature}, {epochs}, {learning_rate} and {batch_size}."
        )
    shots = unit_rows(as_nonzero_rows(features, "features"))
    index = as_labels(labels, "labels", n_classes=bank.n_classes, n=len(shots))
    present = bank.present_
    if not len(shots) or not present[index].all() or shots.shape[1] != bank.dim:
        raise InputError("Expected the shots that the bank was fitted on, but got others.")
    torch = require("torch", extra="torch", purpose="Fine-tuning prototypes")
    generator = torch.Generator().manual_seed(seed)
    learned = torch.tensor(bank.prototypes_[present], device=device, requires_grad=True)
    x = torch.tensor(shots, device=device)
    y = torch.tensor((np.cumsum(present) - 1)[index], device=device)
    steps = epochs * -(-len(x) // batch_size)
    optimiser = torch.optim.AdamW([learned], lr=learning_rate, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            prototypes = torch.nn.functional.normalize(learned, dim=1)
            logits = x[batch.to(device)] @ prototypes.T / temperature
            loss = torch.nn.functional.cross_entropy(logits, y[batch.to(device)])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(x))
    result = np.zeros_like(bank.prototypes_)
    result[present] = learned.detach().cpu().numpy()
    return FineTuned(bank.with_prototypes(result), np.array(losses))
