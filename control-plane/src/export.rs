//! Exports as Parquet: the JSON lines of `GET /v1/facts`, column by column.
//!
//! Memory is bounded by one row group ([`ROWS`]), however many lines there are. A line that lacks what its kind must have is an error: half a
//! table is worse than none.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

/// Rows of one row group: some ten megabytes of facts, and a size that readers like to read at once.
const ROWS: usize = 20_000;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// One row per delivered segment.
    Facts,
    /// One row per refusal.
    Denials,
    /// One row per play.
    Plays,
}

/// How a field becomes a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Text,
    /// An object, as its JSON text.
    Json,
    /// A list of texts; empty where the field is not there.
    Texts,
    Number,
    /// Milliseconds since the epoch, as a timestamp in UTC.
    Time,
    Flag,
    /// The nth number of a list.
    Nth(usize),
}

/// Name, field that it is read from, what it is, whether it must be there.
type Field = (&'static str, &'static str, Cell, bool);

const FACTS: &[Field] = &[
    ("id", "id", Cell::Text, true),
    ("ts", "ts", Cell::Time, true),
    ("edge", "edge", Cell::Text, true),
    ("track", "track", Cell::Text, true),
    ("version", "version", Cell::Text, false),
    ("file", "file", Cell::Text, true),
    ("kind", "kind", Cell::Text, true),
    ("pos_ms", "pos_ms", Cell::Number, false),
    ("media_ms", "media_ms", Cell::Number, false),
    ("sid", "sid", Cell::Text, true),
    ("sub", "sub", Cell::Text, false),
    ("status", "status", Cell::Number, true),
    ("bytes", "bytes", Cell::Number, true),
    ("range_first", "range", Cell::Nth(0), false),
    ("range_last", "range", Cell::Nth(1), false),
    ("range_total", "range", Cell::Nth(2), false),
    ("ttfb_ms", "ttfb_ms", Cell::Number, true),
    ("cache", "cache", Cell::Text, true),
    ("policy", "policy", Cell::Text, false),
    ("tags", "tags", Cell::Texts, true),
    ("ua", "ua", Cell::Text, false),
    ("ip_hash", "ip_hash", Cell::Text, false),
    ("cmcd", "cmcd", Cell::Json, false),
    ("complete", "complete", Cell::Flag, true),
    ("recovered", "recovered", Cell::Flag, false),
];

const DENIALS: &[Field] = &[
    ("id", "id", Cell::Text, true),
    ("ts", "ts", Cell::Time, true),
    ("edge", "edge", Cell::Text, true),
    ("track", "track", Cell::Text, false),
    ("path", "path", Cell::Text, true),
    ("reason", "reason", Cell::Text, true),
    ("status", "status", Cell::Number, true),
    ("sid", "sid", Cell::Text, false),
    ("ip_hash", "ip_hash", Cell::Text, false),
    ("ua", "ua", Cell::Text, false),
];

const PLAYS: &[Field] = &[
    ("id", "id", Cell::Text, true),
    ("track", "track", Cell::Text, true),
    ("sid", "sid", Cell::Text, true),
    ("sub", "sub", Cell::Text, false),
    ("first", "first_ms", Cell::Time, true),
    ("last", "last_ms", Cell::Time, true),
    ("ended", "ended_ms", Cell::Time, false),
    ("playing", "playing", Cell::Flag, true),
    ("media_ms", "media_ms", Cell::Number, true),
    ("qualified", "qualified", Cell::Flag, true),
    ("quartile", "quartile", Cell::Number, true),
    ("decile", "decile", Cell::Number, true),
];

