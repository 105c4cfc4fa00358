//! [`RegularFile`]: a file opened without waiting for anybody, and read up to a limit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::FILES;

/// Device number of `/dev/null`, to which masked configuration links; null(4).
const NULL_DEVICE: u64 = 0x103;

/// How long a file must have been left alone before its identity tells its contents: 2 s (T-23).
const SETTLED: Duration = Duration::from_secs(2);

/// An open regular file, or `/dev/null`, which reads as empty.
#[derive(Debug)]
pub struct RegularFile {
    file: File,
    metadata: Metadata,
}

impl RegularFile {
    /// Opens the file; a FIFO or a device is an error and never waited for.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Opening some devices does something, such as starting a watchdog; what came in between, fstat(2) shows.
        check(&fs::metadata(path)?)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(path)?;
        let metadata = file.metadata()?;
        check(&metadata)?;
        Ok(Self { file, metadata })
    }

    /// As [`RegularFile::open`]; nothing if there is no such file.
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the file was when it was opened.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads everything; more than `limit` bytes are an error.
    pub fn read(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        (&self.file).take(most).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The open file, to be read in part.
    pub fn into_file(self) -> File {
        self.file
    }

    /// What the file is now, if it has been left alone long enough for that to tell its contents (T-23).
    pub fn settled_identity(&self) -> io::Result<Option<Identity>> {
        let identity = Identity::of(&self.file.metadata()?);
        let age = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|now| now.checked_sub(identity.changed()?));
        Ok(age.is_some_and(|age| age > SETTLED).then_some(identity))
    }
}

fn check(metadata: &Metadata) -> io::Result<()> {
    let null = metadata.file_type().is_char_device() && metadata.rdev() == NULL_DEVICE;
    if metadata.is_file() || null {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// Adds the files of a directory by base name, those whose name is there already left out (rules D-1, D-3).
///
/// Files count, hidden ones too, if their name ends in `suffix`; directories do not.
pub(super) fn add_drop_ins(
    directory: &Path,
    suffix: &str,
    files: &mut BTreeMap<OsString, PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dir = match entry.file_type() {
            Ok(kind) => kind.is_dir(),
            // It has vanished since it was listed; the directory is still there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if name.as_bytes().ends_with(suffix.as_bytes()) && !is_dir {
            files.entry(name).or_insert_with(|| entry.path());
        }
        if files.len() > FILES {
            return Err(io::Error::other(format!("there are more than {FILES} files")));
        }
    }
    Ok(())
}

/// Replaces a file at once: who reads it sees the old one or the new one. Everybody may read it.
///
/// A copy of something has the `date` of what it is a copy of.
pub fn replace(path: &Path, bytes: &[u8], date: Option<SystemTime>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // Left behind by one that was killed.
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(new)?;
    file.write_all(bytes)?;
    // Whatever the umask of the unit is.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    if let Some(date) = date {
        file.set_modified(date)?;
    }
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// The absolute path with `.`, `..` and repeated slashes taken out, without a look at the file system.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Which file it is, and which version of it, as far as stat(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The time of the last change since 1970, contents or not.
    fn changed(&self) -> Option<Duration> {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
    }
}
