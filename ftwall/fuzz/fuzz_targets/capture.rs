//! What is claimed stands in `ftwall/src/fuzzing/capture.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("capture", octets));
