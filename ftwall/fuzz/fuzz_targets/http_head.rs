//! What is claimed stands in `ftwall/src/fuzzing/http_head.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("http_head", octets));
