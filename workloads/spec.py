"""The types of values in a workload file.

Every block of the file is a frozen pydantic model that rejects unknown keys.  Values are not converted:
`"12"` is not a number, `true` is not 1, and NaN is not accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializationInfo,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from workloads.docs import field_docs
from workloads.paths import as_path, is_bare, is_file, is_folder, is_there, led

SHIPPED = Path(__file__).parent / "data"
"""Data files that come with kvsim; a file name that is not found beside the workload is looked up here."""
FEW = 4
"""Files of a folder that are named to who named the folder."""


class Spec(BaseModel):
    """One block of a workload file."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),
    )

    shorthand: ClassVar[str | None] = None
    """Field that is meant where the file has a bare word or number in place of the mapping."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, given: Any) -> Any:
        if cls.shorthand is not None and isinstance(given, str | int | float):
            return {cls.shorthand: given}
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each field by the docstring under it, and let editors accept the shorthand too."""
        schema = handler(core)
        fields = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docs(cls).items():
            if name in fields:
                fields[name]["description"] = text
        if cls.shorthand is None:
            return schema
        short = fields[cls.shorthand]
        kinds = [kind["type"] for kind in short.get("anyOf", [short]) if kind.get("type") != "null"]
        return {"anyOf": [*({"type": kind} for kind in kinds), schema]}


class ByKind:
    """Marks a union of blocks that their `kind` tells apart, of which a file names few.

    pydantic would prepare all of them to validate one; here each is prepared when its kind is first named.
    """

    def __get_pydantic_core_schema__(self, union: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Choose by `kind`."""
        kinds = {
            kind: handler.generate_schema(Annotated[Any, _Named(block)])
            for block in get_args(union)
            for kind in get_args(block.model_fields["kind"].annotation)
        }
        return core_schema.tagged_union_schema(kinds, discriminator="kind")


class _Named(NamedTuple):
    """A block of such a union, which validates and writes itself."""

    block: type[Spec]

    def __get_pydantic_core_schema__(self, _any: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda given, info: self.block.model_validate(given, context=info.context),
            serialization=core_schema.plain_serializer_function_ser_schema(_written, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, _core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe it once, under a name of its own."""
        self.block.model_rebuild()
        name = f"{self.block.__module__}.{self.block.__qualname__}:{id(self.block)}"
        return handler(core_schema.definitions_schema({**self.block.__pydantic_core_schema__, "ref": name}, []))


def _written(block: Spec, info: SerializationInfo) -> dict[str, Any]:
    return block.model_dump(mode=info.mode, exclude_none=info.exclude_none, exclude_unset=info.exclude_unset)


def _folders(info: ValidationInfo) -> tuple[Path, ...]:
    """Return where relative paths may start from, most likely first; this folder if nothing else is said."""
    folders: tuple[Path, ...] = (info.context or {}).get("folders", (Path(),))
    return folders


def _resolve(name: str, info: ValidationInfo) -> str:
    """Find a data file beside the workload file, else among the shipped ones."""
    folder, *others = _folders(info)
    for path in (led(folder, name), *(led(other, name) for other in others), SHIPPED / name):
        if is_file(path):
            return str(path)
    if is_folder(led(folder, name)):
        files = sorted(path.name for path in led(folder, name).iterdir() if path.is_file())
        there = ", ".join(files[:FEW]) + (", ..." if len(files) > FEW else "") or "no files"
        raise ValueError(f"{name} is a folder, with {there} in it: name one file")
    raise ValueError(f"no such file: {name} (looked in {folder.resolve()} and among the shipped data)")


def _beside(name: str, info: ValidationInfo) -> str:
    """Lead a path to its place beside the workload file; leave a bare name alone."""
    path = led(_folders(info)[0], name)
    return as_path(path) if not is_bare(name) and is_there(path) else name


DataPath: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_resolve)]
"""A file, relative to the folder of the workload file, or the name of a shipped data file."""

ModelName: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_beside)]
"""A name that `sim` knows, or a path relative to the folder of the workload file."""

CalibrationName: TypeAlias = ModelName
"""Likewise, of a calibration."""

Count: TypeAlias = Annotated[int, Field(ge=1)]
"""At least one of something."""

Positive: TypeAlias = Annotated[float, Field(gt=0)]
"""More than nothing."""

NotNegative: TypeAlias = Annotated[float, Field(ge=0)]
"""Nothing, or more."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, 0 to 1."""
