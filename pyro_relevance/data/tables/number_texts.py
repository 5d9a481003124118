"""Numbers as people write them: percent, thousands, decimal commas, currencies and units.

A column is read so only where every cell that is not missing fits, and a note says so. Codes with
leading zeros are no numbers.
"""

from __future__ import annotations

import pandas as pd

__all__ = ["are_codes", "numbers_in_words"]

_SIGN, _MONEY = r"[+\-−]?", r"(?:[$€£¥]|USD|EUR|GBP|CHF|JPY)"
_DIGITS = r"\d[\d.,'’\u00a0\u202f ]*|[.,]\d+"
# Without a space before it, a letter may as well belong to a code such as 12a.
_UNITS = "km|cm|mm|m|kg|mg|g|ms|min|s|h|ml|l|kW|W|V|mA|A|kHz|Hz|°C|°F|K|m²|m³|km/h|mph|°"
_WRITTEN = (
    rf"(?P<sign>{_SIGN})(?P<before>{_MONEY})?\s*(?P<inner>{_SIGN})(?P<digits>{_DIGITS})(?P<exponent>"
    rf"[eE][+-]?\d+)?(?P<unit>\s*%|\s*{_MONEY}|{_UNITS}|\s+[^\W\d_°/²³]{{1,5}}[²³]?(?:/[a-z]{{1,3}})?)?"
)
_POINT_LAST = r"(?:[1-9]\d{0,2}(?:[,'’\u00a0\u202f ]\d{3})+|\d+)?(?:\.\d*)?"
_COMMA_LAST = r"(?:[1-9]\d{0,2}(?:[.'’\u00a0\u202f ]\d{3})+|\d+)?(?:,\d*)?"
_FEW = 100


def are_codes(texts: pd.Series) -> bool:
    """Whether some of the cells are whole numbers with leading zeros: codes, such as zip codes.

    Args:
        texts: Cells that are not missing.
    """
    return bool(texts.str.fullmatch(r"0\d+").any())


def numbers_in_words(
    texts: pd.Series, decimal_comma: bool
) -> tuple[pd.Series, str] | tuple[None, None]:
    """Return the numbers in a column of text, and what was understood; None where some is none.

    Args:
        texts: Cells that are not missing.
        decimal_comma: Whether a lone comma separates decimals where both could be.

    Returns:
        ``float64`` numbers with the index of the texts, and a sentence without the column's name.
    """
    if not len(texts) or not texts.iloc[:_FEW].str.fullmatch(_WRITTEN).all():
        return None, None
    parts = texts.str.extract(rf"^{_WRITTEN}$")
    if parts["digits"].isna().any():
        return None, None
    digits = parts["digits"].str.strip()
    unit = parts["unit"].fillna("").str.strip()
    before = parts["before"].fillna("")
    marks = {mark for mark in (*unit[unit != ""].unique(), *before[before != ""].unique())}
    # One unit for all cells: kilograms and grams are not the same number.
    if len(marks) > 1 or (marks and ((unit == "") & (before == "")).any()):
        return None, None
    if ((parts["inner"].fillna("") != "") & (before == "")).any():
        return None, None  # two signs
    comma = _comma_is_decimal(digits, decimal_comma)
    if comma is None:
        return None, None
    plain = digits.str.replace(r"['’\u00a0\u202f ]", "", regex=True)
    thousands, point = (".", ",") if comma else (",", ".")
    ungrouped = plain.str.replace(thousands, "", regex=False)
    plain = ungrouped.str.replace(point, ".", regex=False)
    minus = parts[["sign", "inner"]].isin(["-", "−"]).sum(axis=1) == 1
    numbers = pd.to_numeric(plain + parts["exponent"].fillna(""), errors="coerce")
    numbers = numbers.astype("float64").where(~minus, -numbers)
    if numbers.isna().any():
        return None, None
    grouped = bool((ungrouped != digits).any())
    lone = not grouped or not digits.str.contains(",", regex=False).any()
    if comma and not decimal_comma and not marks and lone:
        return None, None  # 1,2 may be a list, and 10.100.200 a version
    said = []
    if marks:
        said.append("in percent" if marks == {"%"} else f"in {marks.pop()}")
    if comma and digits.str.contains(",", regex=False).any():
        said.append("with decimal commas")
    if grouped:
        said.append("with thousands in groups")
    first = texts.iloc[0]
    return numbers, f"read as numbers {' '.join(said)}: {first!r} is {numbers.iloc[0]:.12g}."


def _comma_is_decimal(digits: pd.Series, preferred: bool) -> bool | None:
    """Whether commas separate decimals in all cells; None where the cells do not agree."""
    fits_point = bool(digits.str.fullmatch(_POINT_LAST).all())
    fits_comma = bool(digits.str.fullmatch(_COMMA_LAST).all())
    if fits_point and fits_comma:
        return preferred
    if fits_point or fits_comma:
        return fits_comma
    return None
