//! [`Archive`]: single files of a tar file, plain or compressed with gzip, without unpacking it.
//!
//! What two readers of the format could understand differently is refused, so that what was judged is what will be
//! unpacked. POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Interchange Format"; GNU tar, "Basic Tar Format".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::MultiGzDecoder;

use super::{invalid, unreadable};
use crate::config::RegularFile;
use crate::fetch::{Budget, Error};

/// Most bytes that are unpacked in one pass over an archive, or out of one layer: 64 GiB, several times the largest
/// images.
const INFLATED_BYTES: u64 = 64 << 30;

/// Largest extension header: 1 MiB, as Go's archive/tar allows.
const EXTENSION_BYTES: u64 = 1 << 20;

/// Length of a header, and what contents are filled up to.
const BLOCK: usize = 512;

/// What is unpacked at once, so that the deadline is looked at in between: 64 KiB.
const CHUNK: usize = 64 << 10;

/// A tar file.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    compressed: bool,
    deadline: Instant,
    inflated: u64,
}

impl Archive {
    /// Opens the file and sees how it is compressed.
    pub(super) fn open(path: &Path, deadline: Instant) -> Result<Self, Error> {
        let file = RegularFile::open(path).map_err(|error| unreadable(path, &error))?;
        let mut file = file.into_file();
        let start = first_bytes(&mut file).map_err(|error| unreadable(path, &error))?;
        let compressed = match Compression::of(&start) {
            Compression::None => false,
            Compression::Gzip => true,
            Compression::Other(name) => return Err(unsupported(path, name)),
        };
        Ok(Self { path: path.to_owned(), file, compressed, deadline, inflated: INFLATED_BYTES })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The contents of the only file of that name.
    ///
    /// Stricter than the reference, which takes the first of several or the last, and follows links.
    pub(super) fn file(&self, name: &str, limit: usize, budget: &Budget) -> Result<Vec<u8>, Error> {
        let place = self.path.join(name);
        let mut entries = self.entries()?;
        let mut found = None;
        while let Some(entry) = entries.next().map_err(|error| unreadable(&self.path, &error))? {
            if entry.name != name.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(invalid(&place, "it is in the archive twice"));
            }
            if entry.kind != Kind::File {
                return Err(invalid(&place, "it is a link or no regular file"));
            }
            if usize::try_from(entry.size).map_or(true, |size| size > limit) {
                return Err(invalid(&place, &format!("it is larger than {limit} bytes")));
            }
            let mut bytes = Vec::new();
            entries.read_to_end(&mut bytes).map_err(|error| unreadable(&place, &error))?;
            budget.bytes(bytes.len())?;
            found = Some(bytes);
        }
        found.ok_or_else(|| invalid(&place, "there is no such file in the archive"))
    }

    /// How long each of these files is, unpacked if it is compressed itself; a link is 0 long, as in the reference.
    pub(super) fn unpacked_sizes(&self, names: &BTreeSet<Vec<u8>>) -> Result<BTreeMap<Vec<u8>, u64>, Error> {
        let mut sizes = BTreeMap::new();
        let mut entries = self.entries()?;
        while let Some(entry) = entries.next().map_err(|error| unreadable(&self.path, &error))? {
            if !names.contains(&entry.name) {
                continue;
            }
            let place = self.path.join(String::from_utf8_lossy(&entry.name).as_ref());
            let size = match entry.kind {
                Kind::File => {
                    let start = first_bytes(&mut entries).map_err(|error| unreadable(&place, &error))?;
                    match Compression::of(&start) {
                        Compression::None => entry.size,
                        Compression::Gzip => {
                            let layer =
                                MultiGzDecoder::new(BufReader::new(start.as_slice().chain(&mut entries)));
                            count(layer, self.deadline, self.inflated)
                                .map_err(|error| unreadable(&place, &error))?
                        }
                        Compression::Other(name) => return Err(unsupported(&place, name)),
                    }
                }
                Kind::Link => 0,
                Kind::Other => return Err(invalid(&place, "it is no regular file")),
            };
            if sizes.insert(entry.name, size).is_some() {
                return Err(invalid(&place, "it is in the archive twice"));
            }
        }
        Ok(sizes)
    }

