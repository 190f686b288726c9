"""Registries: what can be brought, by name. A duplicate is an error that says where both come from.

Seven kinds of things are registered alike: a family of networks, a block kind,
an alternative to a trained model's block, a workload, a scorer, a profiler, a
searcher. Each is one class that carries ``name``, ``version`` (raised when its
results change), ``Settings`` (its part of the YAML, every field described) and
a first docstring line that people read in ``mathnas plugins`` and in forms. Nothing else in the code knows its name.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from nas_core.base.errors import PluginError, UnknownNameError
from nas_core.base.identity import hash_of_files
from nas_core.base.settings import Section, named_paths, wrong_field


class Registered:
    """What every class that can be registered carries."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when its results change: rows of another version are not reused
    Settings: ClassVar[type[Section]] = Section
    needs_torch: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {}  # settings to test it with, where some have no default


T = TypeVar("T", bound=Registered)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a registered class comes from; ``code`` is empty for our own, whose versions say when results change.

    ``source`` names the module or file, ``distribution`` name and version of the
    installed package it is part of, ``code`` the hash of the plug-in's source.
    """

    source: str = "mathnas"
    distribution: str = ""
    code: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.distribution})" if self.distribution else self.source


OURS = Origin()
OF_A_PLUGIN = "A plug-in's is known once `plugins:` of the study names the plug-in."


class Registry(Generic[T]):
    """Classes of one kind by name; ``add`` is a decorator."""

    importing: ClassVar[Origin] = OURS  # what is being imported: plug-ins set it while their modules run
    all_of_them: ClassVar[list["Registry[Any]"]] = []

    def __init__(self, kind: str, protocol: type) -> None:
        self.kind, self.protocol = kind, protocol
        Registry.all_of_them.append(self)
        self._entries: dict[str, tuple[type[T], Origin]] = {}
        self._sections: dict[type, type[Section]] = {}

    def add(self, thing: type[T]) -> type[T]:
        """File the class under its name.

        Raises:
            PluginError: if it is not what the protocol asks for, or the name is taken.
        """
        where = f"{self.kind} {getattr(thing, 'name', None) or getattr(thing, '__name__', thing)}"
        if problem := wrong_with(thing, self.protocol):
            raise PluginError(where, problem, f"a class derived from {self.protocol.__name__}, complete and described")
        taken = self._entries.get(thing.name)
        if taken is not None and not _same_code(taken[0], thing):
            found, first = f"the name twice: {Registry.importing} and {taken[1]}", "one name for one class"
            raise PluginError(where, found, first)
        self._entries[thing.name] = thing, Registry.importing
        return thing

    def forget(self, origin: Origin) -> None:
        """Drop what an origin registered, before its code is imported again."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry[1].source != origin.source}

    def __getitem__(self, name: str) -> type[T]:
        return self._entry(name)[0]

    def origin(self, name: str) -> Origin:
        return self._entry(name)[1]

    @property
    def in_words(self) -> str:
        """The names that there are, and when there are more: what an error says is allowed."""
        return f"one of: {', '.join(self)}. {OF_A_PLUGIN}"

    def code(self, name: str) -> str:
        """By which results of the class's code are known: a plug-in's source, of ours a version that was raised."""
        thing, origin = self._entry(name)
        return origin.code or (f"version {thing.version}" if thing.version > 1 else "")

    def identity(self, name: str, settings: Section | None = None, apart: Collection[str] = ()) -> dict[str, Any]:
        """What of the class's code its results depend on: version, and for a plug-in its distribution and source.

        With ``settings``, also what the files hold that these name, but for those of the fields ``apart``.
        """
        thing, origin = self._entry(name)
        known: dict[str, Any] = {"name": name, "version": thing.version}
        if not origin.code:
            return known
        files = self.files(name, settings, apart) if settings is not None else {}
        given = {"files": files} if files else {}
        return {**known, "distribution": origin.distribution, "code": origin.code, **given}

    def files(self, name: str, settings: Section, apart: Collection[str] = ()) -> dict[str, str]:
        """Hashes of the files that a plug-in's settings of type ``PathText`` name, by field, as they are now.

        None of our own classes': what of a file their results depend on they say themselves.
        """
        if name not in self or not self.origin(name).code:
            return {}
        hashes = {field: hash_of_files(path) for field, path in named_paths(settings, apart).items()}
        return {field: known for field, known in hashes.items() if known}

    def section(self, name: str) -> type[Section]:
        """The class's settings as a section of YAML holds them: with ``kind``, its name."""
        thing = self[name]
        if thing not in self._sections:
            kind: Any = (Literal[name], Field(name, description=summary_of(thing)))
            given = {"__base__": thing.Settings, "__module__": thing.__module__, "kind": kind}
            made = cast(Any, create_model(thing.__name__, **given))
            made.__doc__, made.model_config = summary_of(thing), {**made.model_config, "title": name}
            made.__reduce__ = lambda section: (_section, (self.kind, name, section.model_dump(mode="json")))
            self._sections[thing] = made
        return self._sections[thing]

    def _entry(self, name: str) -> tuple[type[T], Origin]:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, repr(name), f"one of: {', '.join(self)}", OF_A_PLUGIN) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries  # what a file gives may be no name at all

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def wrong_with(thing: Any, protocol: type) -> str:
    """What keeps a class from being registered; "" if nothing does."""
    if not (isinstance(thing, type) and issubclass(thing, protocol)):
        return f"{thing!r:.100}, which is not derived from it"
    return _incomplete(thing)


