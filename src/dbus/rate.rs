//! [`Rate`]: how often users may call, so that none fills the journal or the processors.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls at once, after a pause.
const BURST: u32 = 100;

/// How long a call counts: 10 a second for each user.
const INTERVAL: Duration = Duration::from_millis(100);

/// Most users that are remembered; a user who has paused is not.
const USERS: usize = 1024;

/// When the calls of each user that still count will all have been forgotten.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<HashMap<u32, Instant>>);

impl Rate {
    /// Whether a user may call now; it then has.
    pub(super) fn allows(&self, uid: u32, now: Instant) -> bool {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS && !users.contains_key(&uid) {
            users.retain(|_, forgotten| *forgotten > now);
            if users.len() >= USERS {
                return false;
            }
        }
        let forgotten = users.entry(uid).or_insert(now);
        let then = (*forgotten).max(now) + INTERVAL;
        let may = then <= now + INTERVAL * BURST;
        if may {
            *forgotten = then;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_call_ten_times_a_second_and_more_after_a_pause() {
        let (rate, now) = (Rate::default(), Instant::now());
        let calls = |uid, now| (0..1000).filter(|_| rate.allows(uid, now)).count();
        assert_eq!((calls(1, now), calls(2, now)), (100, 100));
        assert_eq!(calls(1, now + Duration::from_secs(1)), 10);
        assert_eq!(calls(1, now + Duration::from_secs(100)), 100);
    }

    #[test]
    fn who_has_paused_is_forgotten() {
        let (rate, now) = (Rate::default(), Instant::now());
        for uid in 0..2000 {
            assert_eq!(rate.allows(uid, now), uid < 1024, "{uid}");
        }
        let later = now + Duration::from_secs(1);
        assert!(rate.allows(2000, later));
        assert_eq!(rate.0.lock().unwrap().len(), 1);
    }
}
