//! Images in OCI layouts, in a directory or in a tar file; OCI image-spec, image-layout.md.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::archive::Archive;
use super::{LIMITS, invalid, member, read};
use crate::digest::Digest;
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::referrers::{self, Candidate, Found, List, Opened, REFERRERS, Survey};
use crate::fetch::{Budget, Error, MANIFEST_BYTES};
use crate::json::{self, Member, Value};
use crate::manifest::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::reference::LayoutImage;

/// An image of an OCI layout, which has no place for signatures (rule B-6). It blocks.
///
/// OCI image-spec, image-layout.md.
pub fn read_layout(path: &str, image: &LayoutImage, budget: &Budget) -> Result<ManifestEvidence, Error> {
    Layout::Directory(Path::new(path)).image(image, budget)
}

/// One instance of an image index in an OCI layout. It blocks.
pub fn read_layout_instance(path: &str, digest: &Digest, budget: &Budget) -> Result<ManifestEvidence, Error> {
    Layout::Directory(Path::new(path)).blob(digest, budget)
}

/// As [`read_layout`], from a tar file. It blocks.
pub(super) fn read_archive(
    path: &Path,
    image: &LayoutImage,
    budget: &Budget,
    deadline: Instant,
) -> Result<ManifestEvidence, Error> {
    Layout::Archive(&Archive::open(path, deadline)?).image(image, budget)
}

/// As [`read_layout_instance`], from a tar file. It blocks.
pub(super) fn read_archive_instance(
    path: &Path,
    digest: &Digest,
    budget: &Budget,
    deadline: Instant,
) -> Result<ManifestEvidence, Error> {
    Layout::Archive(&Archive::open(path, deadline)?).blob(digest, budget)
}

/// The signatures in manifests of the layout that refer to the one with this digest; OCI image-spec, manifest.md,
/// "subject". It blocks.
pub(super) fn referrers(path: &Path, digest: &Digest, budget: &Budget) -> Found {
    Layout::Directory(path).referrers(digest, budget)
}

/// The same from a tar file. It blocks.
pub(super) fn archive_referrers(path: &Path, digest: &Digest, budget: &Budget, deadline: Instant) -> Found {
    match Archive::open(path, deadline) {
        Ok(archive) => Layout::Archive(&archive).referrers(digest, budget),
        Err(error) => Found::failed(error),
    }
}

/// Everything in the layout that refers to the manifest with this digest. It blocks.
pub(super) fn survey(path: &Path, digest: &Digest, budget: &Budget) -> Survey {
    Layout::Directory(path).survey(digest, budget)
}

/// The same from a tar file. It blocks.
pub(super) fn archive_survey(path: &Path, digest: &Digest, budget: &Budget, deadline: Instant) -> Survey {
    match Archive::open(path, deadline) {
        Ok(archive) => Layout::Archive(&archive).survey(digest, budget),
        Err(error) => Survey { failures: vec![error], ..Survey::default() },
    }
}

