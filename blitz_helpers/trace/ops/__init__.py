"""What is known of torch's operations, one file a family; importing them fills the registry."""

from blitz_helpers.trace.ops import (
    attention,
    joins,
    lookups,
    norms,
    pointwise,
    pools,
    products,
    recurrent,
    resizing,
    views,
    windows,
)

__all__ = [
    "attention",
    "joins",
    "lookups",
    "norms",
    "pointwise",
    "pools",
    "products",
    "recurrent",
    "resizing",
    "views",
    "windows",
]
