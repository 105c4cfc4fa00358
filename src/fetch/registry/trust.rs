//! [`Trust`]: the certificates that a registry has at the moment, and the connections made with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::registry::address::Reach;
use crate::fetch::registry::certificates::{Certificates, Files};
use crate::fetch::registry::visit::Visit;
use crate::fetch::registry::{Client, Proxies, insert, lock};

/// The certificates of a registry, and the connections made with them and with no others.
#[derive(Debug)]
pub(super) struct Trust {
    /// Tells apart what was learned with other certificates.
    pub(super) id: Digest,
    certificates: Certificates,
    connections: Mutex<HashMap<Route, reqwest::Client>>,
}

/// What connections have in common that may be used for one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) reach: Reach,
    /// Whether the server need not prove who it is (rule M-9).
    pub(super) unverified: bool,
    pub(super) proxies: Proxies,
}

impl Client {
    /// The certificates of the registry, read once for each question: a withdrawn one counts no longer (T-23).
    pub(super) async fn trust<'v>(&self, visit: &'v Visit<'_>) -> Result<&'v Arc<Trust>, Error> {
        visit.trust.get_or_try_init(|| self.present_trust(visit)).await
    }

    async fn present_trust(&self, visit: &Visit<'_>) -> Result<Arc<Trust>, Error> {
        let known = lock(&self.trusts).get(&visit.registry).cloned();
        let (settings, registry) = (Arc::clone(&self.settings), visit.registry.clone());
        let read = move || {
            let files = Files::find(&settings, &registry)?;
            let id = files.digest();
            match known.filter(|known| known.id == id) {
                Some(known) => Ok::<_, Error>(known),
                None => {
                    let certificates = Certificates::new(&files)?;
                    Ok(Arc::new(Trust { id, certificates, connections: Mutex::default() }))
                }
            }
        };
        let present = visit.block(read).await??;
        // Somebody else may have been faster.
        let faster = lock(&self.trusts).get(&visit.registry).filter(|known| known.id == present.id).cloned();
        if let Some(faster) = faster {
            return Ok(faster);
        }
        insert(&self.trusts, visit.registry.clone(), Arc::clone(&present), REGISTRIES);
        Ok(present)
    }

    /// The connections of a registry that may go as far as `reach`.
    ///
    /// Only the server that was configured may be one that proves nothing.
    pub(super) async fn connection(&self, visit: &Visit<'_>, reach: Reach) -> Result<reqwest::Client, Error> {
        let trust = self.trust(visit).await?;
        let unverified = visit.insecure && reach == Reach::Configured;
        let route = Route { reach, unverified, proxies: visit.proxies.clone() };
        if let Some(known) = lock(&trust.connections).get(&route) {
            return Ok(known.clone());
        }
        let (building, wanted) = (Arc::clone(trust), route.clone());
        let made = visit.block(move || building.certificates.connect(wanted)).await??;
        insert(&trust.connections, route, made.clone(), ROUTES);
        Ok(made)
    }
}

/// Registries remembered at a time: a host uses a handful.
const REGISTRIES: usize = 64;

/// Kinds of connections of one registry at a time: four classes of address, with and without verification.
const ROUTES: usize = 16;
