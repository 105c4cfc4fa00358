//! [`DaemonState`]: whether the daemon runs, without starting it, and how it is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use zbus::fdo::{self, DBusProxy};
use zbus::names::{BusName, WellKnownName};
use zbus::proxy::CacheProperties;

use crate::report::RefusalReport;

use super::client::{ClientError, bus, bus_address, check_owner, connect};
use super::{NAME, UNIT, UnitState, VerifierProxy};

/// How long everything together may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of the daemon.
#[derive(Clone, Debug)]
pub struct DaemonState {
    /// Its unit; nothing without a bus or systemd.
    pub unit: Option<UnitState>,
    /// What it says of itself; nothing if it does not run.
    pub running: Result<Option<Running>, ClientError>,
}

/// What a daemon says of itself. It is not escaped.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// `loaded`, `missing` or `invalid`.
    pub policy_state: String,
    /// The policy file; empty if there is none.
    pub policy_path: String,
    /// SHA-256 of the policy file; empty unless it is loaded.
    pub policy_digest: String,
    /// What it has answered, by outcome, if it tells.
    pub counters: Option<BTreeMap<String, u64>>,
    /// The last answers that were not yes, the newest last, if it tells: only root (T-34).
    pub refusals: Option<Vec<RefusalReport>>,
}

impl DaemonState {
    /// Asks, and starts nothing. Without `address`, on the system bus.
    pub async fn ask(address: Option<&str>) -> Self {
        match tokio::time::timeout(PATIENCE, ask(address)).await {
            Ok(state) => state,
            Err(_) => Self { unit: None, running: Err(bus("it does not answer")) },
        }
    }
}

async fn ask(address: Option<&str>) -> DaemonState {
    let connection = match connect(&bus_address(address), PATIENCE).await {
        Ok(connection) => connection,
        Err(ClientError::NotAvailable(_)) => return DaemonState { unit: None, running: Ok(None) },
        Err(error) => return DaemonState { unit: None, running: Err(error) },
    };
    let unit = UnitState::of(&connection, UNIT).await;
    DaemonState { unit, running: running(&connection).await }
}

async fn running(connection: &zbus::Connection) -> Result<Option<Running>, ClientError> {
    let failed = |error: zbus::Error| bus(&error.to_string());
    let proxy = DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await;
    let proxy = proxy.map_err(failed)?;
    let name = WellKnownName::from_static_str(NAME).map_err(|error| bus(&error.to_string()))?;
    let owner = match proxy.get_name_owner(BusName::WellKnown(name)).await {
        Ok(owner) => owner,
        Err(fdo::Error::NameHasNoOwner(_)) => return Ok(None),
        Err(error) => return Err(bus(&error.to_string())),
    };
    let credentials = proxy.get_connection_credentials(BusName::Unique(owner.inner().clone())).await;
    check_owner(credentials.map_err(|error| bus(&error.to_string()))?.unix_user_id()).await?;
    let verifier =
        VerifierProxy::builder(connection).destination(owner).cache_properties(CacheProperties::No);
    let verifier = verifier.build().await.map_err(failed)?;
    // Daemons of other versions may not have it.
    let counters: Option<HashMap<String, u64>> = verifier.inner().get_property("Counters").await.ok();
    Ok(Some(Running {
        version: verifier.version().await.map_err(failed)?,
        policy_state: verifier.policy_state().await.map_err(failed)?,
        policy_path: verifier.policy_path().await.map_err(failed)?,
        policy_digest: verifier.policy_digest().await.map_err(failed)?,
        counters: counters.map(|counters| counters.into_iter().collect()),
        refusals: refusals(&verifier).await,
    }))
}

/// Those that can be read; nothing if this user may not see them, or the daemon is of a version without them.
async fn refusals(verifier: &VerifierProxy<'_>) -> Option<Vec<RefusalReport>> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let refusals = verifier.last_refusals().await.ok()?;
    Some(refusals.iter().filter_map(|refusal| refusal.read().ok()).collect())
}
