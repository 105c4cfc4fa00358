//! [`clock_floor`]: the time before which it cannot be, whatever the clock of this host says (T-19).

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Environment;
use crate::verify::Timestamp;
use crate::verify::tuf::PUBLISHED;

/// Touched whenever the clock was synchronised; systemd-timesyncd.service(8), FILES.
const TIMESYNCD: &str = "/var/lib/systemd/timesync/clock";

/// A time that has passed, and what tells it: the newest of what came with this program and of the last time at which
/// systemd-timesyncd knew it. What cannot be read tells nothing.
pub fn clock_floor(environment: &Environment) -> (Timestamp, &'static str) {
    let built = (PUBLISHED, "the trusted root in this program");
    let touched = fs::symlink_metadata(environment.system_path(TIMESYNCD)).ok();
    let synchronised = touched.map(|metadata| (Timestamp(metadata.mtime()), TIMESYNCD));
    synchronised.into_iter().fold(built, |floor, other| if other.0 > floor.0 { other } else { floor })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    // Rule T-19.
    #[test]
    fn the_newest_of_what_is_known_counts() {
        let tmp = tempfile::tempdir().unwrap();
        let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
        assert_eq!(clock_floor(&environment).0, PUBLISHED);
        let file = tmp.path().join(TIMESYNCD.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).unwrap();
        let clock = fs::File::create(&file).unwrap();
        for (seconds, expected) in
            [(1_000_000_000, PUBLISHED.0), (PUBLISHED.0 + 1, PUBLISHED.0 + 1), (4_000_000_000, 4_000_000_000)]
        {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
            clock.set_modified(time).unwrap();
            assert_eq!(clock_floor(&environment).0, Timestamp(expected));
        }
    }
}
