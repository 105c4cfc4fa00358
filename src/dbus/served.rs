//! [`Served`]: the interface as it is put on the bus, which reads no call that is too much.

use std::collections::HashMap;
use std::fmt::Write;

use tokio::sync::OwnedSemaphorePermit;
use zbus::message::{Header, Message};
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::{BoxDBusError, Connection, ObjectServer, OwnedVariant, Variant, fdo};

use super::{Error, Verifier};

/// Largest call: 4 KiB, which is more than a reference and all options have. What is read of a call takes up to a
/// hundred times its size.
const CALL_BYTES: u32 = 4 << 10;

/// A [`Verifier`] on the bus.
#[derive(Debug)]
pub struct Served(Verifier);

impl Served {
    /// Serves this one.
    pub fn new(verifier: Verifier) -> Self {
        Self(verifier)
    }

    /// Whether a call may be read, and what it takes as long as it is answered if it comes with descriptors.
    fn arrive(&self, call: &Message) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let header = call.header();
        if header.primary().body_len() > CALL_BYTES {
            return Err(Error::invalid_args("the call is larger than 4 KiB"));
        }
        let has_descriptors = header.unix_fds().is_some_and(|count| count > 0);
        has_descriptors.then(|| self.0.carry()).transpose()
    }
}

/// Everything but `call` is as it was defined.
#[async_trait::async_trait]
impl Interface for Served {
    fn name() -> InterfaceName<'static> {
        Verifier::name()
    }

    fn spawn_tasks_for_methods(&self) -> bool {
        self.0.spawn_tasks_for_methods()
    }

    async fn get(
        &self,
        property_name: &str,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<Result<OwnedVariant, BoxDBusError>> {
        self.0.get(property_name, server, connection, header, emitter).await
    }

    async fn get_all(
        &self,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        self.0.get_all(server, connection, header, emitter).await
    }

    fn set<'call>(
        &'call self,
        property_name: &'call str,
        value: &'call Variant<'_>,
        server: &'call ObjectServer,
        connection: &'call Connection,
        header: Option<&'call Header<'_>>,
        emitter: &'call SignalEmitter<'_>,
    ) -> DispatchResult<'call> {
        self.0.set(property_name, value, server, connection, header, emitter)
    }

    async fn set_mut(
        &mut self,
        property_name: &str,
        value: &Variant<'_>,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<Result<(), BoxDBusError>> {
        self.0.set_mut(property_name, value, server, connection, header, emitter).await
    }

    fn call<'call>(
        &'call self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        msg: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        let arrived = match self.arrive(msg) {
            Ok(arrived) => arrived,
            Err(error) => {
                return DispatchResult::new_async(connection, msg, async move { Err::<(), _>(error) });
            }
        };
        match self.0.call(server, connection, msg, name) {
            DispatchResult::Async(answering) => DispatchResult::Async(Box::pin(async move {
                let _arrived = arrived;
                answering.await
            })),
            other @ (DispatchResult::NotFound | DispatchResult::RequiresMut) => other,
        }
    }

    fn call_mut<'call>(
        &'call mut self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        msg: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        match self.arrive(msg) {
            Ok(_) => self.0.call_mut(server, connection, msg, name),
            Err(error) => DispatchResult::new_async(connection, msg, async move { Err::<(), _>(error) }),
        }
    }

    fn introspect_to_writer(&self, writer: &mut dyn Write, level: usize) {
        self.0.introspect_to_writer(writer, level);
    }
}
