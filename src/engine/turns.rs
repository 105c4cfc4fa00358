//! [`Turns`]: how much is done at the same time, and for whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fetch::Asker;

/// How much of one kind may be done at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// For all users other than root together, so that the rest is root's (T-26).
    pub users: usize,
    /// For each of them.
    pub user: usize,
}

/// Turns at doing something: nobody waits for one.
#[derive(Debug)]
pub struct Turns {
    limits: Limits,
    all: Arc<Semaphore>,
    users: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A turn, as long as it is kept.
#[derive(Debug)]
pub struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_users: Option<(OwnedSemaphorePermit, Taken)>,
}

/// There is no turn left for who asks, or what is done is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTurn {
    /// How many there are for who asks, if nobody else has any.
    pub most: usize,
}

impl Turns {
    /// As many as this, all of them free.
    pub fn new(limits: Limits) -> Self {
        let (all, users) = (Arc::new(Semaphore::new(limits.all)), Arc::new(Semaphore::new(limits.users)));
        Self { limits, all, users, taken: Arc::default() }
    }

    /// A turn for who asks, if there is one now.
    pub fn take(&self, asker: Asker) -> Result<Turn, NoTurn> {
        let free =
            |turns: &Arc<Semaphore>, most| Arc::clone(turns).try_acquire_owned().map_err(|_| NoTurn { most });
        let of_users = match asker {
            Asker::Owner => None,
            Asker::User(uid) => {
                let taken = self.taken_by(uid).ok_or(NoTurn { most: self.limits.user })?;
                Some((free(&self.users, self.limits.users)?, taken))
            }
        };
        Ok(Turn { _of_all: free(&self.all, self.limits.all)?, _of_users: of_users })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.limits.all.saturating_sub(self.all.available_permits())
    }

    /// Waits until all are given back, but not for longer than `patience`, and gives no more.
    pub async fn close(&self, patience: Duration) {
        let all = u32::try_from(self.limits.all).unwrap_or(u32::MAX);
        if let Ok(Ok(permits)) = tokio::time::timeout(patience, self.all.acquire_many(all)).await {
            permits.forget();
        }
        self.all.close();
    }

    fn taken_by(&self, uid: u32) -> Option<Taken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(uid).or_default();
        if *count >= self.limits.user {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Taken { by: uid, taken: Arc::clone(&self.taken) })
    }
}

/// One of the turns of a user.
#[derive(Debug)]
struct Taken {
    by: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.by) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 5, users: 3, user: 2 };

    // Rule T-26.
    #[test]
    fn users_have_a_share_and_root_the_rest() {
        let turns = Turns::new(LIMITS);
        let (one, two) = (Asker::User(1), Asker::User(2));
        let held = [turns.take(one), turns.take(one)].map(Result::unwrap);
        assert_eq!(turns.take(one).unwrap_err(), NoTurn { most: 2 });
        let other = turns.take(two).unwrap();
        assert_eq!(turns.take(two).unwrap_err(), NoTurn { most: 3 });
        let root = [turns.take(Asker::Owner), turns.take(Asker::Owner)].map(Result::unwrap);
        assert_eq!(turns.take(Asker::Owner).unwrap_err(), NoTurn { most: 5 });
        assert_eq!(turns.taken(), 5);
        drop(held);
        let again = [turns.take(one), turns.take(two)].map(Result::unwrap);
        drop((other, root, again));
        assert_eq!(turns.taken(), 0);
        assert!(turns.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn root_may_take_all() {
        let turns = Turns::new(LIMITS);
        let root: Vec<Turn> = (0..5).map(|_| turns.take(Asker::Owner).unwrap()).collect();
        assert_eq!(turns.take(Asker::User(1)).unwrap_err(), NoTurn { most: 5 });
        drop(root);
        assert!(turns.take(Asker::User(1)).is_ok());
    }

    #[tokio::test]
    async fn who_closes_waits_for_those_who_have_begun() {
        let turns = Arc::new(Turns::new(LIMITS));
        let held = turns.take(Asker::User(1)).unwrap();
        let closing = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.close(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!closing.is_finished());
        drop(held);
        closing.await.unwrap();
        assert!(turns.take(Asker::Owner).is_err());
    }
}
