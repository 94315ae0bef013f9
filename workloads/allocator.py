"""One entry of a workload's list of allocators.

Which options an allocator has is declared beside it (`allocators.registry`, plug-ins
included); this module only carries those declarations into the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from allocators.errors import AllocatorError
from allocators.options import Value, meant
from allocators.plugins import SCHEDULERS as PLUGINS
from allocators.plugins import declared
from allocators.registry import find
from workloads.spec import Spec
from workloads.values import shown

Fault: TypeAlias = tuple[Literal["bad_option", "unknown_option"], str, Any, str]
"""What is wrong: the kind of fault, the key, its value, and the message."""

SCHEDULERS = ("static", "orca", "vllm-v0", "vllm-v1")
"""Those that come with the simulator; other packages may add some."""


def _scheduler(name: str) -> str:
    """Check that there is a scheduler of some name."""
    if name in SCHEDULERS:
        return name
    known = [*SCHEDULERS, *(plugin for plugin in declared(PLUGINS) if plugin not in SCHEDULERS)]
    if name not in known:
        why = f"must be one of {', '.join(known)}, got {shown(name)}{meant(name, known)}"
        raise PydanticCustomError("unknown_scheduler", "{why}", {"why": why})
    return name


Scheduler: TypeAlias = Annotated[
    str, AfterValidator(_scheduler), WithJsonSchema({"enum": [*SCHEDULERS], "type": "string"})
]
Preemption: TypeAlias = Literal["recompute", "swap"]


class AllocatorSpec(Spec):
    """An allocator, its options, and what differs for it from the rest of the file; a bare word is its kind."""

    shorthand: ClassVar[str] = "kind"
    model_config = ConfigDict(extra="allow")

    kind: str
    """Kind of the allocator (`sim list allocators`)."""
    label: str | None = Field(default=None, min_length=1, max_length=80)
    """Name in reports; made of kind and options if not given."""
    scheduler: Scheduler | None = None
    """Scheduler for this allocator, instead of the engine's."""
    preemption: Preemption | None = None
    """What becomes of a preempted request's K/V, instead of the engine's `preemption`."""

    @property
    def options(self) -> dict[str, Value]:
        """The allocator's own options that the file sets."""
        return dict(self.__pydantic_extra__ or {})

    @model_serializer(mode="wrap")
    def _with_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep options that the file sets to null, which is not to leave them out: then a fact may take their place."""
        unset = {name: None for name, value in self.options.items() if value is None}
        return {**write(self), **unset}

    @model_validator(mode="before")
    @classmethod
    def _check_options(cls, given: Any) -> Any:
        """Check every option against the allocator's declaration."""
        given = {"kind": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping) or not isinstance(kind := given.get("kind"), str):
            return given
        try:
            options = find(kind).options
        except AllocatorError as error:
            raise _error([("bad_option", "kind", kind, str(error))]) from None
        faults: list[Fault] = []
        for name, value in given.items():
            if name in cls.model_fields:
                continue
            if not isinstance(name, str) or name not in options:
                known = [*options, *cls.model_fields]
                hint = meant(name, known) or f"; known: {', '.join(known)}"
                faults.append(("unknown_option", str(name), value, f"unknown key{hint}"))
            elif fault := options[name].fault(value):
                faults.append(("bad_option", name, value, f"{fault}, got {shown(value)}"))
        if faults:
            raise _error(faults)
        return given


def _error(faults: list[Fault]) -> ValidationError:
    """Make one error of several faults."""
    return ValidationError.from_exception_data(
        "allocator",
        [
            InitErrorDetails(type=PydanticCustomError(kind, "{why}", {"why": why}), loc=(name,), input=value)
            for kind, name, value, why in faults
        ],
    )