    fn entries(&self) -> Result<Entries<'_>, Error> {
        let mut file = &self.file;
        file.rewind().map_err(|error| unreadable(&self.path, &error))?;
        let source = if self.compressed {
            let file = Hurried { file, deadline: self.deadline };
            Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file))))
        } else {
            Source::Plain(file)
        };
        Ok(Entries {
            stream: Stream { source, left: self.inflated, limit: self.inflated, deadline: self.deadline },
            left: 0,
            padding: 0,
        })
    }
}

/// What the beginning of a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    None,
    /// One that is not read here.
    Other(&'static str),
}

impl Compression {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Other("zstd"),
            _ => Self::None,
        }
    }
}

fn unsupported(path: &Path, compression: &str) -> Error {
    let advice = "which is not supported: decompress it first";
    invalid(path, &format!("it is compressed with {compression}, {advice}"))
}

/// As many bytes as tell the compression, fewer at the end of the file.
fn first_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    from.take(6).read_to_end(&mut start)?;
    Ok(start)
}

/// The number of bytes that are still to come.
fn count(mut from: impl Read, deadline: Instant, limit: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        check(deadline)?;
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(total);
        }
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > limit {
            return Err(beyond(limit));
        }
    }
}

fn check(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
}

fn beyond(limit: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it unpacks to more than {limit} bytes"))
}

fn malformed(detail: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, detail)
}

/// The bytes of the tar format.
struct Stream<'f> {
    source: Source<'f>,
    /// What may still be unpacked.
    left: u64,
    limit: u64,
    deadline: Instant,
}

enum Source<'f> {
    Gzip(Box<MultiGzDecoder<BufReader<Hurried<'f>>>>),
    Plain(&'f File),
}

/// A file that has nothing more when time is up: empty members could keep the decoder busy without end.
struct Hurried<'f> {
    file: &'f File,
    deadline: Instant,
}

impl Read for Hurried<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(self.deadline)?;
        self.file.read(buffer)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(self.deadline)?;
        match &mut self.source {
            Source::Gzip(decoder) => {
                let room = buffer.len().min(CHUNK);
                let count = decoder.read(buffer.get_mut(..room).unwrap_or_default())?;
                let taken = u64::try_from(count).unwrap_or(u64::MAX);
                self.left = self.left.checked_sub(taken).ok_or_else(|| beyond(self.limit))?;
                Ok(count)
            }
            Source::Plain(file) => file.read(buffer),
        }
    }
}

impl Stream<'_> {
    /// Passes over bytes. If they are not all there, what comes after them is not either.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if let Source::Plain(file) = &mut self.source {
            check(self.deadline)?;
            let end = file.stream_position()?.checked_add(count).ok_or_else(|| malformed(TRUNCATED))?;
            return file.seek(SeekFrom::Start(end)).map(|_| ());
        }
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(malformed(TRUNCATED)) }
    }

    /// The next block; nothing at the end of the file.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = Vec::with_capacity(BLOCK);
        self.by_ref().take(u64::try_from(BLOCK).unwrap_or(u64::MAX)).read_to_end(&mut block)?;
        match <[u8; BLOCK]>::try_from(block) {
            Ok(block) => Ok(Some(block)),
            Err(block) if block.is_empty() => Ok(None),
            Err(_) => Err(malformed(TRUNCATED)),
        }
    }
}

const TRUNCATED: &str = "the archive is cut off";

/// What is in an archive, in order. Reads as the contents of the entry that was given last.
struct Entries<'f> {
    stream: Stream<'f>,
    /// What is left of the contents.
    left: u64,
    /// What fills up the last block of the contents.
    padding: u64,
}

/// One file or something else.
#[derive(Debug)]
struct Entry {
    /// Relative, in its shortest form.
    name: Vec<u8>,
    kind: Kind,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Link,
    Other,
}

impl Read for Entries<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.stream.read(buffer.get_mut(..room).unwrap_or_default())?;
        if count == 0 {
            return Err(malformed(TRUNCATED));
        }
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

