//! [`read`]: a file that a caller hands over as a descriptor.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::statfs::{
    CODA_SUPER_MAGIC, DEBUGFS_MAGIC, FUSE_SUPER_MAGIC, FsType, NCP_SUPER_MAGIC, NFS_SUPER_MAGIC,
    PROC_SUPER_MAGIC, SMB_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};

use crate::fetch::Asker;

/// Everything in the file, wherever its offset stands; one byte more than `limit` if it is larger.
///
/// Only regular files, memfds among them, and none for whose bytes another host or process could make us wait; from users
/// other than root only memfds that nobody can change any more (T-27). It blocks no longer than a disk does.
pub fn read(descriptor: OwnedFd, limit: usize, asker: Asker) -> io::Result<Vec<u8>> {
    let refused = |detail: &str| io::Error::new(io::ErrorKind::InvalidInput, detail.to_owned());
    match asker {
        Asker::Owner => {}
        Asker::User(_) if is_sealed(&descriptor) => {}
        Asker::User(_) => {
            return Err(refused(
                "only root may hand over what is no memfd sealed against writing, growing and shrinking",
            ));
        }
    }
    if WAITING.contains(&fstatfs(&descriptor)?.filesystem_type()) {
        return Err(refused("it is on a file system of the kernel, or of another process or host"));
    }
    let file = File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    // As much as there is now, and one byte more, to see that there is no more.
    let expected = usize::try_from(metadata.len()).unwrap_or(limit).min(limit);
    let mut bytes = vec![0; expected.saturating_add(1)];
    let mut length = 0;
    loop {
        let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) else {
            if length > limit {
                break;
            }
            bytes.resize(limit.saturating_add(1), 0);
            continue;
        };
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

/// memfd_create(2), "File sealing"; nothing but a memfd can be sealed like that.
fn is_sealed(descriptor: &OwnedFd) -> bool {
    let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    let seals = fcntl(descriptor, FcntlArg::F_GET_SEALS).unwrap_or(0);
    SealFlag::from_bits_truncate(seals).contains(wanted)
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

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn of(file: impl Into<OwnedFd>) -> Result<Vec<u8>, String> {
        read(file.into(), 4096, Asker::Owner).map_err(|error| error.to_string())
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

    // Rule T-27: it is one of the files that there were, or a mixture of them, and never more than may be.
    #[test]
    fn a_file_that_grows_and_shrinks_while_it_is_read_does_no_harm() {
        let file = tempfile::tempfile().unwrap();
        let changing = file.try_clone().unwrap();
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ended = std::sync::Arc::clone(&over);
        let change = std::thread::spawn(move || {
            let mut length = 0;
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                changing.set_len(length % 9000).unwrap();
                length += 1237;
            }
        });
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..5000 {
            let bytes = of(file.try_clone().unwrap()).unwrap();
            assert!(bytes.len() <= 4097 && bytes.iter().all(|byte| *byte == 0));
            lengths.insert(bytes.len());
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        change.join().unwrap();
        assert!(lengths.len() > 3, "{lengths:?}");
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

    // Rule T-27.
    #[test]
    fn what_a_user_hands_over_must_be_sealed() {
        let (write, grow, shrink) = (SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SHRINK);
        for (seals, taken) in [
            (SealFlag::empty(), false),
            (write | grow, false),
            (write | shrink, false),
            (grow | shrink, false),
            (SealFlag::F_SEAL_FUTURE_WRITE | grow | shrink, false),
            (write | grow | shrink, true),
        ] {
            let memfd = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
            File::from(memfd.try_clone().unwrap()).write_all(b"x").unwrap();
            fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
            let found = read(memfd.try_clone().unwrap(), 4096, Asker::User(1));
            assert_eq!(found.ok(), taken.then(|| b"x".to_vec()), "{seals:?}");
            assert!(read(memfd, 4096, Asker::Owner).is_ok());
        }
        assert!(read(tempfile::tempfile().unwrap().into(), 4096, Asker::User(1)).is_err());
    }
}
