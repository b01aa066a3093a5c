"""The long table as CSV: one row a value, with all that tells it apart."""

import csv
import io

from urlbench.results.cells import Results
from urlbench.results.long_table import ResultRow


def long_csv(results: Results) -> str:
    """Every value of every run that counts; columns are the attributes of `ResultRow`, numbers keep all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ResultRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in results.rows())
    return text.getvalue()
