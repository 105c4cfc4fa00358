//! Sigstore attachments: the layers of the manifest at the tag `sha256-<hex>.sig` (rules ).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::diagnostic::clip;
use crate::digest::Digest;
use crate::evaluate::evidence::LocatedSignature;
use crate::fetch::registry::{Client, Document, Errand, excerpt};
use crate::fetch::{Error, SIGNATURE_BYTES};
use crate::inspect::{self, Item};
use crate::json;
use crate::manifest::OCI_MANIFEST;
use crate::verify::{UntrustedSignature, UntrustedSigstore};

/// Most layers of an attachment manifest: 1,024, design decision 6.
pub const LAYERS: usize = 1_024;

/// Most annotations of a layer: 128, so that 4 MiB of them cannot grow to many times that in memory (T-28).
pub const ANNOTATIONS: usize = 128;

/// The signatures attached to the manifest with this digest, in the order of their layers (rules ).
///
/// None if there is no attachment manifest; one that cannot be read in full is an error.
pub async fn signatures(
    client: &Client,
    errand: &Errand<'_>,
    digest: &Digest,
) -> Result<Vec<LocatedSignature>, Error> {
    let mut items = Vec::new();
    add(client, errand, digest, Tag::Signatures, &mut items).await?;
    Ok(items.into_iter().flat_map(|item: Item| item.signatures).collect())
}

/// What cosign 2 attaches to a manifest by a tag; seeds-and-formats, section 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fetch) enum Tag {
    Attestations,
    Sboms,
    Signatures,
}

impl Tag {
    /// The tag for the manifest with this digest.
    fn of(self, digest: &Digest) -> String {
        let suffix = match self {
            Self::Attestations => "att",
            Self::Sboms => "sbom",
            Self::Signatures => "sig",
        };
        format!("{}-{}.{suffix}", digest.algorithm().name(), digest.hex())
    }

    /// Where that is.
    pub(in crate::fetch) fn place(self, errand: &Errand<'_>, digest: &Digest) -> String {
        format!("docker://{}:{}", errand.image.name(), self.of(digest))
    }
}