impl Table {
    /// The word in `?kind=`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Denials => "denials",
            Self::Plays => "plays",
        }
    }

    fn fields(self) -> &'static [Field] {
        match self {
            Self::Facts => FACTS,
            Self::Denials => DENIALS,
            Self::Plays => PLAYS,
        }
    }

    /// The schema in Parquet's own notation.
    fn schema(self) -> String {
        let column = |(name, _, cell, must): &Field| {
            let how = if *must { "required" } else { "optional" };
            match cell {
                Cell::Text | Cell::Json => format!("  {how} binary {name} (STRING);\n"),
                Cell::Texts => format!(
                    "  required group {name} (LIST) {{\n    repeated group list {{\n      required binary element (STRING);\n    }}\n  }}\n"
                ),
                Cell::Number | Cell::Nth(_) => format!("  {how} int64 {name};\n"),
                Cell::Time => format!("  {how} int64 {name} (TIMESTAMP(MILLIS,true));\n"),
                Cell::Flag => format!("  {how} boolean {name};\n"),
            }
        };
        let columns: String = self.fields().iter().map(column).collect();
        format!("message {} {{\n{columns}}}", self.word())
    }
}

/// An export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A line is not what its kind is.
    #[error("line {line} is not one of {table}: {problem}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The kind.
        table: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The file could not be written.
    #[error("Parquet: {0}")]
    Parquet(#[from] ParquetError),
}

/// The values of a column in the row group that is gathered, with Parquet's definition and repetition levels.
#[derive(Debug)]
struct Column {
    field: Field,
    values: Values,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

#[derive(Debug)]
enum Values {
    Text(Vec<ByteArray>),
    Number(Vec<i64>),
    Flag(Vec<bool>),
}

impl Column {
    fn new(field: Field) -> Self {
        let values = match field.2 {
            Cell::Text | Cell::Json | Cell::Texts => Values::Text(Vec::new()),
            Cell::Number | Cell::Time | Cell::Nth(_) => Values::Number(Vec::new()),
            Cell::Flag => Values::Flag(Vec::new()),
        };
        Self { field, values, defined: Vec::new(), repeated: Vec::new() }
    }

    /// Takes the value of one row. The error says what is wrong with it.
    fn push(&mut self, row: &Map<String, Value>) -> Result<(), String> {
        let (name, from, cell, must) = self.field;
        let value = row.get(from).filter(|value| !value.is_null());
        if cell == Cell::Texts {
            return self.push_texts(value);
        }
        let Some(value) = value else {
            self.defined.push(0);
            return if must { Err(format!("it has no {from}")) } else { Ok(()) };
        };
        self.defined.push(1);
        let taken = match (&mut self.values, cell) {
            (Values::Text(texts), Cell::Json) => {
                texts.push(value.to_string().into_bytes().into());
                Some(())
            }
            (Values::Text(texts), _) => value.as_str().map(|text| texts.push(text.into())),
            (Values::Number(numbers), Cell::Nth(nth)) => {
                value.get(nth).and_then(Value::as_i64).map(|number| numbers.push(number))
            }
            (Values::Number(numbers), _) => value.as_i64().map(|number| numbers.push(number)),
            (Values::Flag(flags), _) => value.as_bool().map(|flag| flags.push(flag)),
        };
        taken.ok_or_else(|| format!("{name} is {value}"))
    }

    fn push_texts(&mut self, value: Option<&Value>) -> Result<(), String> {
        let none = Vec::new();
        let list = match value {
            None => &none,
            Some(value) => value.as_array().ok_or_else(|| format!("{} is {value}", self.field.0))?,
        };
        if list.is_empty() {
            self.defined.push(0);
            self.repeated.push(0);
        }
        for (n, text) in list.iter().enumerate() {
            let text = text.as_str().ok_or_else(|| format!("{} holds {text}", self.field.0))?;
            if let Values::Text(texts) = &mut self.values {
                texts.push(text.into());
            }
            self.defined.push(1);
            self.repeated.push(i16::from(n > 0));
        }
        Ok(())
    }
}

/// A Parquet file that is being written.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    table: Table,
    columns: Vec<Column>,
    /// Rows that are gathered.
    gathered: usize,
    lines: u64,
}

