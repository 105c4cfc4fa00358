//! [`Properties`]: what a registry says of itself at `/v2/` (rules H-1, X-1).

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use crate::fetch::Error;
use crate::fetch::registry::refusal::Refusal;
use crate::fetch::registry::visit::Visit;
use crate::fetch::registry::{Ask, Client, Errand, insert, lock};

/// What a registry says of itself.
#[derive(Clone, Copy, Debug)]
struct Properties {
    /// Whether it is reached over plain HTTP, which only an insecure one may be (rule M-9).
    plain_http: bool,
    /// Whether it keeps signatures itself (rule X-1).
    keeps_signatures: bool,
}

/// Properties, and how long they count.
#[derive(Debug)]
pub(super) struct Known {
    properties: Properties,
    until: Instant,
}

impl Client {
    /// Whether the registry has the extension that keeps signatures, in which case no lookaside store is asked.
    pub async fn keeps_signatures(&self, errand: &Errand<'_>) -> Result<bool, Error> {
        let visit = Visit::to_registry(errand, ping_of(errand))?;
        Ok(self.properties(&visit).await?.keeps_signatures)
    }

    /// A question to the registry, in the way in which it can be reached (rule H-1).
    pub(super) async fn visit<'a>(
        &self,
        errand: &Errand<'a>,
        waiting_for: String,
    ) -> Result<Visit<'a>, Error> {
        let visit = Visit::to_registry(errand, waiting_for)?;
        // Without this, there is nothing to find out: it is asked over TLS or not at all.
        if visit.insecure && self.properties(&visit.instead_for(ping_of(errand))).await?.plain_http {
            return Ok(visit.over_plain_http());
        }
        Ok(visit)
    }

    async fn properties(&self, visit: &Visit<'_>) -> Result<Properties, Error> {
        let key = self.hint_key(visit).await?;
        if let Some(known) = lock(&self.properties).get(&key).filter(|known| Instant::now() < known.until) {
            return Ok(known.properties);
        }
        let properties = match self.ping(visit).await {
            // "Any reason" in rule H-1 is one that lies with the registry.
            Err(over_tls) if visit.insecure && over_tls.is_of_registry() => {
                let plain = self.ping(&visit.over_plain_http()).await;
                plain.map_err(|error| visit.unavailable(&format!("{over_tls}; without TLS: {error}")))?
            }
            found => found?,
        };
        if let Some(until) = Instant::now().checked_add(REMEMBERED) {
            insert(&self.properties, key, Known { properties, until }, REGISTRIES);
        }
        Ok(properties)
    }

    /// Anything but 200 and 401 is an error (rule H-1).
    async fn ping(&self, visit: &Visit<'_>) -> Result<Properties, Error> {
        let mut url = visit.home.clone();
        url.set_path("/v2/");
        let response = self.exchange(visit, Ask::to(url)).await?.response;
        if !matches!(response.status(), StatusCode::OK | StatusCode::UNAUTHORIZED) {
            return Err(Refusal::read(visit, response, None, None).await?.into_error(visit));
        }
        let keeps_signatures = response.headers().get("x-registry-supports-signatures");
        Ok(Properties {
            plain_http: visit.home.scheme() == "http",
            keeps_signatures: keeps_signatures.is_some_and(|value| value == "1"),
        })
    }
}

fn ping_of(errand: &Errand<'_>) -> String {
    format!("the API of {}", errand.image.domain())
}

/// How long a registry is taken for what it was: 10 min.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Registries remembered at a time: a host uses a handful.
const REGISTRIES: usize = 256;
