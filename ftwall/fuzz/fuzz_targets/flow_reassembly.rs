//! What is claimed stands in `ftwall/src/fuzzing/flow_reassembly.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("flow_reassembly", octets));
