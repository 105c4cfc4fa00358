//! [`clock_floor`]: the time before which it cannot be, whatever the clock of this host says (T-19).

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::Environment;
use crate::verify::Timestamp;
use crate::verify::tuf::PUBLISHED;

/// Touched whenever the clock was synchronised; systemd-timesyncd.service(8), FILES.
const TIMESYNCD: &str = "/var/lib/systemd/timesync/clock";

/// Touched by the daemon while it runs; `StateDirectory=` of its unit.
pub const LAST_SEEN: &str = "/var/lib/vouchd/clock";

/// A time that has passed, and what tells it: the newest of what came with this program, of the last time at which
/// systemd-timesyncd knew it, and of the last that the daemon has seen. What cannot be read tells nothing.
pub fn clock_floor(environment: &Environment) -> (Timestamp, &'static str) {
    let built = (PUBLISHED, "the trusted root in this program");
    let touched = |path: &'static str| {
        let metadata = fs::symlink_metadata(environment.system_path(path)).ok()?;
        Some((Timestamp(metadata.mtime()), path))
    };
    [TIMESYNCD, LAST_SEEN]
        .into_iter()
        .filter_map(touched)
        .fold(built, |floor, other| if other.0 > floor.0 { other } else { floor })
}

/// Keeps the time that the daemon has last seen, for when the clock is set back (T-19).
///
/// A clock that is wrong for a moment, as before it was first set, must not make every later time look like the past:
/// only one that has run evenly for ten minutes is believed.
#[derive(Debug)]
pub struct LastSeen {
    path: PathBuf,
    /// Since when, on the monotonic clock, the other one has run evenly, and by how much that is ahead.
    steady: Option<(Duration, i64)>,
    touched: Option<Duration>,
}

impl LastSeen {
    /// Nothing has been seen yet.
    pub fn new(environment: &Environment) -> Self {
        Self { path: environment.system_path(LAST_SEEN), steady: None, touched: None }
    }

    /// Takes note of the time, at most once in a minute. `elapsed` is that of the monotonic clock since some moment. It
    /// blocks. Nothing is written where there is no directory for it.
    pub fn see(&mut self, elapsed: Duration, now: Timestamp) -> io::Result<()> {
        let ahead = now.0.saturating_sub(i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        let since = match self.steady {
            Some((since, before)) if ahead.abs_diff(before) <= JUMP => since,
            Some(_) | None => elapsed,
        };
        self.steady = Some((since, ahead));
        let passed = |since: Duration| elapsed.saturating_sub(since);
        if passed(since) < STEADY || self.touched.is_some_and(|touched| passed(touched) < PAUSE) {
            return Ok(());
        }
        self.touched = Some(elapsed);
        match touch(&self.path, now) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            touched => touched,
        }
    }
}

/// Sets the time of the file, never back.
fn touch(path: &Path, now: Timestamp) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags.bits());
    let (file, known) = match options.clone().create_new(true).open(path) {
        Ok(new) => (new, None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = options.open(path)?;
            let known = file.metadata()?.mtime();
            (file, Some(known))
        }
        Err(error) => return Err(error),
    };
    if known.is_none_or(|known| known < now.0) {
        let seconds = u64::try_from(now.0).unwrap_or_default();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
    }
    Ok(())
}

/// How long the clock must have run evenly: 10 minutes. A host that has a network has set it by then.
const STEADY: Duration = Duration::from_secs(600);

/// The least time between two notes.
const PAUSE: Duration = Duration::from_secs(60);

/// By how many seconds it may change at once and still run evenly.
const JUMP: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    // Rule T-19.
    #[test]
    fn the_newest_of_what_is_known_counts() {
        let tmp = tempfile::tempdir().unwrap();
        let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
        assert_eq!(clock_floor(&environment).0, PUBLISHED);
        for path in [TIMESYNCD, LAST_SEEN] {
            let file = environment.system_path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::File::create(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        assert_eq!(clock_floor(&environment).0, PUBLISHED);
        let set = |path: &str, seconds: i64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
            let file = fs::File::options().write(true).open(environment.system_path(path)).unwrap();
            file.set_modified(time).unwrap();
        };
        for (seconds, expected) in
            [(1_000_000_000, PUBLISHED.0), (PUBLISHED.0 + 1, PUBLISHED.0 + 1), (4_000_000_000, 4_000_000_000)]
        {
            for path in [TIMESYNCD, LAST_SEEN] {
                set(path, seconds);
                let (time, source) = clock_floor(&environment);
                assert_eq!(time, Timestamp(expected));
                assert_eq!(source == path, expected == seconds);
                set(path, 0);
            }
        }
    }

    // Rule T-19.
    #[test]
    fn only_a_clock_that_runs_evenly_is_believed() {
        let tmp = tempfile::tempdir().unwrap();
        let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
        let file = environment.system_path(LAST_SEEN);
        let start = PUBLISHED.0;
        let mut seen = LastSeen::new(&environment);
        let mut at = |elapsed: u64, now: i64| {
            seen.see(Duration::from_secs(elapsed), Timestamp(now)).unwrap();
            fs::symlink_metadata(&file).ok().map(|metadata| metadata.mtime() - start)
        };
        // No directory: nothing is kept.
        for elapsed in [0, 700] {
            assert_eq!(at(elapsed, start + i64::try_from(elapsed).unwrap()), None);
        }
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let year = 365 * 86_400;
        for (elapsed, now, kept) in [
            (760, 760, Some(760)),
            // Not more than once a minute.
            (800, 800, Some(760)),
            (820, 820, Some(820)),
            // It jumps ahead, and is set right before that is believed.
            (900, 900 + year, Some(820)),
            (1400, 1400 + year, Some(820)),
            (1410, 1410, Some(820)),
            (2000, 2000, Some(820)),
            (2010, 2012, Some(2012)),
            // It is set back: what was known stays.
            (2100, 2100 - year, Some(2012)),
            (2800, 2800 - year, Some(2012)),
            (2900, 2900 - year, Some(2012)),
        ] {
            assert_eq!(at(elapsed, start + now), kept, "{elapsed}");
        }
        assert_eq!(clock_floor(&environment), (Timestamp(start + 2012), LAST_SEEN));
        // Whoever owns the directory leads it nowhere else.
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(tmp.path().join("elsewhere"), &file).unwrap();
        let mut seen = LastSeen::new(&environment);
        seen.see(Duration::ZERO, Timestamp(start)).unwrap();
        assert!(seen.see(STEADY, Timestamp(start + 600)).is_err());
        assert!(!tmp.path().join("elsewhere").exists());
    }
}