def _incomplete(thing: Any) -> str:
    if not isinstance(getattr(thing, "name", None), str) or not thing.name:
        return "no `name`"
    if thing.name.split() != [thing.name]:
        return f"name {thing.name!r:.50}, with blanks"
    if isinstance(thing.version, bool) or not isinstance(thing.version, int):
        return f"version {thing.version!r:.50}, no whole number"
    if missing := sorted(getattr(thing, "__abstractmethods__", ())):
        return f"no {', '.join(missing)}"
    if not summary_of(thing):
        return "no docstring (its first line is what people read)"
    if not (isinstance(thing.Settings, type) and issubclass(thing.Settings, Section)):
        return f"Settings {thing.Settings!r:.100}, no nas_core.Section"
    if "kind" in thing.Settings.model_fields:
        return "a setting called `kind`, which is what a study calls the class itself"
    silent = [name for name, field in thing.Settings.model_fields.items() if not field.description]
    how = 'say what it is by Annotated[..., "words"] or Field(description="words")'
    return f"settings without a description: {', '.join(silent)} ({how})" if silent else ""


def summary_of(thing: type) -> str:
    """The first line of the class's own docstring."""
    lines = (thing.__dict__.get("__doc__") or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _same_code(one: type, other: type) -> bool:
    """Whether both are one class, imported twice: as happens where workers unpickle what the driver registered."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _section(kind: str, name: str, values: Mapping[str, Any]) -> Section:
    """A section unpickled: its class is made of what is registered here."""
    (registry,) = (each for each in Registry.all_of_them if each.kind == kind)
    return registry.section(name).model_validate(values)


@dataclass(frozen=True)
class OneOf:
    """Marks a field of a configuration that holds a section of one of a registry's classes; ``kind`` says which.

    What is registered is looked up when a value is checked, so plug-ins that
    were imported before have a part in it. ``upgrade`` turns what earlier
    versions wrote into what is written now.
    """

    registry: Registry[Any]
    default: str
    upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._checked,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda section, info: {"kind": section.kind, **section.model_dump(mode=info.mode)}, info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """JSON schema for Prefect's form, which supports only ``anyOf`` and picks the option that shares most keys.

        So kinds with equal keys are merged, and one whose keys are a part of
        another's comes before it.
        """
        sections = [handler(TypeAdapter(self.registry.section(name)).core_schema) for name in self.registry]
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for section in map(handler.resolve_ref_schema, sections):
            alike.setdefault(tuple(sorted(section["properties"])), []).append(section)
        alternatives = [_one_form(alike[keys]) for keys in sorted(alike, key=lambda keys: (len(keys), keys))]
        # a server that checks a form by this schema does not know what a study's plug-ins will bring
        unknown = {"properties": {"kind": {"type": "string", "not": {"enum": list(self.registry)}}}}
        brought = {"title": "of a plug-in", "type": "object", "required": ["kind"], "allOf": [unknown]}
        return {"anyOf": [*alternatives, brought]}

    def _checked(self, value: Any, info: ValidationInfo) -> Section:
        if isinstance(value, Section):
            value = value.model_dump(mode="json")
        if not isinstance(value, Mapping):
            raise ValueError(f"a section with `kind`, {self.registry.in_words}")
        given = self.upgrade(value)
        kind = given.get("kind", self.default)
        if kind not in self.registry:
            raise wrong_field(self.registry.kind, "kind", kind, self.registry.in_words)
        section = self.registry.section(kind)
        return section.model_validate(_without_own_defaults(section, given), context=info.context)


def _one_form(sections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The form of sections that have the same keys: of defaults that differ each kind takes its own, which is null."""
    kinds = [section["properties"]["kind"] for section in sections]
    titles = [section["title"] for section in sections]
    first = {name: _with_default(field) for name, field in sections[0]["properties"].items()}
    if len(sections) == 1:
        return {**sections[0], "properties": first}
    described = " ".join(f"{title}: {kind['description']}" for title, kind in zip(titles, kinds, strict=True))
    kind = {"type": "string", "title": "Kind", "enum": titles, "default": titles[0], "description": described}
    return {
        **{key: value for key, value in sections[0].items() if key != "description"},
        "title": ", ".join(titles),
        "properties": {
            name: _any_kinds([section["properties"][name] for section in sections]) for name in first if name != "kind"
        }
        | {"kind": kind},
    }


def _with_default(field: Mapping[str, Any]) -> dict[str, Any]:
    """A text that has to be given is empty at first: the form tells alternatives apart by the keys that are there."""
    required = field.get("type") == "string" and "default" not in field and "const" not in field
    return {**field, "default": "", "minLength": 1} if required else dict(field)


def _any_kinds(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One setting of several kinds; null stands for the kind's own default where those differ."""
    if all(field == fields[0] for field in fields):
        return _with_default(fields[0])
    shown = {key: fields[0][key] for key in ("title", "description") if key in fields[0]}
    value = {key: value for key, value in fields[0].items() if key not in (*shown, "default")}
    alternatives = value.get("anyOf", [value])
    null = {"type": "null"}
    return {**shown, "anyOf": [*(each for each in alternatives if each != null), null], "default": None}


def _without_own_defaults(section: type[Section], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given; a null is the setting's own default where it cannot be a value."""
    defaults = {
        name
        for name, field in section.model_fields.items()
        if not field.is_required() and field.default is not None and given.get(name, field) is None
    }
    return {name: value for name, value in given.items() if name not in defaults}


@dataclass(frozen=True)
class ManyOf:
    """Marks a field that holds settings of several of a registry's classes, by name; those not given have defaults."""

    registry: Registry[Any]

    def defaults(self) -> dict[str, Section]:
        """The settings of every class that needs none."""
        found = {name: self.registry[name].Settings for name in self.registry}
        return {
            name: made() for name, made in found.items() if not any(f.is_required() for f in made.model_fields.values())
        }

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._checked,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda sections, info: {name: section.model_dump(mode=info.mode) for name, section in sections.items()},
                info_arg=True,
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        properties = {
            name: {
                **handler(TypeAdapter(self.registry[name].Settings).core_schema),
                "title": name,
                "description": summary_of(self.registry[name]),
            }
            for name in self.registry
        }
        return {"type": "object", "properties": properties, "additionalProperties": {"type": "object"}}

    def _checked(self, value: Any, info: ValidationInfo) -> dict[str, Section]:
        if not isinstance(value, Mapping):
            raise ValueError(f"a mapping with the keys: {', '.join(self.registry)}")
        sections = self.defaults()
        for name, given in value.items():
            if name not in self.registry:
                raise wrong_field(self.registry.kind, str(name), given, self.registry.in_words)
            data = given.model_dump(mode="json") if isinstance(given, Section) else given
            try:
                sections[name] = self.registry[name].Settings.model_validate(data, context=info.context)
            except ValidationError as error:
                raise below(name, error) from None
        return sections


def below(name: str, error: ValidationError) -> ValidationError:
    """The error with its paths one level deeper."""
    rows = [
        InitErrorDetails(
            type=PydanticCustomError("wrong_field", "{expected}", {"expected": row["msg"]}),
            loc=(name, *row["loc"]),
            input=row["input"],
        )
        for row in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, rows)
