//! [`Needs`] and [`Evidence`]: what the outside world is asked for, and all that it may contribute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::digest::Digest;
use crate::manifest::Platform;
use crate::verify::UntrustedSignature;
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::HostRoot;

/// What to gather before a plan can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The manifest, and with an index the manifest of the instance.
    pub manifest: bool,
    /// The signatures of every manifest that is gathered.
    pub signatures: bool,
    /// Sigstore attachments, whatever registries.d says of them: requirements of ours imply them (design decision 3.4).
    pub attachments: bool,
    /// Key files, as the policy spells them.
    pub key_files: BTreeSet<String>,
    /// Keys that stand in the policy itself.
    pub key_data: BTreeSet<Arc<[u8]>>,
    /// The trusted root of this host.
    pub host_root: bool,
    /// A clock that can be believed: the answer depends on the present time (T-19).
    pub time: bool,
}

/// Which manifest of a multi-platform image must satisfy the policy; design decision 3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Index and instance.
    Both,
    /// Index or instance: what the skopeo image proxy asks since 2026-04 (rule E-33).
    Either,
    /// The instance for the platform: what podman, buildah and `skopeo copy` ask (rule E-30).
    Instance,
    /// The manifest that the reference names.
    TopLevel,
}

/// How the caller wants the question understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Refuse unless a requirement that verifies signatures was satisfied (rule E-6).
    pub require_signature: bool,
    /// Which manifest counts.
    pub subject: Subject,
    /// Which instance of an index is meant.
    pub platform: Platform,
}

/// A signature and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedSignature {
    /// Path or URL, without credentials. Untrusted: escape before printing.
    pub location: String,
    /// The signature.
    pub signature: UntrustedSignature,
}

/// A manifest and the signatures stored for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEvidence {
    /// The bytes as they were received.
    pub bytes: Vec<u8>,
    /// The type that the source claimed; it never decides what the digest is.
    pub media_type: String,
    /// Those that other tools find, too, in the order of their stores.
    pub signatures: Vec<LocatedSignature>,
    /// Those where only vouchd looks: in manifests that refer to this one, and where registries.d says not to.
    pub referrers: Vec<LocatedSignature>,
}

impl ManifestEvidence {
    /// A manifest whose signatures are not known yet.
    pub fn new(bytes: Vec<u8>, media_type: String) -> Self {
        Self { bytes, media_type, signatures: Vec::new(), referrers: Vec::new() }
    }
}

/// An instance of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceEvidence {
    /// The digest that the index gives for it.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: ManifestEvidence,
}

/// Everything that a judgement may use.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The manifest that the reference names, if it was needed.
    pub top_level: Option<ManifestEvidence>,
    /// If that is an index: the instance for the platform. In a judgement of an instance alone, the only manifest.
    pub instance: Option<InstanceEvidence>,
    /// Key files by the path in the policy.
    pub key_files: BTreeMap<String, Arc<KeyMaterial>>,
    /// Keys of the policy itself, so that they are parsed once; one that is missing here is parsed again.
    pub key_data: BTreeMap<Arc<[u8]>, Arc<KeyMaterial>>,
    /// The trusted root of this host, if it was needed.
    pub host_root: Option<Arc<HostRoot>>,
    /// Whether registries.d keeps sigstore attachments from being looked for, but for requirements of ours.
    pub attachments_disabled: bool,
}

impl Evidence {
    /// The same about the image, with the keys of other evidence.
    pub fn with_keys_of(self, other: Self) -> Self {
        let Self { key_files, key_data, host_root, .. } = other;
        Self { key_files, key_data, host_root, ..self }
    }

    /// About how many bytes it holds about the image.
    pub fn image_bytes(&self) -> usize {
        let instance = self.instance.as_ref().map(|instance| &instance.manifest);
        let manifests = self.top_level.iter().chain(instance);
        manifests.map(ManifestEvidence::size).fold(0, usize::saturating_add)
    }
}

impl ManifestEvidence {
    fn size(&self) -> usize {
        let signatures = self.signatures.iter().chain(&self.referrers).map(LocatedSignature::size);
        signatures.fold(self.bytes.len(), usize::saturating_add)
    }
}

impl LocatedSignature {
    fn size(&self) -> usize {
        let signature = match &self.signature {
            UntrustedSignature::SimpleSigning(blob) | UntrustedSignature::Bundle(blob) => blob.len(),
            UntrustedSignature::Sigstore(layer) => {
                let annotations = layer.annotations.iter().map(|(key, value)| key.len() + value.len());
                annotations.fold(layer.payload.len(), usize::saturating_add)
            }
        };
        signature.saturating_add(self.location.len())
    }
}
