//! [`SignedIdentity`]: which signed names are accepted for an image (rules I-1 to I-9).

use crate::reference::{Named, is_domain, is_path};

/// A `signedIdentity` of policy.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedIdentity {
    /// `exactReference`
    ExactReference(Named),
    /// `exactRepository`
    ExactRepository(Named),
    /// `matchExact`
    MatchExact,
    /// `matchRepoDigestOrExact`, the default (rule P-26)
    MatchRepoDigestOrExact,
    /// `matchRepository`
    MatchRepository,
    /// `matchRepositoryOrUnnamed`, which is ours: the default of `keyless` (design decision 3.3).
    MatchRepositoryOrUnnamed,
    /// `remapIdentity`
    RemapIdentity(Remap),
}

/// The two valid prefixes of `remapIdentity` (rule P-53).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    prefix: String,
    signed_prefix: String,
}

impl Remap {
    /// Both prefixes, if both are valid.
    pub fn new(prefix: &str, signed_prefix: &str) -> Option<Self> {
        (is_prefix(prefix) && is_prefix(signed_prefix))
            .then(|| Self { prefix: prefix.to_owned(), signed_prefix: signed_prefix.to_owned() })
    }

    /// `prefix`
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `signedPrefix`
    pub fn signed_prefix(&self) -> &str {
        &self.signed_prefix
    }

    /// The image's name as it should have been signed; `None` if the result is no canonical name (rule I-9).
    fn apply(&self, image: &Named) -> Option<Named> {
        let name = image.name();
        match name.strip_prefix(&self.prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let full = image.to_string();
                let rest = full.strip_prefix(&self.prefix)?;
                Named::parse_canonical(&format!("{}{rest}", self.signed_prefix))
            }
            Some(_) | None => Some(image.clone()),
        }
    }
}

/// Rule P-53: a host, or a repository name that begins with a host.
pub fn is_prefix(text: &str) -> bool {
    match text.split_once('/') {
        None => is_domain(text),
        Some((host, path)) => is_domain(host) && is_path(path),
    }
}

impl SignedIdentity {
    /// Whether a signature for `signed` may be used for `image` (`None`: an image without a docker reference).
    ///
    /// What is no name, such as the empty string, is accepted by none (rule I-1).
    pub fn accepts(&self, image: Option<&Named>, signed: &str) -> bool {
        let Ok(signed) = Named::parse(signed) else { return false };
        match self {
            Self::ExactReference(wanted) => same_reference(wanted, &signed),
            Self::ExactRepository(wanted) => wanted.same_repository(&signed),
            Self::MatchExact => image.is_some_and(|image| same_reference(image, &signed)),
            Self::MatchRepoDigestOrExact => image.is_some_and(|image| digest_or_exact(image, &signed)),
            Self::MatchRepository | Self::MatchRepositoryOrUnnamed => {
                image.is_some_and(|image| image.same_repository(&signed))
            }
            Self::RemapIdentity(remap) => image
                .and_then(|image| remap.apply(image))
                .is_some_and(|image| digest_or_exact(&image, &signed)),
        }
    }

    /// Whether other tools know it.
    pub fn is_common(&self) -> bool {
        !self.accepts_unnamed()
    }

    /// Whether a signature that names no image at all may be used; the digest still binds it to one (T-16).
    pub fn accepts_unnamed(&self) -> bool {
        match self {
            Self::ExactReference(_)
            | Self::ExactRepository(_)
            | Self::MatchExact
            | Self::MatchRepoDigestOrExact
            | Self::MatchRepository
            | Self::RemapIdentity(_) => false,
            Self::MatchRepositoryOrUnnamed => true,
        }
    }

    /// What is accepted for `image`, in words.
    pub fn wanted(&self, image: Option<&Named>) -> String {
        let name = |image: &Named| format!("\"{image}\"");
        let repository = |image: &Named| format!("any tag or digest of \"{}\"", image.name());
        let none = || "a name, which this image does not have".to_owned();
        match self {
            Self::ExactReference(wanted) => name(wanted),
            Self::ExactRepository(wanted) => repository(wanted),
            Self::MatchExact => image.map_or_else(none, name),
            Self::MatchRepository => image.map_or_else(none, repository),
            Self::MatchRepositoryOrUnnamed => match image {
                Some(image) => format!("{}, or no name", repository(image)),
                None => "no name".to_owned(),
            },
            Self::MatchRepoDigestOrExact => image.map_or_else(none, wanted_digest_or_exact),
            Self::RemapIdentity(remap) => image.map_or_else(none, |image| match remap.apply(image) {
                Some(image) => wanted_digest_or_exact(&image),
                None => "a name that remapIdentity cannot form for this image".to_owned(),
            }),
        }
    }

    /// The `type` in policy.json.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ExactReference(_) => "exactReference",
            Self::ExactRepository(_) => "exactRepository",
            Self::MatchExact => "matchExact",
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchRepository => "matchRepository",
            Self::MatchRepositoryOrUnnamed => "matchRepositoryOrUnnamed",
            Self::RemapIdentity(_) => "remapIdentity",
        }
    }
}

fn wanted_digest_or_exact(image: &Named) -> String {
    if image.tag().is_none() && image.digest().is_some() {
        format!("a tag or digest of \"{}\"", image.name())
    } else {
        format!("\"{image}\"")
    }
}

/// Rules I-3 and I-7: both with tag or digest, and equal in full.
fn same_reference(wanted: &Named, signed: &Named) -> bool {
    !wanted.is_name_only() && !signed.is_name_only() && wanted == signed
}

/// Rule I-4: with a tag equal in full, with only a digest the same repository.
fn digest_or_exact(image: &Named, signed: &Named) -> bool {
    if signed.is_name_only() {
        return false;
    }
    match (image.tag(), image.digest()) {
        (Some(_), _) => image == signed,
        (None, Some(_)) => image.same_repository(signed),
        (None, None) => false,
    }
}
