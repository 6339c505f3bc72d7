//! What is claimed stands in `ftwall/src/fuzzing/rules_text.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("rules_text", octets));
