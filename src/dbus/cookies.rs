//! [`Cookies`]: the verifications that their callers can cancel.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The cookies of running verifications. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Cookies(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    sender: String,
    cookie: String,
    cancel: Arc<Notify>,
}

impl Cookies {
    /// Keeps the cookie as long as what is returned is kept; nothing if the sender uses it already.
    pub(super) fn enter(&self, sender: &str, cookie: &str) -> Option<Held> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.iter().any(|entry| entry.is(sender, cookie)) {
            return None;
        }
        let cancel = Arc::new(Notify::new());
        let (sender, cookie) = (sender.to_owned(), cookie.to_owned());
        entries.push(Entry { sender, cookie, cancel: Arc::clone(&cancel) });
        Some(Held { cookies: self.clone(), cancel })
    }

    /// Cancels the sender's own verification; whether there is one.
    pub(super) fn cancel(&self, sender: &str, cookie: &str) -> bool {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().find(|entry| entry.is(sender, cookie));
        // It is kept for a verification that does not wait for it yet.
        found.inspect(|entry| entry.cancel.notify_one()).is_some()
    }
}

impl Entry {
    fn is(&self, sender: &str, cookie: &str) -> bool {
        self.sender == sender && self.cookie == cookie
    }
}

/// A cookie in use.
#[derive(Debug)]
pub(super) struct Held {
    cookies: Cookies,
    cancel: Arc<Notify>,
}

impl Held {
    /// Waits until the verification is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancel.notified().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut entries = self.cookies.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| !Arc::ptr_eq(&entry.cancel, &self.cancel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cookie_is_the_senders_own_and_given_back() {
        let cookies = Cookies::default();
        let held = cookies.enter(":1.1", "a").unwrap();
        let other = cookies.enter(":1.2", "a").unwrap();
        assert!(cookies.enter(":1.1", "a").is_none());
        for (sender, cookie, known) in [(":1.1", "b", false), (":1.3", "a", false), (":1.1", "a", true)] {
            assert_eq!(cookies.cancel(sender, cookie), known, "{sender} {cookie}");
        }
        held.cancelled().await;
        assert!(cookies.cancel(":1.1", "a"), "again, while it ends");
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), other.cancelled());
        assert!(waiting.await.is_err());
        drop(held);
        assert!(!cookies.cancel(":1.1", "a"));
        drop((cookies.enter(":1.1", "a").unwrap(), other));
        assert!(cookies.0.lock().unwrap().is_empty());
    }
}
