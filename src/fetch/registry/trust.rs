//! [`Trust`]: the certificates that a registry has at the moment, and the connections made with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

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
    /// When it was put together; the system's roots are read soon after.
    made: Instant,
    certificates: Certificates,
    connections: Mutex<HashMap<Route, reqwest::Client>>,
}

impl Trust {
    /// Whether it is that of these files, and its roots of the system are still to be believed.
    fn is(&self, id: &Digest) -> bool {
        self.id == *id && self.made.elapsed() < REMEMBERED
    }
}

/// What connections have in common that may be used for one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) reach: Reach,
    /// Whether the server need not prove who it is (rule M-9).
    pub(super) unverified: bool,
    /// Whether it is shown the client certificate, if there is one: a credential for the configured server alone.
    pub(super) client_certificate: bool,
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
            match known.filter(|known| known.is(&id)) {
                Some(known) => Ok::<_, Error>(known),
                None => {
                    let certificates = Certificates::new(&files, settings.roots)?;
                    Ok(Arc::new(Trust {
                        id,
                        made: Instant::now(),
                        certificates,
                        connections: Mutex::default(),
                    }))
                }
            }
        };
        let present = visit.block(read).await??;
        // Somebody else may have been faster.
        let faster = lock(&self.trusts).get(&visit.registry).filter(|known| known.is(&present.id)).cloned();
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
        let at_home = matches!(reach, Reach::Configured | Reach::Guarded);
        let unverified = visit.insecure && at_home;
        let client_certificate = visit.client_certificate && at_home;
        let route = Route { reach, unverified, client_certificate, proxies: visit.proxies.clone() };
        if let Some(known) = lock(&trust.connections).get(&route) {
            return Ok(known.clone());
        }
        let (building, wanted) = (Arc::clone(trust), route.clone());
        let made = visit.block(move || building.certificates.connect(wanted)).await??;
        insert(&trust.connections, route, made.clone(), ROUTES);
        Ok(made)
    }
}

/// How long the system's roots count after they were read: 10 min, so that one that is withdrawn does not count for
/// as long as a daemon runs (T-23).
const REMEMBERED: Duration = Duration::from_secs(600);

/// Registries remembered at a time: a host uses a handful.
const REGISTRIES: usize = 64;

/// Kinds of connections of one registry at a time: four classes of address, with and without verification, for root and
/// for users.
const ROUTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Budget;
    use crate::fetch::registry::{Errand, Settings};
    use crate::reference::Named;

    // Rule T-23.
    #[tokio::test]
    async fn the_roots_of_the_system_are_read_again_after_a_while() {
        let tmp = tempfile::tempdir().unwrap();
        let client = Client::new(Settings { cert_dir: Some(tmp.path().to_owned()), ..Settings::default() });
        let (image, budget) = (Named::parse("r.example/a").unwrap(), Budget::new());
        let errand = Errand::new(&image, &budget, Instant::now() + Duration::from_secs(60));
        let visit = || Visit::to_registry(&errand, String::new()).unwrap();
        let first = Arc::clone(client.trust(&visit()).await.unwrap());
        assert!(Arc::ptr_eq(&first, client.trust(&visit()).await.unwrap()));
        let old = Arc::new(Trust {
            id: first.id.clone(),
            made: Instant::now().checked_sub(REMEMBERED).unwrap(),
            certificates: Certificates::new(
                &Files::find(&client.settings, "r.example").unwrap(),
                client.settings.roots,
            )
            .unwrap(),
            connections: Mutex::default(),
        });
        lock(&client.trusts).insert("r.example".to_owned(), Arc::clone(&old));
        let next = Arc::clone(client.trust(&visit()).await.unwrap());
        assert!(next.id == old.id && !Arc::ptr_eq(&next, &old));
        assert!(Arc::ptr_eq(&next, client.trust(&visit()).await.unwrap()));
    }
}