/// Adds the layers one by one; those before a failure stay. SBOMs are listed and not fetched.
pub(in crate::fetch) async fn add(
    client: &Client,
    errand: &Errand<'_>,
    digest: &Digest,
    tag: Tag,
    found: &mut Vec<Item>,
) -> Result<(), Error> {
    let (name, place) = (tag.of(digest), tag.place(errand, digest));
    let document = match tag {
        Tag::Signatures => client.attachment(errand, &name).await?,
        // What the reference never asks for may be missing in any words.
        Tag::Attestations | Tag::Sboms => client.referrers_tag(errand, &name).await?,
    };
    let Some(document) = document else { return Ok(()) };
    let broken = |detail: &str| Error::RegistryProtocol {
        registry: errand.image.domain().to_owned(),
        detail: format!("the signatures at {place}: {}", excerpt(detail)),
    };
    let layers = layers(&document).map_err(|detail| broken(&detail))?;
    // Signatures by many, or made again and again, are mostly over the same bytes, which are asked for once.
    let mut known = BTreeSet::new();
    let mut distinct: Vec<Digest> = match tag {
        Tag::Sboms => Vec::new(),
        Tag::Attestations | Tag::Signatures => layers.iter().map(|layer| layer.digest.clone()).collect(),
    };
    distinct.retain(|digest| known.insert(digest.to_string()));
    let fetches = distinct.into_iter().map(async |digest: Digest| {
        Ok::<_, Error>((digest.to_string(), client.blob(errand, &digest, SIGNATURE_BYTES).await?))
    });
    let mut fetches = stream::iter(fetches).buffered(AT_A_TIME);
    let mut payloads: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let fetched = loop {
        match fetches.try_next().await {
            Ok(Some((name, payload))) => drop(payloads.insert(name, payload)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    for (layer, number) in layers.into_iter().zip(1..) {
        let location = format!("{place}#{number}");
        let mut descriptor = inspect::Descriptor {
            media_type: Some(clip(&layer.media_type)),
            predicate_type: layer.annotations.get(PREDICATE).map(|text| clip(text)),
            digest: Some(layer.digest.to_string()),
            ..inspect::Descriptor::default()
        };
        if tag == Tag::Sboms {
            let (signatures, failure) = (Vec::new(), None);
            found.push(Item { location, descriptor, opened: false, signatures, failure });
            continue;
        }
        let name = layer.digest.to_string();
        // What came before the failure is shown.
        let Some(payload) = payloads.get(&name).cloned() else {
            return fetched.and(Err(broken("a layer was not fetched")));
        };
        // What was fetched is paid for; further copies are not (T-28).
        if !known.remove(&name) {
            errand.budget.bytes(payload.len())?;
        }
        descriptor.size = u64::try_from(payload.len()).ok();
        let signature =
            UntrustedSigstore { mime_type: layer.media_type, payload, annotations: layer.annotations };
        let signature = UntrustedSignature::Sigstore(signature);
        found.push(Item { descriptor, ..Item::of_signature(LocatedSignature { location, signature }) });
    }
    fetched
}

/// A layer of an attachment manifest.
struct Layer {
    media_type: String,
    digest: Digest,
    annotations: BTreeMap<String, String>,
}

/// Rules, up to fetching.
fn layers(document: &Document) -> Result<Vec<Layer>, String> {
    if document.media_type != OCI_MANIFEST {
        return Err(format!("the type is \"{}\", not \"{OCI_MANIFEST}\"", document.media_type));
    }
    let manifest: Manifest =
        serde_json::from_slice(&document.bytes).map_err(|e| format!("not an image manifest: {e}"))?;
    let mut layers = Vec::new();
    for (descriptor, number) in manifest.0.into_iter().zip(1..) {
        let Descriptor { media_type, digest, annotations } = descriptor;
        let digest = Digest::parse(&digest.unwrap_or_default())
            .ok_or_else(|| format!("layer {number} has no valid digest"))?;
        let annotations = annotations.map(|a| a.0).unwrap_or_default();
        layers.push(Layer { media_type: media_type.unwrap_or_default(), digest, annotations });
    }
    Ok(layers)
}

/// The descriptors of `layers`. Nothing else is kept; members that make the document ambiguous are refused (rule A-4).
struct Manifest(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Manifest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Manifest, A::Error> {
                let mut layers: Option<Layers> = None;
                while let Some(key) = members.next_key::<String>()? {
                    if json::folds(&key, "layers") {
                        if layers.is_some() {
                            return Err(A::Error::custom("the member \"layers\" is there twice"));
                        }
                        layers = Some(members.next_value::<Option<Layers>>()?.unwrap_or_default());
                    } else if AMBIGUOUS.iter().any(|name| json::folds(&key, name)) {
                        if members.next_value::<Option<IgnoredAny>>()?.is_some() {
                            return Err(A::Error::custom("it has a member of another kind of manifest"));
                        }
                    } else {
                        members.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Manifest(layers.unwrap_or_default().0))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// At most [`LAYERS`] descriptors.
#[derive(Default)]
struct Layers(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Layers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of layers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Layers, A::Error> {
                let mut layers = Vec::new();
                while let Some(layer) = elements.next_element()? {
                    if layers.len() == LAYERS {
                        return Err(A::Error::custom(format!("it has more than {LAYERS} layers")));
                    }
                    layers.push(layer);
                }
                Ok(Layers(layers))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// OCI image-spec, descriptor.md. `size` is not compared and `urls` are not asked (rule A-5, T-29).
#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    digest: Option<String>,
    annotations: Option<Annotations>,
}

/// At most [`ANNOTATIONS`] texts; the last of equal keys counts and null is empty, as in the reference's decoder.
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Annotations, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some((key, value)) = members.next_entry::<String, Option<String>>()? {
                    annotations.insert(key, value.unwrap_or_default());
                    if annotations.len() > ANNOTATIONS {
                        return Err(A::Error::custom(format!(
                            "a layer has more than {ANNOTATIONS} annotations"
                        )));
                    }
                }
                Ok(Annotations(annotations))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Members of an index and of Docker's manifests (rule A-4).
const AMBIGUOUS: [&str; 3] = ["manifests", "fsLayers", "history"];

/// What cosign 2 says of an attestation beside it.
const PREDICATE: &str = "predicateType";

/// Layers fetched at a time: the most that speed up a registry without troubling it.
const AT_A_TIME: usize = 4;
