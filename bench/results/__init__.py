"""Results on disk: the folder, its records, the table. Stable names for notebooks and scripts. No torch."""

from bench.results.columns import COLUMNS, column_dictionary
from bench.results.folder import Results
from bench.results.table import build_table, finished_rows, load_table

__all__ = ["COLUMNS", "Results", "build_table", "column_dictionary", "finished_rows", "load_table"]
