//! What came of a run, for people: a table on the terminal, pages in a directory.

mod table;

pub use table::Table;
