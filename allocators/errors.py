"""The errors that an allocator raises: it has been misused, or its state is corrupt.  A refusal is not an error."""


class AllocatorError(Exception):
    """A verb was called in a way that no correct engine would; nothing was changed."""


class CorruptionError(AllocatorError):
    """`Allocator.check` found an invariant broken."""
