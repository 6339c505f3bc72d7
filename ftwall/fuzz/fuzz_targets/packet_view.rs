//! What is claimed stands in `ftwall/src/fuzzing/packet_view.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ftwall::fuzzing::check("packet_view", octets));
