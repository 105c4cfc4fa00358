//! [`Caller`]: who calls, as the bus or the kernel tells.

use std::time::Duration;

use tokio::sync::Semaphore;
use zbus::Connection;
use zbus::fdo::{ConnectionCredentials, DBusProxy};
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::proxy::CacheProperties;

use crate::fetch::Asker;

use super::Error;

/// How long the bus may take to say who calls.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose call it is.
#[derive(Debug)]
pub(super) struct Caller<'c> {
    pub(super) connection: &'c Connection,
    pub(super) header: &'c Header<'c>,
    pub(super) uid: u32,
    /// As the bus knows it; nothing without a bus.
    pub(super) pid: Option<u32>,
    /// Root and whoever runs the daemon, or somebody who must be allowed to call.
    pub(super) asker: Asker,
    /// Whether who calls may be asked to prove who that is; D-Bus Specification, `ALLOW_INTERACTIVE_AUTHORIZATION`.
    pub(super) is_interactive: bool,
}

impl<'c> Caller<'c> {
    /// Who made a call whose answer is waited for; nothing else is done before.
    ///
    /// The bus is asked for few at the same time: of one connection it takes only so many questions (T-26).
    pub(super) async fn of(
        connection: &'c Connection,
        header: &'c Header<'c>,
        asking: &Semaphore,
    ) -> Result<Self, Error> {
        let flags = header.primary().flags();
        if flags.contains(Flags::NO_REPLY_EXPECTED) {
            return Err(Error::invalid_args("nothing is done for a caller that expects no reply"));
        }
        let asking = async {
            let _turn = asking.acquire().await.ok()?;
            credentials(connection, header).await
        };
        let known = tokio::time::timeout(PATIENCE, asking).await.ok().flatten();
        let unknown = || Error::access_denied("the bus does not say who asks", "try again");
        let known = known.ok_or_else(unknown)?;
        let uid = known.unix_user_id().ok_or_else(unknown)?;
        let asker =
            if uid == 0 || uid == nix::unistd::geteuid().as_raw() { Asker::Owner } else { Asker::User(uid) };
        let pid = known.process_id().filter(|_| connection.is_bus());
        let is_interactive = flags.contains(Flags::ALLOW_INTERACTIVE_AUTH);
        Ok(Self { connection, header, uid, pid, asker, is_interactive })
    }

    /// Whose cookies count: without a bus there is one caller only.
    pub(super) fn sender(&self) -> &str {
        self.header.sender().map(|name| name.as_str()).unwrap_or_default()
    }
}

/// What the bus knows about the sender; without a bus, what the kernel knows about the peer.
async fn credentials(connection: &Connection, header: &Header<'_>) -> Option<ConnectionCredentials> {
    if connection.is_bus() {
        let bus = DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await.ok()?;
        let sender = BusName::Unique(header.sender()?.to_owned());
        return bus.get_connection_credentials(sender).await.ok();
    }
    let uid = connection.peer_creds().await.ok()?.unix_user_id()?;
    Some(ConnectionCredentials::default().set_unix_user_id(uid))
}
