"""What looks like names, dates, contacts or identifiers is refused; findings and measurements are not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ingest.columns.guard import why_refused
from ingest.columns.kinds import typed


def refused(header: str, *values: str) -> str:
    column, kind = typed(header, pa.chunked_array([list(values)]))
    return why_refused(header, column, kind)


@pytest.mark.parametrize(
    "header",
    [
        *("Name", "LastName", "patient_name", "Vorname", "Nom", "prénom", "Apellidos", "Cognome", "Imię", "姓名"),
        *("DOB", "BirthDate", "date of birth", "Geburtsdatum", "Geb.-Datum", "Date de naissance", "fecha_nacimiento"),
        *("MRN", "PatientID", "Patienten-Nr.", "Fallnummer", "Accession Number", "StudyInstanceUID", "SSN", "Pesel"),
        *("E-Mail", "Telefon", "Adresse", "PLZ", "Wohnort"),
    ],
)
def test_headers_of_many_languages(header: str) -> None:
    assert why_refused(header, pa.array([1, 2, 3]), "int")


@pytest.mark.parametrize(
    "values",
    [
        ("1958-03-04", "1963-05-17", "1971-11-30"),
        ("4.3.1958", "17.5.1963", "30.11.1971"),
        ("19580304", "19630517", "19711130"),
        ("seen 04.03.2021", "healthy", "seen 17.05.2021"),
        ("Ahlers, Hinnerk", "Boysen, Wiebke", "Cordes, Jan"),
        ("AHLERS^HINNERK", "BOYSEN^WIEBKE", "CORDES^JAN"),
        ("Hinnerk Ahlers", "Wiebke Boysen", "Dr. Jan Cordes"),
        ("hinnerk@example.org", "none yet", "wiebke@example.org"),
        ("H-2021-004711", "H-2021-004712", "H-2021-004713"),
        ("1002345", "1002346", "1002399"),
        ("1.2.840.113619.2.1", "1.2.840.113619.2.2", "1.2.840.113619.2.3"),
        tuple(f"case {chr(97 + number)}" for number in range(26)),
        ("Knie Frau Ahlers",),
        ("seen by Prof. Dr. Boysen", "seen"),
        ("ask hinnerk@example.org", "none"),
        ("seen 04.03.2021", "healthy"),
    ],
)
def test_what_columns_hold(values: tuple[str, ...]) -> None:
    assert refused("x", *values)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("Alter", ("63", "58", "71")),
        ("Geschlecht", ("w", "m", "w")),
        ("diagnosis", ("Ductal carcinoma", "benign", "Ductal carcinoma", "Fibroadenoma")),
        ("BI-RADS", ("4a", "2", "5")),
        ("tumour_mm", ("12,5", "8,25", "30,75")),
        ("icd10", ("C50.9", "D24", "N60.1")),
        ("label", ("0", "1", "1")),
        ("finding", ("24 Hr Holter", "Fr. Radius", "MS Lesion")),
        ("dose", tuple(str(1000 + number) for number in range(40))),
    ],
)
def test_findings_and_measurements_pass(header: str, values: tuple[str, ...]) -> None:
    assert refused(header, *values) == ""
