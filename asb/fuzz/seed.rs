//! Cuts the golden files into the corpora that fuzzing starts from:
//!
//! ```text
//! cargo run --manifest-path asb/fuzz/Cargo.toml --example seed
//! cargo fuzz run --fuzz-dir asb/fuzz text
//! ```

use std::{fs, io, path::Path};

use abs_asb::{Header, Position, Skimmer};

/// Longest input worth mutating, in bytes.
const LONGEST: usize = 16 << 10;

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = fuzz.join("../../tests/golden");
    for form in ["plain", "compact"] {
        for file in fs::read_dir(golden.join("asb").join(form))? {
            let text = fs::read(file?.path())?;
            items(&text, |count, items| {
                save(&fuzz.join("corpus/text"), &format!("{form}-{count}"), &[b"\xa5\x5a", items])
            })?;
            let start = &text[..LONGEST.min(text.len())];
            save(&fuzz.join("corpus/frame"), &format!("{form}-{}", text.len()), &[b"\x12\x30\x40", start])?;
        }
    }
    for file in fs::read_dir(golden.join("asb/zstd"))? {
        let bytes = fs::read(file?.path())?;
        let start = &bytes[..LONGEST.min(bytes.len())];
        save(&fuzz.join("corpus/frame"), &format!("zstd-{}", bytes.len()), &[b"\x00\xff\xff", start])?;
    }
    let key = fs::read(golden.join("test-key.b64"))?;
    save(&fuzz.join("corpus/frame"), "key", &[b"\x01\x00\x00", &key])
}

/// Gives every short group of whole items.
fn items(text: &[u8], mut give: impl FnMut(usize, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let Ok(Some((_, mut start, _))) = Header::parse(text, true) else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut skimmer = Skimmer::new(Position::START);
    let mut end = start;
    while end < text.len() {
        end = text.len().min(end + 1024);
        let skim = skimmer.skim(&text[start..end]).map_err(io::Error::other)?;
        if (1..LONGEST).contains(&skim.len) {
            give(start, &text[start..start + skim.len])?;
        }
        start += skim.len;
    }
    Ok(())
}

fn save(corpus: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    fs::create_dir_all(corpus)?;
    fs::write(corpus.join(name), parts.concat())
}
