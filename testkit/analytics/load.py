"""Runs the DuckDB statements of docs/analytics.md on exports in the current folder, and prints what their queries answer.

    load.py docs/analytics.md

Statements stand in blocks that begin with ```sql duckdb; a comment at their top names them. One line of JSON a block:
{"block": …, "columns": […], "rows": [[…], …]}, of its last statement.
"""

import datetime
import decimal
import json
import pathlib
import re
import sys

import duckdb


def blocks(text):
    for found in re.finditer(r"^```sql duckdb\n-- (.+?)\n(.*?)^```$", text, re.M | re.S):
        yield found.group(1), [one.strip() for one in found.group(2).split(";\n") if one.strip()]


def plain(value):
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value


def main():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = 0
    for name, statements in blocks(pathlib.Path(sys.argv[1]).read_text()):
        for statement in statements:
            result = connection.execute(statement)
        columns = [column[0] for column in result.description or []]
        rows = [[plain(value) for value in row] for row in result.fetchall()]
        print(json.dumps({"block": name, "columns": columns, "rows": rows}))
        found += 1
    if not found:
        sys.exit("no block of statements was found")


main()
