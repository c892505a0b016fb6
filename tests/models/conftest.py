"""Before any library that runs models is imported."""

from __future__ import annotations

from torchvision_schemas import declare_schemas

declare_schemas()