impl Entries<'_> {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.pass()?;
            let Some(block) = self.stream.block()? else { return Err(malformed(TRUNCATED)) };
            if block.iter().all(|b| *b == 0) {
                if !extensions.is_empty() {
                    return Err(malformed("an extension header belongs to no entry"));
                }
                self.end()?;
                return Ok(None);
            }
            let header = Header::read(&block)?;
            self.enter(header.size)?;
            match header.kind {
                b'x' => put(&mut extensions.pax, Pax::read(&self.extension()?)?)?,
                b'g' => {
                    if Pax::read(&self.extension()?)? != Pax::default() {
                        return Err(malformed("a global extension header changes names or sizes"));
                    }
                }
                b'L' => put(&mut extensions.long_name, until_nul(&self.extension()?).to_vec())?,
                b'K' => put(&mut extensions.long_link, ()).and_then(|()| self.extension().map(drop))?,
                b'S' => return Err(malformed("sparse files are not supported")),
                _ => return self.entry(header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: Header, extensions: Extensions) -> io::Result<Entry> {
        let Extensions { pax, long_name, .. } = extensions;
        let Pax { path, size } = pax.unwrap_or_default();
        let raw = match (path, long_name) {
            (Some(_), Some(_)) => return Err(malformed("an entry has two long names")),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => header.name,
        };
        // Readers without extended headers would go on at another place.
        let size = match size {
            Some(size) if size == header.size || size >= OCTAL_SIZES => size,
            Some(_) => return Err(malformed("an entry has two sizes")),
            None => header.size,
        };
        let kind = match header.kind {
            b'0' | 0 if !raw.ends_with(b"/") => Kind::File,
            b'1' | b'2' => Kind::Link,
            _ => Kind::Other,
        };
        if size != 0 && matches!(header.kind, b'1'..=b'6') {
            return Err(malformed("an entry that is no file has a size"));
        }
        self.enter(size)?;
        Ok(Entry { name: clean(&raw)?, kind, size })
    }

    fn enter(&mut self, size: u64) -> io::Result<()> {
        let block = u64::try_from(BLOCK).unwrap_or(u64::MAX);
        self.left = size;
        self.padding =
            size.checked_next_multiple_of(block).ok_or_else(|| malformed("an entry is too long"))? - size;
        Ok(())
    }

    /// Leaves what was not read of the last entry behind.
    fn pass(&mut self) -> io::Result<()> {
        let rest = self.left.checked_add(self.padding).ok_or_else(|| malformed("an entry is too long"))?;
        (self.left, self.padding) = (0, 0);
        self.stream.skip(rest)
    }

    /// The contents of an extension header.
    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.left > EXTENSION_BYTES {
            return Err(malformed("an extension header is too long"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// After one block of zeros only a second one may come; what is behind it no reader looks at.
    fn end(&mut self) -> io::Result<()> {
        if self.stream.block()?.is_some_and(|block| block.iter().any(|b| *b != 0)) {
            return Err(malformed("there is more after the end mark"));
        }
        if matches!(self.stream.source, Source::Gzip(_)) {
            // The end of the compressed data shows whether any of it was damaged.
            io::copy(&mut self.stream, &mut io::sink())?;
        }
        Ok(())
    }
}

fn put<T>(place: &mut Option<T>, value: T) -> io::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed("an entry has two extension headers of one kind")),
    }
}

/// From this size on, 8 GiB, the eleven octal digits of a header do not suffice.
const OCTAL_SIZES: u64 = 1 << 33;

/// What extension headers say of the next entry.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<()>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// The records of an extended header that count here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Pax {
    /// Each record is its length in decimal, a space, `key=value` and a line end.
    fn read(mut text: &[u8]) -> io::Result<Self> {
        let wrong = || malformed("an extended header is malformed");
        let mut pax = Self::default();
        while !text.is_empty() {
            let space = text.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
            let length: usize = decimal(text.get(..space).unwrap_or_default()).ok_or_else(wrong)?;
            let (record, rest) = text.split_at_checked(length).ok_or_else(wrong)?;
            let record = record.get(space.saturating_add(1)..).and_then(|r| r.strip_suffix(b"\n"));
            let record = record.ok_or_else(wrong)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let (key, value) = (record.get(..equals), record.get(equals.saturating_add(1)..));
            let (key, value) = key.zip(value).ok_or_else(wrong)?;
            match key {
                b"path" if !value.is_empty() && !value.contains(&0) => put(&mut pax.path, value.to_vec())?,
                b"size" => put(&mut pax.size, decimal(value).ok_or_else(wrong)?)?,
                b"path" => return Err(wrong()),
                _ if key.starts_with(b"GNU.sparse") => {
                    return Err(malformed("sparse files are not supported"));
                }
                _ => {}
            }
            text = rest;
        }
        Ok(pax)
    }
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// What counts of the header of an entry.
struct Header {
    name: Vec<u8>,
    kind: u8,
    size: u64,
}

