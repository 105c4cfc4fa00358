//! [`Callers`]: who waits for a verdict, and when they have left the bus.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::oneshot;
use zbus::fdo::{DBusProxy, NameOwnerChanged};
use zbus::message::{Message, Type};
use zbus::names::{BusName, UniqueName};
use zbus::object_server::SignalEmitter;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, MessageStream};

use super::status::News;
use super::{PATH, Verifier};

/// The bus itself; D-Bus Specification, "Message Bus Messages".
const BUS: &str = "org.freedesktop.DBus";

/// The callers that are waited for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Arc<Mutex<Vec<Caller>>>);

/// A caller; it is told of its departure by the end of the channel.
#[derive(Debug)]
struct Caller {
    name: String,
    present: oneshot::Sender<Infallible>,
}

impl Callers {
    /// Waits until the caller has left; without a bus, until the connection has ended.
    ///
    /// specs/dbus-systemd.md, section 4, "caller vanished".
    pub(super) async fn left(&self, connection: &Connection, caller: Option<&UniqueName<'_>>) {
        let Some(caller) = caller.filter(|_| connection.is_bus()) else { return connection.closed().await };
        let departure = self.enter(caller.as_str());
        // It may have left before it was entered; a bus that does not know counts as that.
        if is_present(connection, caller).await {
            // The channel carries nothing: it only ends.
            let _ = departure.await;
        }
    }

    fn enter(&self, name: &str) -> oneshot::Receiver<Infallible> {
        let (present, departure) = oneshot::channel();
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|caller| !caller.present.is_closed());
        callers.push(Caller { name: name.to_owned(), present });
        departure
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|caller| caller.name != name);
    }
}

async fn is_present(connection: &Connection, caller: &UniqueName<'_>) -> bool {
    let Ok(bus) = DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await else {
        return false;
    };
    bus.name_has_owner(BusName::Unique(caller.to_owned())).await.unwrap_or(false)
}

/// What the bus says about names that have no owner any more.
#[derive(Debug)]
#[must_use = "a stream that nobody reads blocks the connection"]
pub struct Departures {
    callers: Callers,
    signals: MessageStream,
    news: News,
    emitter: SignalEmitter<'static>,
}

impl Departures {
    /// One subscription for all callers; `arg2` is the new owner.
    pub(super) async fn subscribe(
        callers: Callers,
        news: News,
        connection: &Connection,
    ) -> zbus::Result<Self> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS)
            .interface(BUS)
            .member("NameOwnerChanged")
            .arg(2, "")
            .build()?;
        let signals = MessageStream::for_match_rule(rule, connection, None).await?;
        Ok(Self { callers, signals, news, emitter: SignalEmitter::new(connection, PATH)? })
    }

    /// Tells the callers' verifications, and everybody what becomes of the policy, until the connection ends. Must run
    /// whenever the connection does.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                signal = self.signals.next() => {
                    let Some(Ok(message)) = signal else { return };
                    if let Some(name) = departed(message) {
                        self.callers.remove(&name);
                    }
                }
                Some(status) = self.news.next() => {
                    // That nobody hears it changes nothing.
                    let _ = Verifier::say_policy_changed(&self.emitter, &status).await;
                }
            }
        }
    }
}

/// Who left, if it is the bus that says so: a match rule does not check that for signals to this connection alone.
fn departed(message: Message) -> Option<String> {
    if message.header().sender()?.as_str() != BUS {
        return None;
    }
    let signal = NameOwnerChanged::from_message(message)?;
    let arguments = signal.args().ok()?;
    arguments.new_owner().is_none().then(|| arguments.name().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_left_is_told() {
        let callers = Callers::default();
        let (mut one, mut two) = (callers.enter(":1.1"), callers.enter(":1.2"));
        let again = callers.enter(":1.1");
        callers.remove(":1.11");
        assert!(one.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        callers.remove(":1.1");
        assert!(one.await.is_err() && again.await.is_err());
        assert!(two.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn who_is_not_waited_for_is_forgotten() {
        let callers = Callers::default();
        for _ in 0..100 {
            drop(callers.enter(":1.1"));
        }
        assert_eq!(callers.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn only_the_bus_says_who_left() {
        let signal = |sender: &str, new_owner: &str| {
            Message::signal("/org/freedesktop/DBus", BUS, "NameOwnerChanged")
                .sender(sender.to_owned())
                .build(&(":1.1", ":1.1", new_owner))
                .unwrap()
        };
        assert_eq!(departed(signal(BUS, "")), Some(":1.1".to_owned()));
        assert_eq!(departed(signal(BUS, ":1.1")), None);
        assert_eq!(departed(signal(":1.7", "")), None);
    }
}
