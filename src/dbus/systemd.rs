//! [`UnitState`]: what systemd says of units; org.freedesktop.systemd1(5).

use std::time::Duration;

use serde::de::DeserializeOwned;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, OwnedObjectPath, Proxy, Type};

/// The name of systemd's manager on the bus.
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a unit is doing, in systemd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// `LoadState`: `loaded`, `not-found`, `masked` or another.
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed` or another.
    pub active: String,
    /// `UnitFileState`: `enabled`, `disabled` or another; empty if there is no file.
    pub file: String,
    /// `ActiveEnterTimestamp`, in seconds since 1970; nothing if it has never been active.
    pub since: Option<i64>,
}

impl UnitState {
    /// The state of a unit; nothing if systemd does not answer.
    pub async fn of(connection: &Connection, unit: &str) -> Option<Self> {
        let asking = async {
            let path = manager_says(connection, "LoadUnit", &unit).await?;
            let proxy = proxy(connection, path.as_str(), "org.freedesktop.systemd1.Unit").await?;
            let since: u64 = property(&proxy, "ActiveEnterTimestamp").await?;
            Some(Self {
                load: property(&proxy, "LoadState").await?,
                active: property(&proxy, "ActiveState").await?,
                file: property(&proxy, "UnitFileState").await?,
                since: i64::try_from(since / 1_000_000).ok().filter(|since| *since > 0),
            })
        };
        tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
    }
}

/// The unit that a process belongs to; nothing if systemd does not know.
pub(super) async fn unit_of(connection: &Connection, pid: u32) -> Option<String> {
    let asking = manager_says(connection, "GetUnitByPID", &pid);
    let path = tokio::time::timeout(PATIENCE, asking).await.ok().flatten()?;
    unescape(path.as_str().rsplit('/').next()?)
}

/// Asks for a unit, without starting anything.
async fn manager_says<B>(connection: &Connection, method: &str, body: &B) -> Option<OwnedObjectPath>
where
    B: serde::Serialize + zbus::DynamicType,
{
    let manager = proxy(connection, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager").await?;
    manager.call_with_flags(method, MethodFlags::NO_AUTO_START, body).await.ok().flatten()
}

async fn proxy<'a>(connection: &Connection, path: &str, interface: &'static str) -> Option<Proxy<'a>> {
    let builder = zbus::proxy::Builder::new(connection).cache_properties(CacheProperties::No);
    builder.destination(SYSTEMD).path(path.to_owned()).interface(interface).build().await.ok()
}

async fn property<T: DeserializeOwned + Type>(proxy: &Proxy<'_>, name: &str) -> Option<T> {
    proxy.get_property(name).await.ok()
}

/// The name in the last element of a path, where `_` and two digits stand for a byte; sd_bus_path_encode(3).
fn unescape(element: &str) -> Option<String> {
    let mut pieces = element.split('_');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units_are_read_from_paths() {
        for (element, name) in [
            ("vouchd_2eservice", Some("vouchd.service")),
            ("user_401000_2eservice", Some("user@1000.service")),
            ("a_", None),
            ("a_zz", None),
            ("a_ff", None),
        ] {
            assert_eq!(unescape(element).as_deref(), name, "{element}");
        }
    }
}
