//! `lab doctor` and `lab shell`.

fn main() {}
