//! [`read`]: a file that a caller hands over as a descriptor.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::statfs::{
    CODA_SUPER_MAGIC, DEBUGFS_MAGIC, FUSE_SUPER_MAGIC, FsType, NCP_SUPER_MAGIC, NFS_SUPER_MAGIC,
    PROC_SUPER_MAGIC, SMB_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};

/// Everything in the file, wherever its offset stands; one byte more than `limit` if it is larger.
///
/// Only regular files, memfds among them, and none for whose bytes another host or process could make us wait (T-27).
/// It blocks no longer than a disk does.
pub fn read(descriptor: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    let refused = |detail: &str| io::Error::new(io::ErrorKind::InvalidInput, detail.to_owned());
    if WAITING.contains(&fstatfs(&descriptor)?.filesystem_type()) {
        return Err(refused("it is on a file system of the kernel, or of another process or host"));
    }
    let file = File::from(descriptor);
    if !file.metadata()?.is_file() {
        return Err(refused("it is not a regular file"));
    }
    let mut bytes = vec![0; limit.saturating_add(1)];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(length).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(count) => length = length.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// statfs(2): file systems whose reads somebody else answers; CIFS, SMB 2, 9P, AFS and Ceph have numbers of their own.
/// Those of the kernel have regular files that wait for an event, as `/proc/kmsg` does, and take it from its readers.
const WAITING: [FsType; 15] = [
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    DEBUGFS_MAGIC,
    TRACEFS_MAGIC,
    FsType(0x6b41_4653),
    FsType(0x5346_414f),
    FsType(0x00c3_6400),
    CODA_SUPER_MAGIC,
    FUSE_SUPER_MAGIC,
    NCP_SUPER_MAGIC,
    NFS_SUPER_MAGIC,
    SMB_SUPER_MAGIC,
    FsType(0xff53_4d42),
    FsType(0xfe53_4d42),
    FsType(0x0102_1997),
];

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    fn of(file: impl Into<OwnedFd>) -> Result<Vec<u8>, String> {
        read(file.into(), 4096).map_err(|error| error.to_string())
    }

    // Rule T-27.
    #[test]
    fn regular_files_are_read_from_their_beginning() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{\"auths\":{}}").unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(of(file).unwrap(), b"{\"auths\":{}}");
        let large = tempfile::tempfile().unwrap();
        large.set_len(1 << 40).unwrap();
        assert_eq!(of(large).unwrap().len(), 4097);
    }

    // Rule T-27.
    #[test]
    fn whatever_could_make_us_wait_is_refused() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(of(reader).unwrap_err().contains("not a regular file"));
        assert!(of(socket).unwrap_err().contains("not a regular file"));
        assert!(of(File::open("/dev/zero").unwrap()).unwrap_err().contains("not a regular file"));
        assert!(of(File::open("/proc/self/status").unwrap()).unwrap_err().contains("of the kernel"));
        assert!(of(File::open("/").unwrap()).unwrap_err().contains("not a regular file"));
    }
}
