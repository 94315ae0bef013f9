"""YAML as plain data that remembers where everything stood.

YAML 1.2 through ruamel.yaml's composer: `1e3` is a number, `on` is a word, no tag runs
code.  The nodes keep line and column, so that an error found later, by path, can be traced
back to the text.  What overrides (`--set a.b=value`) put into the data, or take out of it, is
remembered too.
"""

from __future__ import annotations

from copy import copy
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from workloads.errors import WorkloadError
from workloads.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Step: TypeAlias = str | int
Where: TypeAlias = tuple[Step, ...]

LARGEST = 256 << 10
"""Bytes; a workload file is a page of text, and a data file given by mistake should fail at once."""
WIDTH = 100
_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset({"null", "bool", "int", "float"})
_GONE = "(gone)"
"""Stands in a list, after its entries, for those that were taken out."""


class Place(NamedTuple):
    """Where something stands: for sorting, and as text."""

    line: int
    column: int
    text: str
    """`file:line:col`, or `--set key=value`."""


class Origin(NamedTuple):
    """A place in another document, where a value comes from."""

    document: Document
    where: Where
    about: str
    """What it is there: what messages say behind the place."""


class Document:
    """A YAML text, its data, and the way back from a path in the data to the text."""

    def __init__(self, text: str, name: str) -> None:
        """Parse `text`; `name` is what messages call it.

        Raises:
            WorkloadError: the text is no YAML, or holds duplicate keys or unsupported tags.

        """
        self.name = name
        self._yaml = YAML(typ="safe", pure=True)
        self._faults: list[str] = []
        self._built: dict[int, Any] = {}
        self._overrides: dict[Where, str | Origin] = {}
        self._left: dict[Where, list[int]] = {}  # of a list that entries were taken out of: where the others stood
        try:
            self._root = self._yaml.compose(text)
            self.data: Any = self._build(self._root) if self._root is not None else None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            both = str(error.problem).startswith("but ")  # it goes on with the sentence that the context begins
            what = f"{error.context}, {error.problem}" if both else str(error.problem or error.context)
            raise WorkloadError(f"{self._at(mark)}: not valid YAML: {' '.join(what.split())}") from None
        except YAMLError as error:
            raise WorkloadError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise WorkloadError(f"{name}: not a workload: nested too deeply") from None
        if self._faults:
            raise WorkloadError(*self._faults)

    def copy(self) -> Document:
        """Return a document that may be overridden further, while this one stays as it is."""
        twin = copy(self)
        twin.data = _open(self.data)
        twin._overrides = dict(self._overrides)  # noqa: SLF001 - its own class
        twin._left = dict(self._left)  # noqa: SLF001 - its own class
        return twin

    def put(self, where: Where, value: Any, source: str | Origin) -> None:
        """Put a value in a place; messages about it name `source`, or the place in the document that it comes from.

        In the place of a list's entry None takes that out, and those behind it move up.

        Raises:
            WorkloadError: the way leads through something that has no parts.

        """
        here = self.data
        for depth, step in enumerate(where):
            last = depth == len(where) - 1
            if isinstance(here, list) and isinstance(step, int) and step < len(here):
                if last and value is None:
                    self._take_out(where[:-1], here, step)
                    where = (*where[:-1], _GONE)
                    break
                here[step] = value if last else _open(here[step], "kind")  # allocators are the only list of bare words
            elif isinstance(here, dict):
                step = str(step)  # noqa: PLW2901 - a key of digits is still a key
                here[step] = value if last else _open(here.get(step, {}))
            else:
                path = ".".join(map(str, where[: depth + 1]))
                have = f"a list of {len(here)}" if isinstance(here, list) else shown(here)
                raise WorkloadError(f"{said(source)}: there is no {path}: it would be inside {have}")
            here = here[step]
        self._overrides[where] = source

    def _take_out(self, path: Where, entries: list[Any], taken: int) -> None:
        """Take an entry out of the list at a path; what is remembered of those behind it moves up with them."""
        depth = len(path)

        def moved(places: dict[Where, Any]) -> dict[Where, Any]:
            found = {}
            for place, known in places.items():
                step = place[depth] if place[:depth] == path and len(place) > depth else _GONE
                if isinstance(step, int) and step > taken:
                    found[(*path, step - 1, *place[depth + 1 :])] = known
                elif step != taken:
                    found[place] = known
            return found

        stood = self._left.get(path, list(range(len(entries))))
        self._overrides = moved(self._overrides)
        self._left = moved(self._left) | {path: stood[:taken] + stood[taken + 1 :]}
        del entries[taken]

    def where(self, path: Sequence[Step], *, key: bool = False) -> Place:
        """Return where the value at `path` (or its key) stands, or the override that set it."""
        for depth in range(len(path), 0, -1):
            if source := self._overrides.get(tuple(path[:depth])):
                return _at(source, path[depth:], key=key)
        for place, source in self._overrides.items():
            if path and place[: len(path)] == tuple(path):  # it was made what it is by what was put inside it
                return _at(source, (), key=key)
        node = self._root
        mark = node.start_mark if node is not None else None
        for depth, step in enumerate(path):
            left = self._left.get(tuple(path[:depth]), [])
            found = self._child(node, left[step] if isinstance(step, int) and step < len(left) else step)
            if found is None:
                break
            key_node, node = found
            mark = (key_node if key and depth == len(path) - 1 else node).start_mark
        return Place(mark.line, mark.column, self._at(mark)) if mark is not None else Place(0, 0, self.name)

    def _at(self, mark: Any) -> str:
        """Write `file:line:col`."""
        return (
            self.name
            if mark is None or self.name.startswith("--")  # one line of a command
            else f"{self.name}:{mark.line + 1}:{mark.column + 1}"
        )

    def _build(self, node: Node) -> Any:
        """Turn a node into plain data; an alias is the same object again."""
        if id(node) in self._built:
            if self._built[id(node)] is node:
                self._faults.append(f"{self._at(node.start_mark)}: an alias must not refer to what holds it")
                return None
            return self._built[id(node)]
        self._built[id(node)] = node  # stands for "being built"
        data: Any = None
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            data = self._mapping(node)
        elif isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            data = [self._build(item) for item in node.value]
        elif isinstance(node, ScalarNode):
            data = self._scalar(node)
        else:
            self._faults.append(f"{self._at(node.start_mark)}: the tag {node.tag} has no place here")
        self._built[id(node)] = data
        return data

    def _scalar(self, node: ScalarNode) -> Any:
        tag = str(node.tag).removeprefix(_TAG)
        if tag in _SCALARS:
            try:
                return self._yaml.constructor.construct_object(node)
            except ValueError:
                self._faults.append(f"{self._at(node.start_mark)}: not a value: {shown(node.value)}")
                return None
        if tag not in {"str", "timestamp"}:
            self._faults.append(f"{self._at(node.start_mark)}: the tag {node.tag} has no place here")
        return node.value

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, Any] = {}
        for key, value in self._pairs(node):
            name = key.value
            if not isinstance(key, ScalarNode):
                self._faults.append(f"{self._at(key.start_mark)}: a key must be a word")
            elif name in first:
                line = first[name].line + 1
                self._faults.append(f"{self._at(key.start_mark)}: {name}: duplicate key (first on line {line})")
            else:
                first[name] = key.start_mark
                data[name] = self._build(value)
        for key, value in self._merged(node):
            data.setdefault(key.value, self._build(value))
        return data

    @staticmethod
    def _pairs(node: Node) -> Iterator[tuple[Node, Node]]:
        """Yield the entries of a mapping, merges left out."""
        return ((key, value) for key, value in node.value if key.tag != f"{_TAG}merge")

    def _merged(self, node: Node, depth: int = 0) -> Iterator[tuple[Node, Node]]:
        """Yield the entries that `<<` brings into a mapping, nearest first."""
        for key, value in node.value:
            if key.tag != f"{_TAG}merge":
                continue
            for other in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(other, MappingNode) or depth > 8:
                    self._faults.append(f"{self._at(key.start_mark)}: << takes an alias of a mapping")
                    return
                yield from self._pairs(other)
                yield from self._merged(other, depth + 1)

    def _child(self, node: Node | None, step: Step) -> tuple[Node, Node] | None:
        """Return the key and value nodes under `step`; a list item is its own key."""
        if isinstance(node, MappingNode):
            for key, value in [*self._pairs(node), *self._merged(node)]:
                if key.value == str(step):
                    return key, value
        if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            return node.value[step], node.value[step]
        return None


