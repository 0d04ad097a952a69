"""The type of a column, and its values in that type.

Text says its type by itself: `ja`/`nein`, `63`, `63,5`, `2021-03-04`, `4.3.2021`; what fits nothing is a category.
Empty cells and the usual words for nothing are missing values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.columns import Kind, arrow_type
from shards.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

KINDS: Final[tuple[Kind, ...]] = ("bool", "int", "float", "category", "date", "timestamp")
_NOTHING: Final = frozenset(
    {"", "na", "n/a", "#n/a", "n.a.", "nan", "null", "none", "nil", "-", "--", ".", "?", "k.a.", "k. a.", "s/d"}
)
_TRUE_FALSE: Final = (
    *(("true", "false"), ("yes", "no"), ("ja", "nein"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("sim", "não")),
    *(("ja", "nee"), ("tak", "nie"), ("ano", "ne"), ("wahr", "falsch"), ("vrai", "faux"), ("vero", "falso")),
)
_INT: Final = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_FLOAT: Final = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d{1,3})?")
_GROUPED: Final = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_LONG: Final = re.compile(r"[+-]?\d{16,}")
_YEARS: Final = re.compile(r"\d{1,3}Y")
"""An age as DICOM writes it."""
_CODE: Final = re.compile(r"[+-]?0\d+")
"""Digits after a leading zero are a code, not a number."""
_DATE_FORMATS: Final = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%Y", "%m/%d/%Y")
_TIMES: Final = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%H:%M:%S%z", "%H:%M:%S.%f%z")

Parse = Callable[[str], Any]


def typed(header: str, values: pa.ChunkedArray, wanted: Kind | None = None) -> tuple[pa.Array, Kind]:
    """A column in its type.

    Args:
        header: For messages.
        values: Text, or the values of a Parquet file.
        wanted: The type to take; found out without it.

    Raises:
        ConfigError: A value does not fit the type that is wanted, or the Parquet type is none of ours.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not _is_text(values.type):
        return _of_arrow(header, values, wanted)
    encoded = _plain_text(values).dictionary_encode().combine_chunks()
    words = encoded.dictionary.to_pylist()
    kind = wanted or kind_of_words(words)
    parsed = _parsed(header, words, kind)
    return pa.array(parsed, arrow_type(kind)).take(encoded.indices), kind


def typed_as(
    header: str, values: pa.ChunkedArray, wanted: Kind | None, there: Kind | None, *, hint: str
) -> tuple[pa.Array, Kind]:
    """A column in the type that is wanted, else in that of the column of its name that is there, where it fits.

    Args:
        header: For messages.
        values: As for `typed`.
        wanted: The type to take.
        there: The type of the column that is there.
        hint: What to do where it fits neither.

    Raises:
        ConfigError: As `typed`; or the column that is there has another type.
    """
    if wanted is None and there is not None:
        with suppress(ConfigError):
            return typed(header, values, there)
    found, kind = typed(header, values, wanted)
    if there == "int" and kind == "float":
        found, kind = _whole(found)
    if there not in (None, kind):
        raise ConfigError(f"{header} is {kind}, the column that is there {there}", hint=hint)
    return found, kind


def _whole(numbers: pa.Array) -> tuple[pa.Array, Kind]:
    """Numbers as integers where all of them are."""
    import pyarrow as pa

    try:
        return numbers.cast(pa.int64()), "int"
    except pa.ArrowInvalid:
        return numbers, "float"


def kind_of_words(words: list[str]) -> Kind:
    """The type that all of these distinct texts have."""
    tests: Mapping[Kind, Callable[[list[str]], object]] = {
        "bool": _booleans,
        "int": lambda words: all(_INT.fullmatch(word) for word in words),
        "float": lambda words: all(_FLOAT.fullmatch(word) for word in words) and not _is_unsure(words),
        "date": lambda words: _parser_of_dates(words, "date"),
        "timestamp": lambda words: _parser_of_dates(words, "timestamp"),
    }
    if words and all(_YEARS.fullmatch(word) for word in words):
        return "int"
    if not words or any(_CODE.fullmatch(word) for word in words):
        return "category"
    return next((kind for kind, test in tests.items() if test(words)), "category")


def _plain_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without white space at the ends, null where nothing is said."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    nothing = pc.is_in(pc.utf8_lower(text), value_set=pa.array(sorted(_NOTHING)))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), text)


