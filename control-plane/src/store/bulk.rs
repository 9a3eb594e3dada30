//! Statements over many rows, and where engines differ in how they are spelled.
//!
//! The tally writes some thousand rows a transaction: one statement for each would cost it most of its time. Statements come in a few sizes
//! ([`sizes`]), so that each is prepared once.

use super::dialect::Dialect;

/// Rows of one statement. The widest has 71 columns; SQLite takes 32,766 values a statement, MariaDB 65,535.
const SIZES: [usize; 3] = [200, 20, 1];

/// What happens to a row that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// An error: it cannot be.
    Never,
    /// It gets the new values.
    Replaced,
    /// The new numbers are added to it.
    Added,
}

/// Cuts rows into pieces of the sizes that statements come in.
pub(super) fn sizes<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// `INSERT` of so many rows. `keys` are the primary key's columns, `others` the rest, bound in this order.
pub(super) fn insert<C: AsRef<str>>(
    dialect: Dialect,
    table: &str,
    keys: &[&str],
    others: &[C],
    rows: usize,
    there: There,
) -> String {
    let columns: Vec<&str> = keys.iter().copied().chain(others.iter().map(AsRef::as_ref)).collect();
    let mut sql = format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), tuples(columns.len(), rows));
    if there == There::Never {
        return sql;
    }
    match dialect {
        Dialect::Sqlite => sql.push_str(&format!(" ON CONFLICT ({}) DO UPDATE SET ", keys.join(", "))),
        Dialect::Mysql => sql.push_str(" ON DUPLICATE KEY UPDATE "),
    }
    for (n, column) in others.iter().map(AsRef::as_ref).enumerate() {
        sql.push_str(if n == 0 { "" } else { ", " });
        sql.push_str(column);
        sql.push_str(" = ");
        if there == There::Added {
            sql.push_str(&format!("{table}.{column} + "));
        }
        sql.push_str(&match dialect {
            Dialect::Sqlite => format!("excluded.{column}"),
            Dialect::Mysql => format!("VALUES({column})"),
        });
    }
    sql
}

/// A condition: the columns are one of so many rows.
pub(super) fn one_of(dialect: Dialect, columns: &[&str], rows: usize) -> String {
    match (columns, dialect) {
        ([column], _) => format!("{column} IN ({})", vec!["?"; rows].join(", ")),
        (_, Dialect::Sqlite) => format!("({}) IN (VALUES {})", columns.join(", "), tuples(columns.len(), rows)),
        (_, Dialect::Mysql) => format!("({}) IN ({})", columns.join(", "), tuples(columns.len(), rows)),
    }
}

fn tuples(columns: usize, rows: usize) -> String {
    let tuple = format!("({})", vec!["?"; columns].join(", "));
    vec![tuple; rows].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_few_sizes_and_leave_nothing_out() {
        let rows: Vec<u32> = (0..463).collect();
        let pieces: Vec<&[u32]> = sizes(&rows).collect();
        assert!(pieces.iter().all(|piece| SIZES.contains(&piece.len())));
        assert_eq!(pieces.concat(), rows);
    }

    #[test]
    fn each_speaks_its_own() {
        let both = [Dialect::Sqlite, Dialect::Mysql];
        assert_eq!(
            both.map(|dialect| insert(dialect, "t", &["a"], &["b", "c"], 2, There::Added)),
            [
                "INSERT INTO t (a, b, c) VALUES (?, ?, ?), (?, ?, ?) ON CONFLICT (a) DO UPDATE SET b = t.b + excluded.b, c = t.c + excluded.c",
                "INSERT INTO t (a, b, c) VALUES (?, ?, ?), (?, ?, ?) ON DUPLICATE KEY UPDATE b = t.b + VALUES(b), c = t.c + VALUES(c)",
            ]
        );
        assert_eq!(
            both.map(|dialect| one_of(dialect, &["a", "b"], 2)),
            ["(a, b) IN (VALUES (?, ?), (?, ?))", "(a, b) IN ((?, ?), (?, ?))"]
        );
        assert_eq!(both.map(|dialect| one_of(dialect, &["a"], 2)), ["a IN (?, ?)"; 2]);
    }
}
