//! [`Policy`]: what policy.json says; containers-policy.json(5).

pub mod certificate;
pub mod identity;
pub mod parse;
pub mod pattern;
pub mod scope;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::diagnostic::Span;
use crate::nonempty::NonEmpty;
use crate::reference::{ImageReference, Named};

use certificate::{CertificateIdentity, TrustedRoot};

pub use certificate::{Fulcio, FulcioIdentity, FulcioSubject, Keyless};
pub use identity::SignedIdentity;

/// A valid policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    default: Entry,
    transports: HashMap<String, HashMap<String, Entry>>,
    /// Whether other tools can read it.
    is_common: bool,
}

/// The requirements of one scope, and where the scope stands.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    requirements: Requirements,
    span: Span,
}

/// A list of requirements, all of which must be satisfied; it cannot be empty (rule P-9).
#[derive(Clone, Debug, PartialEq)]
pub struct Requirements(NonEmpty<Requirement>);

impl Requirements {
    /// The requirements in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

/// One requirement of a scope.
#[derive(Clone, Debug, PartialEq)]
pub enum Requirement {
    /// `insecureAcceptAnything`
    InsecureAcceptAnything,
    /// `reject`
    Reject,
    /// `signedBaseLayer`, which the reference parses and always refuses (rule E-12).
    SignedBaseLayer(SignedIdentity),
    /// `signedBy`
    SignedBy(SignedBy),
    /// `sigstoreSigned`
    SigstoreSigned(SigstoreSigned),
}

impl Requirement {
    /// The `type` in policy.json.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InsecureAcceptAnything => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBaseLayer(_) => "signedBaseLayer",
            Self::SignedBy(_) => "signedBy",
            Self::SigstoreSigned(_) => "sigstoreSigned",
        }
    }

    /// The trusted root that certificates are judged with, if they are.
    pub fn trusted_root(&self) -> Option<&TrustedRoot> {
        match self {
            Self::SigstoreSigned(SigstoreSigned { signer: Signer::Certificate { root, .. }, .. }) => {
                Some(root)
            }
            Self::InsecureAcceptAnything
            | Self::Reject
            | Self::SignedBaseLayer(_)
            | Self::SignedBy(_)
            | Self::SigstoreSigned(_) => None,
        }
    }

    /// Whether other tools know every member of it.
    pub fn is_common(&self) -> bool {
        match self {
            Self::InsecureAcceptAnything | Self::Reject => true,
            Self::SignedBaseLayer(identity) | Self::SignedBy(SignedBy { identity, .. }) => {
                identity.is_common()
            }
            Self::SigstoreSigned(signed) => {
                let SigstoreSigned { signer, identity, has_members_of_ours, .. } = signed;
                identity.is_common() && signer.is_common() && !has_members_of_ours
            }
        }
    }

    /// Whether sigstore attachments are looked for on its behalf, whatever registries.d says (design decision 3.4).
    pub fn implies_attachments(&self) -> bool {
        matches!(self, Self::SigstoreSigned(SigstoreSigned { implies_attachments: true, .. }))
    }

    /// Whether satisfying it means that a signature was verified (rule E-6).
    pub fn verifies_signatures(&self) -> bool {
        match self {
            Self::InsecureAcceptAnything | Self::Reject | Self::SignedBaseLayer(_) => false,
            Self::SignedBy(_) | Self::SigstoreSigned(_) => true,
        }
    }
}

/// A simple-signing signature by an OpenPGP key (rules P-22 to P-26).
#[derive(Clone, Debug, PartialEq)]
pub struct SignedBy {
    /// `keyType`
    pub key_type: KeyType,
    /// `keyPath`, `keyPaths` or `keyData`
    pub keys: KeySource,
    /// `signedIdentity`
    pub identity: SignedIdentity,
}

/// What the keys of signedBy are; only the first can be checked, as in the reference (rule G-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// `GPGKeys`
    GpgKeys,
    /// `signedByGPGKeys`
    SignedByGpgKeys,
    /// `X509Certificates`
    X509Certificates,
    /// `signedByX509CAs`
    SignedByX509Cas,
}

impl KeyType {
    /// The text in policy.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GpgKeys => "GPGKeys",
            Self::SignedByGpgKeys => "signedByGPGKeys",
            Self::X509Certificates => "X509Certificates",
            Self::SignedByX509Cas => "signedByX509CAs",
        }
    }
}

