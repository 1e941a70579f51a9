"""Classes for torch's operations, one file per family. Importing them fills the registry."""

from blitz_helpers.trace.ops import (  # noqa: F401  # imported for what they register
    attention,
    joins,
    lookups,
    norms,
    pointwise,
    pools,
    products,
    resizing,
    views,
    windows,
)
