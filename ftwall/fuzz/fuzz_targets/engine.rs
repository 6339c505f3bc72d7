//! What is claimed stands in `ftwall/src/fuzzing/engine.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("engine", octets));