/// Where the files of a layout are.
enum Layout<'a> {
    Archive(&'a Archive),
    Directory(&'a Path),
}

impl Layout<'_> {
    fn image(&self, image: &LayoutImage, budget: &Budget) -> Result<ManifestEvidence, Error> {
        let index = self.read(INDEX, budget)?;
        let descriptor = choose(&index, image).map_err(|detail| invalid(&self.place(INDEX), detail))?;
        let mut evidence = self.blob(&descriptor.digest, budget)?;
        if !descriptor.media_type.is_empty() {
            evidence.media_type = descriptor.media_type;
        }
        Ok(evidence)
    }

    /// Stricter than the reference, which does not hash what a layout holds.
    fn blob(&self, digest: &Digest, budget: &Budget) -> Result<ManifestEvidence, Error> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let bytes = self.read(&name, budget)?;
        if !digest.matches(&bytes) {
            return Err(Error::DigestMismatch {
                location: self.place(&name).to_string_lossy().into_owned(),
                wanted: digest.clone(),
                found: Digest::compute(digest.algorithm(), &bytes),
            });
        }
        let media_type = manifest::sniff_media_type(&bytes).to_owned();
        Ok(ManifestEvidence::new(bytes, media_type))
    }

    /// Whatever the index of the layout names, and the index that it names as a registry would its tag.
    fn referrers(&self, digest: &Digest, budget: &Budget) -> Found {
        let mut found = Found::default();
        let wanted = self.candidates(digest, budget).unwrap_or_else(|error| {
            found.fail(error);
            Vec::new()
        });
        for candidate in wanted {
            match self.signatures(&candidate.digest, digest, budget) {
                Ok(signatures) => found.signatures.extend(signatures),
                Err(error) => found.fail(error),
            }
        }
        found
    }

    fn candidates(&self, digest: &Digest, budget: &Budget) -> Result<Vec<Candidate>, Error> {
        let List { candidates, .. } = self.list(digest, budget)?;
        referrers::first(candidates).ok_or_else(|| self.too_many())
    }

    /// Everything that refers to the manifest, which for what is no signature only its own manifest tells.
    fn survey(&self, digest: &Digest, budget: &Budget) -> Survey {
        let mut survey = Survey::default();
        let List { candidates, others } = match self.list(digest, budget) {
            Ok(list) => list,
            Err(error) => return Survey { failures: vec![error], ..survey },
        };
        let mut others = referrers::remaining(&candidates, others);
        match referrers::first(candidates) {
            Some(wanted) => {
                for Candidate { digest: referrer, descriptor, .. } in wanted {
                    let signatures = self.signatures(&referrer, digest, budget);
                    if signatures.as_ref().is_ok_and(Vec::is_empty) {
                        others.push(descriptor);
                    } else {
                        survey.opened.push(Opened { descriptor, signatures });
                    }
                }
            }
            None => survey.failures.push(self.too_many()),
        }
        if others.len() > REFERRERS {
            survey.failures.push(self.too_many());
        }
        for other in others.into_iter().take(REFERRERS) {
            let Some(referrer) = other.digest.as_deref().and_then(Digest::parse) else { continue };
            match self.blob(&referrer, budget) {
                Ok(manifest) if referrers::refers(&manifest.bytes, digest) => survey.others.push(other),
                Ok(_) => {}
                Err(error) => survey.failures.push(error),
            }
        }
        survey
    }

    fn list(&self, digest: &Digest, budget: &Budget) -> Result<List, Error> {
        let malformed = || invalid(&self.place(INDEX), "it is no list of manifests");
        let index = self.read(INDEX, budget)?;
        let mut list = List::read(&index).ok_or_else(malformed)?;
        let tag = format!("{}-{}", digest.algorithm().name(), digest.hex());
        if let Ok(tagged) = choose(&index, &LayoutImage::Named(tag))
            && manifest::is_index(&tagged.media_type)
        {
            let index = self.blob(&tagged.digest, budget)?;
            let List { candidates, others } = List::read(&index.bytes).ok_or_else(malformed)?;
            list.candidates.extend(candidates);
            list.others.extend(others);
        }
        Ok(list)
    }

    fn too_many(&self) -> Error {
        invalid(&self.place(INDEX), "it lists more manifests than can be looked at")
    }

    fn signatures(
        &self,
        referrer: &Digest,
        subject: &Digest,
        budget: &Budget,
    ) -> Result<Vec<LocatedSignature>, Error> {
        let manifest = self.blob(referrer, budget)?;
        let mut signatures = Vec::new();
        for (layer, number) in referrers::Layer::of(&manifest.bytes, subject).into_iter().zip(1_usize..) {
            let name = format!("blobs/{}/{}", referrer.algorithm().name(), referrer.hex());
            let location = format!("{}#{number}", self.place(&name).to_string_lossy());
            let bytes = self.blob(&layer.digest, budget)?.bytes;
            signatures
                .extend(layer.signature(bytes).map(|signature| LocatedSignature { location, signature }));
        }
        Ok(signatures)
    }

    fn read(&self, name: &str, budget: &Budget) -> Result<Vec<u8>, Error> {
        match self {
            Self::Archive(archive) => archive.file(name, MANIFEST_BYTES, budget),
            Self::Directory(path) => read(&path.join(name), MANIFEST_BYTES, budget),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        match self {
            Self::Archive(archive) => archive.path().join(name),
            Self::Directory(path) => path.join(name),
        }
    }
}

/// What lists the images of a layout.
const INDEX: &str = "index.json";

/// What an index.json says of one image.
struct Descriptor {
    digest: Digest,
    media_type: String,
}

/// Stricter than the reference, which takes the first of several images with one name.
fn choose(index: &[u8], image: &LayoutImage) -> Result<Descriptor, &'static str> {
    let index = json::parse(index, LIMITS).map_err(|error| error.reason)?;
    let manifests =
        member(&index, "manifests")?.and_then(Value::elements).ok_or("it has no \"manifests\"")?;
    let chosen = match (image, manifests) {
        (LayoutImage::Only, [only]) => only,
        (LayoutImage::Only, []) => return Err("the layout is empty"),
        (LayoutImage::Only, _) => return Err("the layout has several images; name one of them"),
        (LayoutImage::Named(name), _) => {
            let mut chosen = None;
            for descriptor in manifests {
                if image_name(descriptor)? == Some(name) && chosen.replace(descriptor).is_some() {
                    return Err("the layout has several images of this name");
                }
            }
            let chosen = chosen.ok_or("the layout has no image of this name")?;
            let media_type = member(chosen, "mediaType")?.and_then(Value::text).unwrap_or_default();
            if ![OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type) {
                return Err("what has this name in the layout is of a type that is no image's");
            }
            chosen
        }
        (LayoutImage::Index(number), _) => usize::try_from(*number)
            .ok()
            .and_then(|number| manifests.get(number))
            .ok_or("the layout has no image of this number")?,
    };
    let digest = member(chosen, "digest")?
        .and_then(Value::text)
        .and_then(Digest::parse)
        .ok_or("the image has no valid \"digest\"")?;
    let media_type = match member(chosen, "mediaType")? {
        Some(value) => value.text().ok_or("\"mediaType\" is no string")?.to_owned(),
        None => String::new(),
    };
    Ok(Descriptor { digest, media_type })
}

/// OCI image-spec, annotations.md.
fn image_name<'v>(descriptor: &'v Value<'_>) -> Result<Option<&'v str>, &'static str> {
    let Some(annotations) = member(descriptor, "annotations")? else { return Ok(None) };
    let annotations = annotations.members().ok_or("\"annotations\" is no object")?;
    let named = |member: &&Member<'_>| member.key == "org.opencontainers.image.ref.name";
    let mut names = annotations.iter().filter(named).map(|member| member.value.text());
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(Some(name)), None) => Ok(Some(name)),
        (Some(_), _) => Err("the name of an image is no string, or is given twice"),
    }
}
