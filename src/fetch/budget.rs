//! [`Budget`]: what one verification, and all together, may hold and ask (T-28).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fetch::{Asker, Error};

/// What one verification may still read and ask (T-28). Clones share one account.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    requests: AtomicUsize,
    /// What others with it may still hold together.
    shared: Vec<Arc<AtomicUsize>>,
    /// What this one took of each of those, to be given back when it ends.
    taken: AtomicUsize,
}

impl Budget {
    /// A full budget of its own.
    pub fn new() -> Self {
        Self::of(Vec::new())
    }

    fn of(shared: Vec<Arc<AtomicUsize>>) -> Self {
        let (bytes, requests) = (AtomicUsize::new(EVIDENCE_BYTES), AtomicUsize::new(EVIDENCE_REQUESTS));
        Self(Arc::new(Account { bytes, requests, shared, taken: AtomicUsize::new(0) }))
    }

    /// Pays for one request.
    pub fn request(&self) -> Result<(), Error> {
        spend(&self.0.requests, 1).map(|_| ()).ok_or(Error::EvidenceTooLarge)
    }

    /// Pays for bytes that will be held; call it as they arrive.
    pub fn bytes(&self, count: usize) -> Result<(), Error> {
        let before = spend(&self.0.bytes, count).ok_or(Error::EvidenceTooLarge)?;
        let beyond = |left: usize| EVIDENCE_BYTES.saturating_sub(left).saturating_sub(ORDINARY_BYTES);
        let common = beyond(before.saturating_sub(count)).saturating_sub(beyond(before));
        for (place, account) in self.0.shared.iter().enumerate() {
            if spend(account, common).is_none() {
                give_back(self.0.shared.iter().take(place), common);
                self.0.bytes.fetch_add(count, Ordering::Relaxed);
                return Err(Error::Busy);
            }
        }
        self.0.taken.fetch_add(common, Ordering::Relaxed);
        Ok(())
    }

    /// The number of requests paid for so far.
    pub fn requests_made(&self) -> usize {
        EVIDENCE_REQUESTS.saturating_sub(self.0.requests.load(Ordering::Relaxed))
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        give_back(self.shared.iter(), self.taken.load(Ordering::Relaxed));
    }
}

/// What all verifications of one process may still hold.
#[derive(Debug)]
pub(super) struct Reserve {
    all: Arc<AtomicUsize>,
    users: Arc<AtomicUsize>,
}

impl Reserve {
    pub(super) fn new() -> Self {
        let account = |bytes| Arc::new(AtomicUsize::new(bytes));
        Self { all: account(ALL_EVIDENCE_BYTES), users: account(USERS_EVIDENCE_BYTES) }
    }

    /// The budget of one verification.
    pub(super) fn budget(&self, asker: Asker) -> Budget {
        let (all, users) = (Arc::clone(&self.all), Arc::clone(&self.users));
        Budget::of(match asker {
            Asker::Owner => vec![all],
            Asker::User(_) => vec![all, users],
        })
    }
}

fn give_back<'a>(accounts: impl Iterator<Item = &'a Arc<AtomicUsize>>, bytes: usize) {
    for account in accounts {
        account.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What was left before, if it was enough.
fn spend(account: &AtomicUsize, count: usize) -> Option<usize> {
    account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)).ok()
}

/// Most bytes held for one verification: 32 MiB (T-28).
pub const EVIDENCE_BYTES: usize = 32 << 20;

/// Most bytes held for all verifications of one process together: 96 MiB (T-28).
pub const ALL_EVIDENCE_BYTES: usize = 96 << 20;

/// Most of them for users other than root together: half, so that they never keep root out (T-26).
const USERS_EVIDENCE_BYTES: usize = ALL_EVIDENCE_BYTES / 2;

/// What each verification holds without regard to the others: 256 KiB, so that a few large images never keep ordinary
/// ones out.
const ORDINARY_BYTES: usize = 256 << 10;

/// Most requests for one verification: 300 (T-28).
pub const EVIDENCE_REQUESTS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_limits_of_their_own_and_a_common_one() {
        let start = EVIDENCE_BYTES - ORDINARY_BYTES + 10;
        let all = Arc::new(AtomicUsize::new(start));
        let (one, other) = (Budget::of(vec![Arc::clone(&all)]), Budget::of(vec![Arc::clone(&all)]));
        assert_eq!(one.bytes(EVIDENCE_BYTES), Ok(()));
        assert_eq!(one.clone().bytes(1), Err(Error::EvidenceTooLarge));
        // Ordinary images are never kept out; what is more comes out of the common account.
        assert_eq!(other.bytes(ORDINARY_BYTES), Ok(()));
        assert_eq!(other.bytes(11), Err(Error::Busy));
        assert_eq!(other.bytes(10), Ok(()));
        assert_eq!(all.load(Ordering::Relaxed), 0);
        // What is given back was taken, no more and no less.
        drop(one);
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), start);
        let budget = Budget::new();
        assert!((0..EVIDENCE_REQUESTS).all(|_| budget.request().is_ok()));
        assert_eq!(
            (budget.request(), budget.requests_made()),
            (Err(Error::EvidenceTooLarge), EVIDENCE_REQUESTS)
        );
    }
    // Rules T-26, T-28.
    #[test]
    fn users_leave_half_to_root() {
        let reserve = Reserve::new();
        let budgets: Vec<Budget> = (0..8).map(|uid| reserve.budget(Asker::User(uid))).collect();
        let full = budgets.iter().filter(|budget| budget.bytes(EVIDENCE_BYTES) == Ok(())).count();
        assert_eq!(full, 1, "{} bytes hold one", USERS_EVIDENCE_BYTES);
        let root = reserve.budget(Asker::Owner);
        assert_eq!(root.bytes(EVIDENCE_BYTES), Ok(()));
        drop((budgets, root));
        let left = |account: &AtomicUsize| account.load(Ordering::Relaxed);
        assert_eq!((left(&reserve.all), left(&reserve.users)), (ALL_EVIDENCE_BYTES, USERS_EVIDENCE_BYTES));
    }
}
