"""Fine-tuning of prototypes on a torch device, step for step as `scores.finetuning` does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from trustvlm.extras import require
from trustvlm.scores import PrototypeBank
from trustvlm.scores.finetuning import FineTuned, Recipe, checked_shots, finetune_prototypes

__all__ = ["finetune_on"]


def finetune_on(
    device: str,
    bank: PrototypeBank,
    features: ArrayLike,
    labels: ArrayLike,
    recipe: Recipe | None = None,
) -> FineTuned:
    """Fine-tune prototypes on a torch device, such as `cuda`, where classes are thousands.

    The steps, the order of the shots and the results up to rounding are those of
    `scores.finetuning.finetune_prototypes`, in float64.

    Raises
    ------
    InputError
        As there.
    MissingExtraError
        If torch is not installed.
    """
    recipe = recipe or Recipe()
    shots, index = checked_shots(bank, features, labels)
    if not len(shots):
        return finetune_prototypes(bank, features, labels, recipe)
    torch = require("torch", extra="torch", purpose="Fine-tuning on a torch device")
    present = bank.present_
    learned = torch.tensor(bank.prototypes_[present], device=device, requires_grad=True)
    x, y = torch.tensor(shots, device=device), torch.tensor(index, device=device)
    optimiser = torch.optim.AdamW(
        [learned],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
    )
    losses = np.zeros(recipe.epochs)
    for epoch, rate, batch in recipe.steps(len(shots)):
        chosen = torch.tensor(batch, device=device)
        prototypes = torch.nn.functional.normalize(learned, dim=1)
        logits = x[chosen] @ prototypes.T / recipe.temperature
        loss = torch.nn.functional.cross_entropy(logits, y[chosen])
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[epoch] += float(loss.detach()) * len(batch) / len(shots)
    result = np.zeros_like(bank.prototypes_)
    result[present] = learned.detach().cpu().numpy()
    return FineTuned(bank.with_prototypes(result), losses)
