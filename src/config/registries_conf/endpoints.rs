//! [`Endpoint`]: one place from which an image can be fetched (rules M-4 to M-8).

use std::path::PathBuf;

use super::document::{Place, Pulls, Registry};
use super::{Error, RegistriesConf, RegistryEntry};
use crate::nonempty::NonEmpty;
use crate::reference::Named;

/// One place from which an image can be fetched.
///
/// Manifests, signatures, credentials and certificates are looked up by its name; the policy never is (rules M-7, S-22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name there, with the tag or digest of the image.
    pub image: Named,
    /// Whether TLS may be unverified or absent (rule M-9).
    pub insecure: bool,
    /// Whether it is a mirror, or else the registry itself.
    pub is_mirror: bool,
    /// The entry that leads here; none if the name stands for itself.
    pub origin: Option<RegistryEntry>,
    /// The entry that blocks the name there: the attempt fails without being made (rule M-8).
    pub blocked: Option<RegistryEntry>,
}

impl RegistriesConf {
    /// Where an image is fetched from, in the order of the attempts (rules M-4, M-5).
    ///
    /// Stricter than the reference, an image whose own entry is blocked is refused even if the entry leads elsewhere
    /// (rule M-8). One place that cannot be used makes all unusable.
    pub fn endpoints(&self, image: &Named) -> Result<NonEmpty<Endpoint>, Error> {
        let Some((matched, registry, origin)) = self.find(image) else {
            return Ok(NonEmpty::one(Endpoint {
                image: image.clone(),
                insecure: false,
                is_mirror: false,
                origin: None,
                blocked: None,
            }));
        };
        if registry.blocked {
            return Err(Error::RegistryBlocked { image: Box::new(image.clone()), entry: origin });
        }
        let endpoint = |place: &Place, is_mirror| {
            let there = rewrite(image, matched, place).map_err(|detail| Error::Endpoint {
                image: Box::new(image.clone()),
                entry: origin.clone(),
                location: if place.location.is_empty() { image.name() } else { place.location.clone() },
                detail,
            })?;
            let blocked = self.find(&there).filter(|(_, registry, _)| registry.blocked);
            Ok(Endpoint {
                image: there,
                insecure: place.insecure,
                is_mirror,
                origin: Some(origin.clone()),
                blocked: blocked.map(|(_, _, entry)| entry),
            })
        };
        let by_digest = image.digest().is_some();
        let mut all = Vec::new();
        for (place, pulls) in &registry.mirrors {
            let allowed = match pulls {
                Pulls::All => true,
                Pulls::ByDigest => by_digest,
                Pulls::ByTag => !by_digest,
            };
            if allowed {
                all.push(endpoint(place, true)?);
            }
        }
        let primary = endpoint(&registry.primary, false)?;
        Ok(match NonEmpty::from_vec(all) {
            Some(mirrors) => mirrors.followed_by(primary),
            None => NonEmpty::one(primary),
        })
    }

    /// The entry with the longest prefix of this repository, and how much of the name it matches (rule M-4).
    fn find(&self, image: &Named) -> Option<(usize, &Registry, RegistryEntry)> {
        let name = image.name();
        let mut best: Option<(usize, &Registry, &PathBuf)> = None;
        for (registry, file) in self.registries.values() {
            // Of two as long, the first in the order of the bytes counts.
            let longer = best.is_none_or(|(_, best, _)| registry.prefix.len() > best.prefix.len());
            if let Some(length) = matched_length(&name, &registry.prefix).filter(|_| longer) {
                best = Some((length, registry, file));
            }
        }
        let (length, registry, file) = best?;
        Some((length, registry, RegistryEntry { prefix: registry.prefix.clone(), file: file.clone() }))
    }
}

/// How much of the beginning of `name` a prefix matches (rule M-4).
fn matched_length(name: &str, prefix: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => {
            let (before, _) = name.split_once(domain)?;
            if before.contains('/') {
                return None;
            }
            before.len().checked_add(domain.len())?
        }
        Some(_) | None => name.strip_prefix(prefix).map(|_| prefix.len())?,
    };
    let rest = name.get(length..)?;
    (rest.is_empty() || rest.starts_with([':', '/', '@'])).then_some(length)
}

/// The name with the location in place of its first `matched` bytes (rule M-5).
fn rewrite(image: &Named, matched: usize, place: &Place) -> Result<Named, &'static str> {
    if place.namespace_proxy {
        return Err("\"namespace-proxy\" is not supported");
    }
    if place.location.is_empty() {
        return Ok(image.clone());
    }
    let text = image.to_string();
    let rest = text.get(matched..).unwrap_or_default();
    // A tag in the location would make it another image than the digest says; the reference never asks for one.
    let is_alike = |there: &Named| there.tag() == image.tag() && there.digest() == image.digest();
    Named::parse_canonical(&format!("{}{rest}", place.location))
        .filter(|there| !there.domain().is_empty() && is_alike(there))
        .ok_or("with the rest of the name it is no complete image name")
}
