//! The `ftwall` program: parse what was typed, run it, answer with an exit code.

fn main() {}