impl Header {
    fn read(block: &[u8; BLOCK]) -> io::Result<Self> {
        let field =
            |start: usize, length: usize| block.get(start..start.saturating_add(length)).unwrap_or_default();
        let (checksum, kind) = (field(148, 8), field(156, 1).first().copied().unwrap_or_default());
        let wanted = number(checksum).ok_or_else(|| malformed(NO_TAR))?;
        // The checksum is made with blanks in its own place. Some writers count bytes with a sign.
        let bytes =
            || block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { b' ' } else { *b });
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
        if unsigned != wanted && i64::try_from(wanted).ok() != Some(signed) {
            return Err(malformed(NO_TAR));
        }
        let size = number(field(124, 12)).ok_or_else(|| malformed("an entry has no valid size"))?;
        let prefix = match (field(257, 8), field(508, 4)) {
            // GNU keeps times there, and there were writers that did not know.
            (b"ustar  \0", _) if field(345, 1) != [0] && number(field(345, 12)).is_none() => {
                return Err(malformed("an entry has two names"));
            }
            (b"ustar  \0", _) => &[],
            ([b'u', b's', b't', b'a', b'r', 0, ..], b"tar\0") => until_nul(field(345, 131)),
            ([b'u', b's', b't', b'a', b'r', 0, ..], _) => until_nul(field(345, 155)),
            _ => &[],
        };
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(until_nul(field(0, 100)));
        Ok(Self { name, kind, size })
    }
}

const NO_TAR: &str = "it is no tar file, or it is damaged";

/// Octal digits among blanks and zero bytes, or a binary number marked by the highest bit; never negative.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        return rest
            .iter()
            .try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().rposition(|b| !blank(b)).map_or(0, |at| at.saturating_add(1));
    let digits = std::str::from_utf8(digits.get(..end)?).ok()?;
    match digits {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => u64::from_str_radix(digits, 8).ok(),
        _ => None,
    }
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|b| *b == 0).next().unwrap_or_default()
}

/// The name without empty parts and `.`. One that leads out of the archive is refused: unpacked, it could be any file.
fn clean(name: &[u8]) -> io::Result<Vec<u8>> {
    if name.starts_with(b"/") || name.split(|b| *b == b'/').any(|part| part == b"..") {
        return Err(malformed("an entry leads out of the archive"));
    }
    let parts: Vec<&[u8]> =
        name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use flate2::Compression as Level;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_without_contents_are_unpacked_no_longer_than_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        std::fs::write(&path, gzip(b"").repeat(10_000)).unwrap();
        let file = File::open(&path).unwrap();
        let read = |deadline| {
            let mut bytes = Vec::new();
            let file = Hurried { file: &file, deadline };
            MultiGzDecoder::new(BufReader::new(file)).read_to_end(&mut bytes).map_err(|error| error.kind())
        };
        assert_eq!(read(Instant::now()), Err(ErrorKind::TimedOut));
        assert_eq!(read(Instant::now() + Duration::from_secs(60)), Ok(0));
    }

    // Rule T-28.
    #[test]
    fn unpacking_ends_at_the_limit() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in [("a", &b"a"[..]), ("layer", &gzip(&[0; 50_000]))] {
            let mut header = tar::Header::new_ustar();
            header.set_size(u64::try_from(content.len()).unwrap());
            tar.append_data(&mut header, name, content).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let names = BTreeSet::from([b"layer".to_vec()]);
        let total = u64::try_from(tar.len()).unwrap();
        for (bytes, limit, file, layer) in [
            (tar.clone(), 50_000, true, true),
            (tar.clone(), 49_999, true, false),
            (gzip(&tar), total.max(50_000), true, true),
            (gzip(&tar), total - 1, false, false),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let mut archive = Archive::open(&path, Instant::now() + Duration::from_secs(60)).unwrap();
            archive.inflated = limit;
            assert_eq!(archive.file("a", 1, &Budget::new()).is_ok(), file, "{limit}");
            let sizes = archive.unpacked_sizes(&names);
            assert_eq!(sizes.is_ok(), layer, "{limit}: {sizes:?}");
            if let Err(error) = sizes {
                assert!(error.to_string().contains("unpacks to more than"), "{error}");
            }
        }
    }
}