/// Where keys or certificates come from: exactly one way.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// One file.
    Path(String),
    /// Several files; the reference parses an empty list for signedBy and then finds no key (rule P-24).
    Paths(Vec<String>),
    /// In the policy, decoded from base64.
    Data(Arc<[u8]>),
    /// Several in the policy.
    Datas(Vec<Arc<[u8]>>),
}

impl KeySource {
    /// The files.
    pub fn paths(&self) -> &[String] {
        match self {
            Self::Path(path) => std::slice::from_ref(path),
            Self::Paths(paths) => paths,
            Self::Data(_) | Self::Datas(_) => &[],
        }
    }

    /// The keys in the policy.
    pub fn data(&self) -> &[Arc<[u8]>] {
        match self {
            Self::Path(_) | Self::Paths(_) => &[],
            Self::Data(data) => std::slice::from_ref(data),
            Self::Datas(datas) => datas,
        }
    }
}

/// A sigstore signature (rules P-31 to P-39).
#[derive(Clone, Debug, PartialEq)]
pub struct SigstoreSigned {
    /// Whose signatures count.
    pub signer: Signer,
    /// `signedIdentity`
    pub identity: SignedIdentity,
    /// `messageSignature`: whether a bundle that signs the bytes of the manifest, and so no name, counts too (T-17).
    pub message_signature: bool,
    /// `manifestAnnotations`: what the manifest itself must say, byte for byte (T-16).
    pub manifest_annotations: BTreeMap<String, String>,
    /// `--annotations` of `vouchd verify`: what the signature itself must say, byte for byte.
    pub signed_annotations: BTreeMap<String, String>,
    /// Whether one of the members of ours is there, if only to say no: other tools then cannot read the policy.
    pub has_members_of_ours: bool,
    /// Whether sigstore attachments are looked for, whatever registries.d says (design decision 3.4).
    pub implies_attachments: bool,
}

/// Whose sigstore signatures count: exactly one kind (rules P-32 to P-37).
#[derive(Clone, Debug, PartialEq)]
pub enum Signer {
    /// Public keys, optionally with proof that the signature was logged.
    Keys {
        /// `keyPath`, `keyPaths`, `keyData` or `keyDatas`
        keys: KeySource,
        /// `rekorPublicKey…`
        rekor: Option<KeySource>,
    },
    /// A short-lived certificate, judged with a trusted root: a kind of ours (T-14, T-15).
    Certificate {
        /// `keyless`, or the members of `fulcio` other than its authority.
        identity: Box<CertificateIdentity>,
        /// `trustedRoot…`
        root: TrustedRoot,
    },
    /// A short-lived certificate of an authority that the requirement names, with proof that the signature was logged.
    Fulcio {
        /// `fulcio`
        fulcio: Fulcio,
        /// `rekorPublicKey…`
        rekor: KeySource,
    },
    /// A certificate of one's own authority.
    Pki(Pki),
}

impl Signer {
    /// Whether other tools know every member of it.
    fn is_common(&self) -> bool {
        match self {
            Self::Certificate { .. } => false,
            Self::Fulcio { fulcio, .. } => match fulcio.identity.subject {
                FulcioSubject::Email(_) => true,
                FulcioSubject::Pins(_) => false,
            },
            Self::Keys { .. } | Self::Pki(_) => true,
        }
    }

    /// Every file and datum that it names, but for trusted roots.
    pub fn sources(&self) -> impl Iterator<Item = &KeySource> {
        let (first, second) = match self {
            Self::Certificate { .. } => (None, None),
            Self::Fulcio { fulcio, rekor } => (Some(&fulcio.ca), Some(rekor)),
            Self::Keys { keys, rekor } => (Some(keys), rekor.as_ref()),
            Self::Pki(pki) => (Some(&pki.roots), pki.intermediates.as_ref()),
        };
        first.into_iter().chain(second)
    }
}

/// `pki` (rule P-39).
#[derive(Clone, Debug, PartialEq)]
pub struct Pki {
    /// `caRootsPath` or `caRootsData`
    pub roots: KeySource,
    /// `caIntermediatesPath` or `caIntermediatesData`
    pub intermediates: Option<KeySource>,
    /// `subjectEmail` and `subjectHostname`
    pub subject: PkiSubject,
}

