//! Any bytes as text, in one piece and in many: the same verdict everywhere, and never a panic.
#![no_main]

#[path = "../../tests/agree/mod.rs"]
mod agree;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agree::check(bytes));
