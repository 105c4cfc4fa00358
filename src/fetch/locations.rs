//! [`Locations`]: where images and their signatures are, and the way there, as the configuration says at the moment.

use std::sync::Arc;

use crate::config::{
    Directories, Endpoint, Environment, LookasideUrl, ProxySettings, RegistriesConf, RegistriesConfSource,
    RegistriesD, VouchdToml,
};
use crate::fetch::Error;
use crate::fetch::registry::Proxies;
use crate::reference::Named;

/// Which files say where images and their signatures are, and how to get there.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Which registries.d.
    pub registries_d: Directories,
    /// Which registries.conf.
    pub registries_conf: RegistriesConfSource,
    /// Where proxies are set.
    pub proxies: ProxySource,
}

/// Where proxies are set.
#[derive(Clone, Debug)]
pub enum ProxySource {
    /// In variables of the environment (rule H-8).
    Variables(ProxySettings),
    /// In vouchd.toml.
    VouchdToml(Environment),
}

impl ProxySource {
    /// Reads them. It blocks.
    pub(in crate::fetch) fn load(&self) -> Result<Proxies, Error> {
        let (origin, ProxySettings { http, https, no_proxy }) = match self {
            Self::Variables(settings) => ("the environment", settings.clone()),
            Self::VouchdToml(environment) => ("vouchd.toml", VouchdToml::load(environment)?.proxy),
        };
        let no_proxy = no_proxy.as_deref().unwrap_or_default();
        // The variable is read as other tools read it; the file is ours.
        if let (Self::VouchdToml(_), Some(text)) = (self, Proxies::first_meaningless(no_proxy)) {
            let detail = format!("\"no-proxy\" has \"{text}\", which is neither a host nor a network");
            return Err(Error::Proxy { origin, detail });
        }
        Proxies::new(http.as_deref(), https.as_deref(), no_proxy)
            .map_err(|unusable| Error::Proxy { origin, detail: unusable.to_string() })
    }
}

impl Configuration {
    /// Reads them. What is wrong there is wrong for every image of a registry (rules D-11, M-1). It blocks.
    pub fn load(&self) -> Result<Locations, Error> {
        Ok(Locations {
            registries_d: RegistriesD::load(&self.registries_d)?,
            registries_conf: RegistriesConf::load(&self.registries_conf)?,
        })
    }

    /// Reads them, and where proxies are set. It blocks.
    pub fn load_ways(&self) -> Result<Ways, Error> {
        Ok(Ways { locations: self.load()?, proxies: Arc::new(self.proxies.load()?) })
    }
}

/// What those files say at the moment.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Where signatures are.
    pub registries_d: RegistriesD,
    /// Where registries are.
    pub registries_conf: RegistriesConf,
}

/// Where the manifests and signatures of one image are looked for, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<Place>);

impl Places {
    /// Whether there is but one, so that nobody waits for others to be passed over.
    pub fn is_one(&self) -> bool {
        self.0.len() == 1
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    repository: String,
    is_insecure: bool,
    is_blocked: bool,
    has_attachments: bool,
    lookaside: Option<LookasideUrl>,
}

impl Locations {
    /// Where an image and its signatures are looked for; nothing if it is nowhere.
    pub fn places(&self, image: &Named) -> Option<Places> {
        let place = |endpoint: &Endpoint| Place {
            repository: endpoint.image.name(),
            is_insecure: endpoint.insecure,
            is_blocked: endpoint.blocked.is_some(),
            has_attachments: self.registries_d.use_attachments(&endpoint.image),
            lookaside: self.registries_d.lookaside_usable(&endpoint.image).ok(),
        };
        let endpoints = self.registries_conf.endpoints(image).ok()?;
        Some(Places(endpoints.iter().map(place).collect()))
    }

    /// Whether manifests and signatures of both names are looked for in the same places.
    pub fn are_the_same(&self, image: &Named, other: &Named) -> bool {
        self.places(image).is_some_and(|found| self.places(other) == Some(found))
    }
}

/// What those files say at the moment, and how to get there.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Where images and signatures are.
    pub locations: Locations,
    /// By way of which proxies.
    pub proxies: Arc<Proxies>,
}