/// The names that a `pki` certificate must carry: at least one (rule P-39).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PkiSubject {
    /// `subjectEmail`
    Email(String),
    /// `subjectHostname`
    Hostname(String),
    /// Both must match.
    Both {
        /// `subjectEmail`
        email: String,
        /// `subjectHostname`
        hostname: String,
    },
}

/// The scope that applies to an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<'p> {
    /// Which scope.
    pub scope: Scope,
    /// Its requirements.
    pub requirements: &'p Requirements,
    /// Where the scope's key stands in the policy.
    pub span: Span,
}

/// A scope of policy.json.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `default`
    Default,
    /// A scope of a transport; the name is empty for the transport's default.
    Transport {
        /// Name of the transport.
        transport: String,
        /// Name of the scope.
        name: String,
    },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Transport { transport, name } => write!(f, "{transport} \"{name}\""),
        }
    }
}

impl Policy {
    /// A policy that nobody wrote down: this one requirement for every image.
    pub fn of(requirement: Requirement) -> Self {
        let requirements = Requirements(NonEmpty::one(requirement));
        Self::new(Entry { requirements, span: Span::default() }, HashMap::new())
    }

    fn new(default: Entry, transports: HashMap<String, HashMap<String, Entry>>) -> Self {
        let scopes = transports.values().flat_map(HashMap::values).chain([&default]);
        let is_common = scopes.flat_map(|entry| entry.requirements.iter()).all(Requirement::is_common);
        Self { default, transports, is_common }
    }

    /// Whether other tools can read it. They refuse every image while it has one member that they do not know.
    pub fn is_common(&self) -> bool {
        self.is_common
    }

    /// The one scope whose requirements apply: the first hit, nothing merged (rules S-20, S-21).
    pub fn lookup(&self, image: &ImageReference) -> Match<'_> {
        let transport = image.transport().name();
        let found = self
            .transports
            .get(transport)
            .and_then(|scopes| Self::candidates(image).find_map(|name| scopes.get_key_value(name)));
        match found {
            Some((name, entry)) => Match {
                scope: Scope::Transport { transport: transport.to_owned(), name: name.clone() },
                requirements: &entry.requirements,
                span: entry.span,
            },
            None => Match {
                scope: Scope::Default,
                requirements: &self.default.requirements,
                span: self.default.span,
            },
        }
    }

    /// The scopes of the image's transport that are tried, most specific first, the empty one last.
    pub fn candidates(image: &ImageReference) -> impl Iterator<Item = &str> {
        std::iter::once(image.policy_identity())
            .chain(image.policy_namespaces().iter().map(String::as_str))
            .chain(std::iter::once(""))
    }

    /// Whether a scope is of the registry of this image: of its host, of something on that, or of a domain around it.
    ///
    /// The empty scope and `default` are of no registry (T-29); a wildcard with a path matches nothing (rule S-4).
    pub fn names_registry(&self, image: &ImageReference) -> bool {
        let Some(scopes) = self.transports.get(image.transport().name()) else { return false };
        let host = image.in_registry().map(Named::domain);
        scopes.keys().any(|scope| match scope.split_once('/') {
            Some((named, _)) => Some(named) == host,
            None => image.policy_namespaces().contains(scope),
        })
    }

    /// The scopes in which images need no signature.
    pub fn unsigned_scopes(&self) -> impl Iterator<Item = Match<'_>> {
        let accepts_anything =
            |requirement: &Requirement| matches!(requirement, Requirement::InsecureAcceptAnything);
        self.scopes().into_iter().filter(move |scope| scope.requirements.iter().all(accepts_anything))
    }

    /// Every scope with its requirements, `default` first, then in the order of their places in the file.
    pub fn scopes(&self) -> Vec<Match<'_>> {
        let mut scopes: Vec<Match<'_>> = self
            .transports
            .iter()
            .flat_map(|(transport, scopes)| {
                scopes.iter().map(move |(name, entry)| Match {
                    scope: Scope::Transport { transport: transport.clone(), name: name.clone() },
                    requirements: &entry.requirements,
                    span: entry.span,
                })
            })
            .collect();
        scopes.sort_by_key(|m| m.span.start);
        scopes.insert(
            0,
            Match {
                scope: Scope::Default,
                requirements: &self.default.requirements,
                span: self.default.span,
            },
        );
        scopes
    }
}
