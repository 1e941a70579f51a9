"""The order in which remedies are tried: what users most often mean comes first."""

from __future__ import annotations


class Cost:
    """The costs of the changes. A candidate of lower cost is tried, and printed, before others."""

    # Slips in the code at the call that failed.
    BATCH_KEPT = 1  # -1 in place of a batch that was written out
    COPY = 2  # reshape in place of view
    FLAT = CONVERT = IMAGES = MODE = EXPORTED = 3
    WIDEN = FLATTEN = SIDES_OF_VIEW = LARGER_BATCH = 4
    ORDER = LONGER_TABLE = 5
    MOVE, SWAP = 5.2, 5.5
    SQUEEZE = CONVERT_OTHER = 6
    FLATTEN_ALL = CHANNELS_OF_VIEW = 7
    # The layer that failed, the input, and the layers before.
    TAKES = 8
    SETTINGS = UNBATCHED = 9
    SIDES = 10
    FEATURES = PAD = 11
    MAKES = WIDEN_BETWEEN = 12
    PARAMETER = 13
    CUT_PARAMETER = 14
    # Operands made equal by force.
    STRIDED = 14.5
    INTERPOLATE = 15
    CROP = MEETING = 16
    PROJECT = 17
    PAD_FAR = 18
    PROJECT_DOWN = 20
    # Slips that may have nothing to do with this failure, and guesses.
    SLIP = 26
    OTHER_SLIP = 28
    OTHER_MODE = 30
    GUESS = 70