impl<W: Write + Send> std::fmt::Debug for ParquetFile<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile").field("table", &self.table).field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(out: W, table: Table) -> Result<Self, ExportError> {
        let schema = Arc::new(parse_message_type(&table.schema())?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("segue ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        Ok(Self { writer, table, columns: columns(table), gathered: 0, lines: 0 })
    }

    /// Takes one line of JSON.
    ///
    /// # Errors
    /// When it is not one of the table's, or the file cannot be written.
    pub fn push(&mut self, line: &str) -> Result<(), ExportError> {
        self.lines += 1;
        let (number, table) = (self.lines, self.table.word());
        let wrong = |problem: String| ExportError::Line { line: number, table, problem };
        let row: Map<String, Value> = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        for column in &mut self.columns {
            column.push(&row).map_err(wrong)?;
        }
        self.gathered += 1;
        if self.gathered >= ROWS { self.flush() } else { Ok(()) }
    }

    /// Writes what is left, and the end. Gives the number of rows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<(u64, W), ExportError> {
        if self.gathered > 0 {
            self.flush()?;
        }
        Ok((self.lines, self.writer.into_inner()?))
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        let mut group = self.writer.next_row_group()?;
        for column in std::mem::replace(&mut self.columns, columns(self.table)) {
            let Some(mut writer) = group.next_column()? else { break };
            let listed = column.field.2 == Cell::Texts;
            let defined = (listed || !column.field.3).then_some(column.defined.as_slice());
            let repeated = listed.then_some(column.repeated.as_slice());
            match &column.values {
                Values::Text(texts) => writer.typed::<ByteArrayType>().write_batch(texts, defined, repeated)?,
                Values::Number(numbers) => writer.typed::<Int64Type>().write_batch(numbers, defined, repeated)?,
                Values::Flag(flags) => writer.typed::<BoolType>().write_batch(flags, defined, repeated)?,
            };
            writer.close()?;
        }
        group.close()?;
        self.gathered = 0;
        Ok(())
    }
}

fn columns(table: Table) -> Vec<Column> {
    table.fields().iter().copied().map(Column::new).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use serde_json::json;

    use super::*;

    fn fact(n: i64) -> Value {
        json!({
            "v": 1, "id": format!("e-1-{n}"), "ts": 1_700_000_000_000_i64 + n, "edge": "e", "track": "t", "file": "f", "kind": "segment",
            "sid": "s", "status": 200, "bytes": n, "ttfb_ms": 1, "cache": "miss", "complete": n % 2 == 0,
        })
    }

    #[test]
    fn rows_read_back_over_several_groups() {
        let mut file = ParquetFile::new(Vec::new(), Table::Facts).unwrap();
        let rows = ROWS as i64 + 7;
        for n in 0..rows {
            let mut fact = fact(n);
            if n == 3 {
                fact["tags"] = json!(["a", "b\"c"]);
                fact["cmcd"] = json!({ "bs": true });
                fact["range"] = json!([0, 1, 9]);
                fact["sub"] = json!("somebody");
            }
            file.push(&fact.to_string()).unwrap();
        }
        let (written, bytes) = file.finish().unwrap();
        assert_eq!(written, rows as u64);
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let read: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(read.len(), rows as usize);
        for part in ["tags: [\"a\", \"b", "bs", "range_total: 9", "sub: \"somebody\"", "complete: false"] {
            assert!(read[3].contains(part), "{part}: {}", read[3]);
        }
        let last = read.last().unwrap();
        for part in [format!("bytes: {}", rows - 1), "tags: []".to_owned(), "sub: null".to_owned()] {
            assert!(last.contains(&part), "{part}: {last}");
        }
    }

    #[test]
    fn what_is_no_row_of_the_table_is_an_error() {
        for (line, table) in [
            ("noise".to_owned(), Table::Facts),
            (json!({ "id": "x" }).to_string(), Table::Facts),
            (fact(1).to_string(), Table::Denials),
            (fact(1).to_string().replace("200", "\"ok\""), Table::Facts),
        ] {
            assert!(ParquetFile::new(Vec::new(), table).unwrap().push(&line).is_err(), "{line}");
        }
        let empty = ParquetFile::new(Vec::new(), Table::Plays).unwrap().finish().unwrap();
        assert_eq!(empty.0, 0);
        assert_eq!(&empty.1[..4], b"PAR1");
    }
}