def id_text(header: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Identifiers as text; whole numbers without a point, which is what missing ones among them bring.

    Raises:
        ConfigError: They are neither text nor numbers.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        with suppress(pa.ArrowInvalid):
            values = values.cast(pa.int64())
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:  # pyarrow has no cast from this type to text
        raise ConfigError(
            f"{header} is of type {values.type}: no identifiers", hint="name another with --on"
        ) from error


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _of_arrow(header: str, values: pa.ChunkedArray, wanted: Kind | None) -> tuple[pa.Array, Kind]:
    import pyarrow as pa

    kind: Kind | None = wanted
    if kind is None:
        tests: Mapping[Kind, Callable[[pa.DataType], bool]] = {
            "bool": pa.types.is_boolean,
            "int": pa.types.is_integer,
            "float": lambda one: pa.types.is_floating(one) or pa.types.is_decimal(one),
            "date": pa.types.is_date,
            "timestamp": pa.types.is_timestamp,
        }
        kind = next((name for name, test in tests.items() if test(values.type)), None)
    if pa.types.is_null(values.type):
        kind = kind or "category"
    if kind is None:
        raise ConfigError(f"{header} is of type {values.type}", hint="leave it out with --column, or write it as text")
    try:
        cast = values.cast(arrow_type(kind), safe=kind != "timestamp").combine_chunks()  # nanoseconds are cut
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:  # a wrong value; no cast between these types
        raise ConfigError(f"{header} holds values that are no {kind}", hint="choose another --type") from error
    array = cast if isinstance(cast, pa.Array) else pa.concat_arrays(cast.chunks)
    return _without_nan(array, kind), kind


def _without_nan(values: pa.Array, kind: Kind) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind != "float":
        return values
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def _parsed(header: str, words: list[str], kind: Kind) -> list[Any]:
    """Distinct texts in a type."""
    parse = _parser(words, kind)
    found = []
    for word in words:
        try:
            if parse is None:
                raise ValueError(word)
            found.append(parse(word))
        except ValueError:
            hint = f"--type {header}=category takes it as it stands"
            if kind in ("date", "timestamp"):
                hint = "write dates as 2021-03-04; " + hint
            raise ConfigError(f"{header} holds values that are no {kind}", hint=hint) from None
    return found


def _parser(words: list[str], kind: Kind) -> Parse | None:
    if kind == "bool":
        truths = _booleans(words) or {"1": True, "0": False}
        return lambda word: _looked_up(truths, word.lower())
    if kind == "int":
        return _integer
    if kind == "float":
        return lambda word: float(word.replace(",", "."))
    return str if kind == "category" else _parser_of_dates(words, kind)


def _integer(word: str) -> int:
    found = int(word.removesuffix("Y") if _YEARS.fullmatch(word) else word)
    if not -(2**63) <= found < 2**63:
        raise ValueError(word)
    return found


def _looked_up(truths: Mapping[str, bool], word: str) -> bool:
    if word not in truths:
        raise ValueError(word)
    return truths[word]


def _booleans(words: list[str]) -> dict[str, bool]:
    """Word → truth, where the words are a pair of them; empty where they are not."""
    lower = {word.lower() for word in words}
    for true, false in _TRUE_FALSE:
        if lower <= {true, false}:
            return {true: True, false: False}
    return {}


def _is_unsure(words: list[str]) -> bool:
    """Whether a comma or a point may group thousands, or a number has more digits than a float keeps."""
    commas = [word for word in words if "," in word]
    both = bool(commas) and any("." in word for word in words)
    grouped = bool(commas) and all(_GROUPED.fullmatch(word) for word in commas)
    return both or grouped or any(_LONG.fullmatch(word) for word in words)


def _parser_of_dates(words: list[str], kind: Kind) -> Parse | None:
    """What reads all of the words as dates or times; None where nothing does, or where two formats do.

    Raises:
        ValueError: Never; `12/03/2021` alone, which may be March or December, is read by nothing.
    """
    formats: tuple[str, ...] = _DATE_FORMATS
    if kind == "timestamp":
        formats = tuple(f"{day}{gap}{time}" for day in _DATE_FORMATS for gap in (" ", "T") for time in _TIMES)
    sample = words[:2000]
    fitting = [one for one in formats if all(_reads(word, one) for word in sample)]
    if not fitting and kind == "timestamp":  # seconds may be there in some rows and not in others
        return _iso_time if all(_is_iso(word) for word in words) else None
    if len(fitting) != 1:
        return None
    if kind == "date":
        return lambda word: datetime.strptime(word, fitting[0]).date()
    return lambda word: _utc(datetime.strptime(word, fitting[0]))


def _reads(word: str, form: str) -> bool:
    try:
        found = datetime.strptime(word, form)
    except ValueError:
        return False
    return found.year >= 1000


def _is_iso(word: str) -> bool:
    try:
        _iso_time(word)
    except ValueError:
        return False
    return len(word) > 10


def _iso_time(word: str) -> datetime:
    return _utc(datetime.fromisoformat(word))


def _utc(time: datetime) -> datetime:
    """A time without a zone is taken as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def is_calendar_day(text: str) -> bool:
    """Whether eight digits are a day between 1880 and 2100, as DICOM writes them."""
    try:
        return date(1880, 1, 1) <= datetime.strptime(text, "%Y%m%d").date() < date(2100, 1, 1)
    except ValueError:
        return False
