//! Reading an object.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{blocking, failure};
use crate::{ByteRange, ObjectReader, Result, Verb};

/// Opens a file that is an object. Blocks.
pub(super) fn open_file(path: &Path) -> io::Result<(File, Metadata)> {
    // A file where a folder should be, and a folder, a pipe or a device where a file should be: no such object.
    // Asked before opening, because opening a pipe waits for its other end.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(io::ErrorKind::NotFound.into()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(io::ErrorKind::NotFound.into());
        }
        Err(error) => return Err(error),
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// An object of a local folder, being read.
#[derive(Debug)]
pub(super) struct LocalReader {
    place: PathBuf,
    file: Arc<File>,
    size: u64,
    /// Bytes of the range still to be read.
    left: u64,
}

impl LocalReader {
    /// Opens the bytes `range` of the object `place`. Blocks.
    pub(super) fn open(place: &Path, range: ByteRange) -> io::Result<Self> {
        let (mut file, metadata) = open_file(place)?;
        let size = metadata.len();
        let end = range.end.unwrap_or(size).min(size);
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start.min(size)))?;
        }
        // The kernel reads ahead twice as far then; without it the reads are right, only slower.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Self {
            place: place.to_path_buf(),
            file: Arc::new(file),
            size,
            left: end.saturating_sub(range.start),
        })
    }
}

#[async_trait]
impl ObjectReader for LocalReader {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<usize> {
        let want = self.left.min(max as u64);
        if want == 0 {
            return Ok(0);
        }
        let file = Arc::clone(&self.file);
        let mut taken = std::mem::take(buffer);
        let before = taken.len();
        // Reads into the spare capacity, which is not filled with zeros first.
        *buffer = blocking(Verb::Read, self.place.clone(), move |_| {
            taken.reserve(want as usize);
            (&*file).take(want).read_to_end(&mut taken)?;
            Ok(taken)
        })
        .await?;
        let read = buffer.len() - before;
        if (read as u64) < want {
            let error =
                io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read");
            return Err(failure(Verb::Read, &self.place)(error));
        }
        self.left -= want;
        Ok(read)
    }

    fn size(&self) -> u64 {
        self.size
    }
}
