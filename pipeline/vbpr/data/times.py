"""Times as programs write them, as seconds: numbers, typed dates, ISO dates, and days with slashes or dots."""

import contextlib
import datetime
import math
import re
import warnings
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..base.arrays import Array
from .texts import categories, decoded

DAY = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?\s*([AaPp][Mm])?)?")


def seconds(column: pa.ChunkedArray) -> tuple[Array, str]:
    """A column of numbers, dates or their text as float64 seconds, not finite where it is none of these; and a note on
    how the dates were read, where they may be read in two ways.

    Raises:
        pa.ArrowException: its type has no times.
    """
    coded = pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    column = column if coded else decoded(column)
    if pa.types.is_temporal(column.type):
        micro = pc.CastOptions(target_type=pa.timestamp("us"), allow_time_truncate=True)
        return np.asarray(column.cast(options=micro).cast(pa.int64()).to_numpy() / 1e6, np.float64), ""
    if not (coded or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64), ""
    if not coded:
        with contextlib.suppress(pa.ArrowInvalid):
            return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64), ""
    codes = categories(column)
    words = [word or "" for word in codes.dictionary.to_pylist()]
    times_of_days, note = days(words)
    by_word = {word: times_of_days[word] if word in times_of_days else second(word) for word in words}
    if any(math.isfinite(time) and not is_number(word) for word, time in by_word.items()):
        by_word |= dict.fromkeys(filter(is_number, by_word), math.nan)  # among dates 2020 is a year, no second of 1970
    values = np.array([*(by_word[word] for word in words), math.nan])
    return values[np.asarray(pc.fill_null(codes.indices, len(words)))], note


def is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(word))
    return False


def second(word: str) -> float:
    """A number or an ISO date as seconds; not a number where it is neither."""
    word = word.strip()
    if not re.match(r"[-+.\d]", word):  # NumPy knows dates such as `today`, and takes nothing at all for one
        return math.nan
    try:
        return float(word)
    except ValueError:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy takes offsets such as +02:00, and would rather not
                date = np.datetime64(re.sub(r"\s*(Z|UTC|GMT)$", "", word).replace("/", "-").replace(" ", "T"))
            if not 0 < date.astype("datetime64[Y]").astype(int) + 1970 < 10_000:  # NumPy's microseconds would wrap
                return math.nan
            return float(date.astype("datetime64[us]").astype(np.int64)) / 1e6
        except ValueError:
            return math.nan


def days(words: Iterable[str]) -> tuple[dict[str, float], str]:
    """Those words that are days such as `12/1/2010 8:26` or `31.12.2010` as seconds, and how they were read: a number
    above 12 is a day; where there is none, the month comes first with slashes, and the day with dots or dashes."""
    matches = {word: match for word in words if (match := DAY.fullmatch(word.strip()))}
    firsts, seconds = ({int(match[group]) for match in matches.values()} for group in (1, 3))
    day_first = max(firsts, default=0) > 12 or (
        max(seconds, default=0) <= 12 and all(match[2] != "/" for match in matches.values())
    )
    times = {}
    for word, match in matches.items():
        a, _, b, year, hour, minute, second, half = match.groups()
        day, month = (a, b) if day_first else (b, a)
        hours = int(hour or 0) % 12 + 12 * (half.lower() == "pm") if half else int(hour or 0)
        try:
            when = datetime.datetime(
                int(year), int(month), int(day), hours, int(minute or 0), int(second or 0), tzinfo=datetime.UTC
            )
            times[word] = when.timestamp()
        except ValueError:
            times[word] = math.nan
    if not times:
        return times, ""
    return times, f"dates such as {next(iter(times))} are read as {'day, month' if day_first else 'month, day'}, year"


__all__ = ["seconds"]
