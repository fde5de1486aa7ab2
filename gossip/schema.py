"""How does a value of the program's types become a JSON-like one, and come back?

JSON-like builtins pass as they are. Dataclasses, `TypedDict`, enums, `datetime`, `UUID`, `Decimal` and msgspec structs
are converted and checked by msgspec; pydantic models by themselves. What does not fit is refused at the call that sets
it, by the worker that has the fault, not at some other worker's read.

Invariant: `load(dump(value)) == value`. Not here: bytes (`crdt.codec`).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from gossip.errors import WrongType

T = TypeVar("T")

_ANY = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
_PLAIN: dict[Any, frozenset[type]] = {
    bool: frozenset({bool}),
    int: frozenset({int}),
    float: frozenset({float}),
    str: frozenset({str}),
    bytes: frozenset({bytes}),
    list: frozenset({list, tuple}),
    dict: frozenset({dict}),
    object: _ANY,
    Any: _ANY,
}
"""Types that need no conversion, and which types of value they take. Exactly these: True is not an int here."""
_NATIVE = (bytes,)
"""What msgspec leaves as it is, since the format has it."""


class Schema(Generic[T]):
    """The conversion of one type, both ways.

    >>> from datetime import date
    >>> dates = Schema(date)
    >>> dates.dump(date(2026, 11, 21)), dates.load("2026-11-21")
    ('2026-11-21', datetime.date(2026, 11, 21))
    >>> Schema(bool).dump("yes")
    Traceback (most recent call last):
    gossip.errors.WrongType: expected bool, got str
    """

    __slots__ = ("is_any", "plain", "type")

    def __init__(self, type_: type[T]) -> None:
        self.type = type_
        self.is_any = type_ is object or type_ is Any
        """Whether no type was given, so that every JSON-like value is taken as it is."""
        self.plain: frozenset[type] = frozenset()
        """Types of value that pass as they are, both ways: who looks here first is spared a call for nearly all."""
        try:
            self.plain = _PLAIN.get(type_, self.plain)
        except TypeError:
            pass  # not even hashable
        if not self.plain and not hasattr(type_, "model_validate"):
            self._check()

    def _check(self) -> None:
        """Refuses here what would be refused at every value."""
        import msgspec.inspect  # here, because most nodes share plain values and need not load it

        try:
            unknown = isinstance(msgspec.inspect.type_info(self.type), msgspec.inspect.CustomType)
            wrong = "none of those that are known" if unknown else ""
        except NameError:
            return  # it names a class that is defined further down
        except TypeError as error:
            wrong = str(error).splitlines()[0]
        if wrong:
            raise WrongType(
                f"{self.type!r:.80} is no type of which values can be shared ({wrong}): builtins as in JSON, "
                "dataclasses, TypedDict, enums of text or of integers, datetime, UUID, Decimal, pydantic and msgspec "
                "models are"
            )

    def dump(self, value: T) -> Any:
        """The JSON-like value that stands for this one. Raises `WrongType`."""
        if self.is_any or type(value) in self.plain:
            return value
        if self.plain:
            if self.type is float and type(value) is int:
                return float(value)  # type: ignore[arg-type]
            raise WrongType(f"expected {self.type.__name__}, got {type(value).__name__}")
        if hasattr(self.type, "model_validate"):
            plain = self._model(value).model_dump(mode="json", warnings=False)
            self._model(plain)  # fields that were assigned since are not checked before
            return plain
        import msgspec

        try:
            plain = msgspec.to_builtins(value, builtin_types=_NATIVE)
            msgspec.convert(plain, self.type, builtin_types=_NATIVE)
        except (msgspec.ValidationError, TypeError, RecursionError) as error:
            raise WrongType(f"not of type {self._name}: {error}") from None
        return plain

    def load(self, plain: Any) -> T:
        """The value that a JSON-like one stands for. Raises `WrongType` if it is none of this type."""
        if self.is_any or type(plain) in self.plain:
            return plain  # type: ignore[no-any-return]
        if self.plain:
            if self.type is float and type(plain) is int:
                return plain  # type: ignore[return-value]
            raise WrongType(f"expected {self.type.__name__}, found {type(plain).__name__}")
        if hasattr(self.type, "model_validate"):
            return self._model(plain)  # type: ignore[no-any-return]
        import msgspec

        try:
            return msgspec.convert(plain, self.type, builtin_types=_NATIVE, strict=True)
        except msgspec.ValidationError as error:
            raise WrongType(f"not of type {self._name}: {error}") from None

    def _model(self, value: Any) -> Any:
        """A pydantic model, validated. Its errors are ValueErrors that say all there is to say."""
        try:
            return self.type.model_validate(value)  # type: ignore[attr-defined]
        except ValueError as error:
            raise WrongType(f"not of type {self._name}: {error}") from None

    @property
    def _name(self) -> str:
        return getattr(self.type, "__name__", str(self.type))