def said(source: str | Origin) -> str:
    """Say where a value comes from."""
    return source if isinstance(source, str) else f"{_at(source, (), key=True).text}: {source.about}"


def _at(source: str | Origin, inside: Sequence[Step], *, key: bool) -> Place:
    """Return where a value comes from, or what is inside it."""
    if isinstance(source, str):
        return Place(0, 0, source)
    return source.document.where((*source.where, *inside), key=key)


def _open(value: Any, word: str = "name") -> Any:
    """Return a copy that may be changed; a bare word becomes the mapping it stands for, in which it is the `word`."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return list(value)
    return {word: value} if isinstance(value, str) else value


def as_file(content: Mapping[str, Any]) -> str:
    """Write plain data as a workload file reads, in lines of up to `WIDTH` columns."""
    writer, text = YAML(), StringIO()
    writer.default_flow_style = None
    writer.width = WIDTH
    writer.dump(dict(content), text)
    return text.getvalue()


def read(path: Path, name: str) -> Document:
    """Read a YAML file.

    Raises:
        WorkloadError: it cannot be read, is too large, is not UTF-8 text or not YAML.

    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise WorkloadError(f"{name}: cannot be read: {error.strerror or error}") from None
    if len(raw) > LARGEST:
        raise WorkloadError(f"{name}: larger than {LARGEST >> 10} KiB: not a workload file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise WorkloadError(f"{name}:{line}:{column}: not UTF-8 text: byte 0x{raw[error.start]:02x}") from None
    return Document(text, name)
