//! [`Sharing`]: one gathering for all who ask for the same at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::kept::{Found, Key};

/// The gatherings that run, and what they have found so far. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing(Arc<Mutex<Vec<Running>>>);

#[derive(Debug)]
struct Running {
    key: Key,
    steps: watch::Receiver<Step>,
}

/// How far a gathering is.
#[derive(Clone, Debug)]
enum Step {
    Begun,
    /// What other tools look for, too.
    First(Arc<Found>),
    /// Everything.
    Second(Arc<Found>),
}

/// What is to be done by who asks for something.
#[derive(Debug)]
pub(super) enum Part {
    /// Gather it, and tell the others.
    Lead(Lead),
    /// Wait for who does.
    Follow(Follow),
}

impl Sharing {
    pub(super) fn enter(&self, key: Key) -> Part {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Running { steps, .. }) = running.iter().find(|running| running.key == key) {
            return Part::Follow(Follow(steps.clone()));
        }
        let (told, steps) = watch::channel(Step::Begun);
        running.push(Running { key: key.clone(), steps });
        Part::Lead(Lead { key, told, sharing: self.clone() })
    }
}

/// A gathering that others may follow. However it ends, they do not end with it (T-25).
#[derive(Debug)]
pub(super) struct Lead {
    key: Key,
    told: watch::Sender<Step>,
    sharing: Sharing,
}

impl Lead {
    pub(super) fn first(&self, found: Arc<Found>) {
        self.told.send_replace(Step::First(found));
    }

    pub(super) fn second(&self, found: Arc<Found>) {
        self.told.send_replace(Step::Second(found));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut running = self.sharing.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|running| running.key != self.key);
    }
}

/// Who waits for a gathering.
#[derive(Debug)]
pub(super) struct Follow(watch::Receiver<Step>);

impl Follow {
    /// What is found first; nothing if the gathering has ended without that.
    pub(super) async fn first(&mut self) -> Option<Arc<Found>> {
        match &*self.0.wait_for(|step| !matches!(step, Step::Begun)).await.ok()? {
            Step::Begun => None,
            Step::First(found) | Step::Second(found) => Some(Arc::clone(found)),
        }
    }

    /// Everything; nothing if the gathering has ended before.
    pub(super) async fn second(&mut self) -> Option<Arc<Found>> {
        match &*self.0.wait_for(|step| matches!(step, Step::Second(_))).await.ok()? {
            Step::Begun | Step::First(_) => None,
            Step::Second(found) => Some(Arc::clone(found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::engine::kept::tests::{found, key};

    fn lead(part: Part) -> Lead {
        match part {
            Part::Lead(lead) => lead,
            Part::Follow(_) => panic!("somebody else leads"),
        }
    }

    fn follow(part: Part) -> Follow {
        match part {
            Part::Follow(follow) => follow,
            Part::Lead(_) => panic!("nobody leads"),
        }
    }

    // Rule T-25.
    #[tokio::test]
    async fn who_asks_for_the_same_waits_for_the_first() {
        let sharing = Sharing::default();
        let leading = lead(sharing.enter(key("a")));
        let other = lead(sharing.enter(key("b")));
        let mut early = follow(sharing.enter(key("a")));
        leading.first(found(1));
        assert_eq!(early.first().await.unwrap().evidence.image_bytes(), 1);
        let mut late = follow(sharing.enter(key("a")));
        assert!(late.first().await.is_some());
        leading.second(found(2));
        assert_eq!(early.second().await.unwrap().evidence.image_bytes(), 2);
        drop(leading);
        // What was found stays found for who waits, but is given to nobody else.
        assert_eq!(late.second().await.unwrap().evidence.image_bytes(), 2);
        drop((lead(sharing.enter(key("a"))), other));
        assert!(sharing.0.lock().unwrap().is_empty());
    }

    // Rule T-25.
    #[tokio::test]
    async fn who_gives_up_or_fails_takes_nobody_along() {
        let sharing = Sharing::default();
        let leading = lead(sharing.enter(key("a")));
        let (mut one, mut other) = (follow(sharing.enter(key("a"))), follow(sharing.enter(key("a"))));
        let waiting = tokio::spawn(async move { one.first().await.is_none() });
        tokio::task::yield_now().await;
        drop(leading);
        assert!(waiting.await.unwrap());
        assert!(other.second().await.is_none());
        // One of those leads then.
        let again = lead(sharing.enter(key("a")));
        again.first(found(1));
        let mut third = follow(sharing.enter(key("a")));
        assert!(third.first().await.is_some());
        drop(again);
        assert!(third.second().await.is_none());
    }
}
