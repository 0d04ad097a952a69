"""Columns that may name a person: refused by their header, in the languages of many hospitals, or by what they hold.

This is a net with holes: it finds what looks like names, dates, contacts and identifiers. What passes is not thereby
anonymous, and what is refused may be harmless; the user decides, column by column.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from ingest.columns.kinds import is_calendar_day
from shards.dataset.columns import Kind

if TYPE_CHECKING:
    import pyarrow as pa


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMES: Final = _words(
    "name names surname lastname firstname forename givenname middlename fullname initials maidenname "
    "physician vorname nachname familienname zuname rufname geburtsname initialen arzt nom prenom patronyme "
    "medecin apellido apellidos nombre nombres medico cognome nome sobrenome naam voornaam achternaam "
    "efternamn fornamn namn navn fornavn etternavn efternavn imie nazwisko jmeno prijmeni имя фамилия "
    "отчество фио 姓名 氏名 名前 성명 이름"
)
_BIRTH: Final = _words(
    "dob birth birthdate birthday dateofbirth birthtime geb geburt geburtsdatum geburtstag gebdat gebdatum "
    "naissance ddn datenaissance nacimiento nascita nascimento geboorte geboortedatum fodelsedatum fodt "
    "fodselsdato urodzenia narozeni рождения 生年月日 出生日期 생년월일"
)
_IDS: Final = _words(
    "id ids identifier mrn pid patid ssn nhs nhsnumber accession "
    "uid uuid guid ipp nip nss dni nie nif nhc cpf rg bsn cpr pesel personnummer fodselsnummer codicefiscale "
    "steuernummer hospitalnumber ahv passport ausweis"
)
_PERSON: Final = _words("patient patienten paciente paziente subject proband person")
"""Identifiers where the header says nothing else: `patient age` is none."""
_CONTACT: Final = _words(
    "email mail phone telephone telefon telefono tel mobile handy fax address adresse direccion indirizzo "
    "endereco adres street strasse rue calle plz zip zipcode postcode postleitzahl postal city town wohnort "
    "ip url телефон адрес 住所 地址 电话"
)
_NUMBERED: Final = re.compile(
    r"(patient\w*|paciente\w*|paziente|pat|fall|case|record|insurance|versich\w*|akte\w*|accession|exam\w*|study|"
    r"dossier|historia|hospital|social\w*|person\w*)(s?)(id|nr|no|num|number|nummer|numero|code|key|kennung|schlussel)"
)
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[a-zA-Z]{2,}")
_PHONE: Final = re.compile(r"\+?\d[\d /().-]{7,}\d")
_ID_LIKE: Final = re.compile(
    r"([A-Za-z]{0,6}[-_ /]?(\d+[-_/ ])*\d{5,}([-_/ ]\d+)*)|[0-9a-fA-F]{12,}|"
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d+(\.\d+){4,}"
)
_CAPITAL: Final = r"[^\W\d_a-zß-ÿ][\w'’.-]*"
_LAST_FIRST: Final = re.compile(rf"{_CAPITAL}( {_CAPITAL})?, ?{_CAPITAL}( {_CAPITAL})?|[^\d^]+\^[^\d]*")
_FIRST_LAST: Final = re.compile(rf"((Dr|Prof|Mr|Mrs|Ms|Hr|Fr|Herr|Frau)\.? )?{_CAPITAL}( {_CAPITAL}){{1,2}}")
_ADDRESSED: Final = re.compile(
    rf"\b(Dr|Prof|Mr|Mrs|Ms|Herrn?|Frau|Mme|Mlle|Madame|Monsieur|Señora?|Signora?)\.? (\w+\. )*{_CAPITAL}"
)
_DAY: Final = re.compile(r"\b(\d{1,2}[./-]\d{1,2}[./-](19|20)\d\d|(19|20)\d\d-\d\d-\d\d)\b")
_MOST: Final = 0.8
_UNIQUE: Final = 0.9
_FEW: Final = 3
_ENOUGH: Final = 20
_LOOKED_AT: Final = 20_000


def why_refused(header: str, values: pa.Array, kind: Kind) -> str:
    """Why a column may name a person; empty where nothing says so.

    Args:
        header: Its name in the table.
        values: Its typed values.
        kind: Their type.
    """
    return _of_header(header) or _of_values(values, kind)


def _of_header(header: str) -> str:
    spaced = re.sub(r"(?<=[a-zà-ÿ])(?=[A-ZÀ-Ý])", " ", header)
    words = re.findall(r"[^\W_]+", _plain(spaced))
    if "".join(words) in _PERSON:
        return "its header speaks of identifiers"
    joined = {"".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)}
    for said, known in (("a date of birth", _BIRTH), ("names", _NAMES), ("contacts", _CONTACT), ("identifiers", _IDS)):
        if joined & known:
            return f"its header speaks of {said}"
    return "its header speaks of identifiers" if any(_NUMBERED.fullmatch(one) for one in joined) else ""


def _plain(text: str) -> str:
    """In small letters, without accents."""
    apart = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("ø", "o").replace("Ø", "O"))
    return unicodedata.normalize("NFC", "".join(one for one in apart if not unicodedata.combining(one))).lower()


def _of_values(values: pa.Array, kind: Kind) -> str:
    if kind in ("date", "timestamp"):
        return "it holds dates"
    if kind in ("bool", "float"):
        return ""
    present = values.drop_null()
    distinct = [str(value) for value in present.unique()[:_LOOKED_AT].to_pylist()]
    if kind == "category" and (why := _of_any_word(distinct)):
        return why
    if len(distinct) < _FEW:
        return ""
    unique = len(present.unique()) / len(present)
    return _of_integers(distinct, unique) if kind == "int" else _of_words(distinct, unique)


def _of_any_word(distinct: list[str]) -> str:
    """What a single word gives away, however few there are."""
    if any(_EMAIL.search(word) for word in distinct):
        return "it holds contacts"
    if any(_DAY.search(word) for word in distinct):
        return "it holds dates"
    return "it looks like names" if any(_ADDRESSED.search(word) for word in distinct) else ""


def _of_integers(distinct: list[str], unique: float) -> str:
    if all(len(word) == 8 and is_calendar_day(word) for word in distinct):
        return "it holds dates"
    digits = min(len(word.lstrip("-")) for word in distinct)
    if unique >= _UNIQUE and (digits >= 6 or (digits >= 5 and len(distinct) >= _ENOUGH)):
        return "its numbers look like identifiers"
    return ""


def _of_words(distinct: list[str], unique: float) -> str:
    if _share(_PHONE, distinct) >= _MOST:
        return "it holds contacts"
    if _share(_LAST_FIRST, distinct) >= _MOST:
        return "it looks like names"
    if _share(_FIRST_LAST, distinct) >= _MOST and (unique >= 0.3 or len(distinct) >= _ENOUGH):
        return "it looks like names"
    if _share(_ID_LIKE, distinct) >= _MOST:
        return "it looks like identifiers"
    return "nearly every value is another one" if unique >= _UNIQUE and len(distinct) >= _ENOUGH else ""


def _share(pattern: re.Pattern[str], words: list[str]) -> float:
    return sum(pattern.fullmatch(word) is not None for word in words) / len(words)
