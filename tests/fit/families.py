"""All model families, by name."""

from __future__ import annotations

import chatml_families
import deepseek_families
import llama_families
import other_families
from family import Family

FAMILIES: dict[str, Family] = {
    **chatml_families.FAMILIES,
    **llama_families.FAMILIES,
    **deepseek_families.FAMILIES,
    **other_families.FAMILIES,
}
