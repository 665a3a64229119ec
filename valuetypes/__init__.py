"""What values are made of: `from valuetypes import dataclass`, with the words and the rules of the standard library's.

A type checker sees the standard library's. What runs (`valuetypes.made`) defines a class without compiling anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
else:
    from valuetypes.made import asdict, dataclass, field, fields, is_dataclass, replace

__all__ = ["asdict", "dataclass", "field", "fields", "is_dataclass", "replace"]
