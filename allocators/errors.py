"""What an allocator raises: an engine has called it wrongly, or it has gone wrong itself.  A refusal is no error."""


class AllocatorError(Exception):
    """A verb was called in a way that no correct engine would; nothing was changed."""


class CorruptionError(AllocatorError):
    """`Allocator.check` found an invariant broken."""
