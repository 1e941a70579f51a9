"""Classes for torch's operations, one file per family. Importing a file registers its classes.

Most networks need these. The others are loaded when an operation is met that these do not know.
"""

from blitz_helpers.trace.ops import (  # noqa: F401  # imported for what they register
    pointwise,
    pools,
    products,
    views,
    windows,
)
