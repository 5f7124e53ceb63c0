//! Any bytes as a compressed file, as an encryption key, and as text that is framed and comes back.
#![no_main]

use abs_asb::{Cipher, Decompressor, Decryptor, EncryptionKey, FileOrigin, FrameWriter, GcmHead};

const KEY: &str = include_str!("../../../tests/golden/test-key.b64");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[how, room, piece], bytes)) = bytes.split_first_chunk() else { return };
    let room = 1 + usize::from(room) * 16;
    let piece = 1 + usize::from(piece);
    match how % 8 {
        0 => {
            let _ = decompress(bytes, piece, room);
        }
        1 => {
            if let Ok(text) = str::from_utf8(bytes) {
                let _ = EncryptionKey::from_pem_or_base64(text, Cipher::Aes256);
            }
        }
        2 => {
            if let Ok(Some(head)) = GcmHead::parse(bytes) {
                assert!(head.length() <= bytes.len());
            }
        }
        cipher => {
            let ciphers = [Cipher::Aes128, Cipher::Aes256, Cipher::Aes128Gcm, Cipher::Aes256Gcm];
            let key = EncryptionKey::from_pem_or_base64(KEY, ciphers[usize::from(cipher) % 4]).unwrap();
            let level = i32::from(how >> 4);
            let mut writer = FrameWriter::new(Some(level), Some(&key), FileOrigin { run: "run", name: "0_n_1.asb" }).unwrap();
            let mut file = Vec::new();
            for block in bytes.chunks(piece * 7) {
                let mut block = block.to_vec();
                writer.seal(&mut block).unwrap();
                file.extend_from_slice(&block);
            }
            writer.finish(&mut file).unwrap();
            let mut decryptor = if GcmHead::begins(&file) {
                let head = GcmHead::parse(&file).unwrap().unwrap();
                file.drain(..head.length());
                Decryptor::gcm(&key, head).unwrap()
            } else {
                let head = *file.first_chunk().unwrap();
                file.drain(..head.len());
                Decryptor::ctr(&key, head).unwrap()
            };
            decryptor.decrypt(&mut file, 0, true).unwrap();
            assert!(decompress(&file, piece, room).as_deref() == Some(bytes));
        }
    }
});

/// The text of a whole stream.
fn decompress(bytes: &[u8], piece: usize, room: usize) -> Option<Vec<u8>> {
    let mut decompressor = Decompressor::new().unwrap();
    let mut text = Vec::new();
    for mut input in bytes.chunks(piece) {
        loop {
            let before = text.len();
            let taken = decompressor.step(input, &mut text, room).ok()?;
            assert!(text.len() - before <= room);
            input = &input[taken..];
            if input.is_empty() && text.len() - before < room {
                break;
            }
            // A bomb is let go when its room is known to be kept.
            if text.len() > 1 << 20 {
                return None;
            }
        }
    }
    decompressor.finished().then_some(text)
}
