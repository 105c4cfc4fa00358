//! [`Recent`]: a value that costs something to look up, for many who ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long anybody waits for a lookup; the lookup itself cannot be ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// The value as it was last looked up, one lookup at a time. Clones are the same.
#[derive(Debug)]
pub(super) struct Recent<T> {
    last: Arc<Mutex<Option<(Instant, T)>>>,
    looking: Arc<tokio::sync::Mutex<()>>,
}

impl<T> Clone for Recent<T> {
    fn clone(&self) -> Self {
        Self { last: Arc::clone(&self.last), looking: Arc::clone(&self.looking) }
    }
}

impl<T: Clone + Send + 'static> Recent<T> {
    pub(super) fn new() -> Self {
        Self { last: Arc::default(), looking: Arc::default() }
    }

    /// The last value, if it is younger than `age`.
    pub(super) fn known(&self, age: Duration) -> Option<T> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(time, _)| time.elapsed() < age).map(|(_, value)| value.clone())
    }

    /// The last value, if it is younger than `age`, else what `look` finds, where it holds nobody up.
    pub(super) async fn get(&self, age: Duration, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let getting = async {
            let turn = Arc::clone(&self.looking).lock_owned().await;
            if let Some(known) = self.known(age) {
                return Some(known);
            }
            let last = Arc::clone(&self.last);
            let work = move || {
                let value = look();
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), value.clone()));
                // Held here, so that nobody begins anew while a lookup that was given up still runs.
                drop(turn);
                value
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        tokio::time::timeout(PATIENCE, getting).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicUsize, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn many_who_ask_cost_one_lookup() {
        let recent = Recent::new();
        let lookups = Arc::new(AtomicUsize::new(0));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (recent, lookups) = (recent.clone(), Arc::clone(&lookups));
            asking.spawn(async move {
                let look = move || {
                    std::thread::sleep(Duration::from_millis(100));
                    lookups.fetch_add(1, Ordering::SeqCst)
                };
                recent.get(SECOND, look).await
            });
        }
        assert!(asking.join_all().await.iter().all(|value| *value == Some(0)));
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
        assert_eq!(recent.known(SECOND), Some(0));
        assert_eq!(recent.known(Duration::ZERO), None);
        let again = Arc::clone(&lookups);
        let look = move || again.fetch_add(1, Ordering::SeqCst);
        assert_eq!(recent.get(Duration::ZERO, look).await, Some(1));
    }

    #[tokio::test]
    async fn a_lookup_that_was_given_up_is_not_begun_again() {
        let recent = Recent::new();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let slow = recent.get(SECOND, move || {
            let _ = ended.recv();
            1
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
        let other = recent.clone();
        let asking = tokio::spawn(async move { other.get(SECOND, || 2).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!asking.is_finished());
        drop(end);
        assert_eq!(asking.await.unwrap(), Some(1));
    }
}
