//! Images in a store of containers-storage, read without its library and without its locks.
//!
//! The files of a store are replaced as a whole, never changed in place, and what is read is compared with the digests
//! that the store has for it. Who changes the store meanwhile can make reading fail, and no more.
//!
//! container-libs, storage/images.go: `DRIVER-images/images.json` has a record of each image, and the directory
//! `DRIVER-images/ID` its manifests and signatures, each under its name.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{failed, invalid, member, read_if_there};
use crate::config::RegularFile;
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::lookaside::SIGNATURES;
use crate::fetch::{Budget, Error, MANIFEST_BYTES, SIGNATURE_BYTES};
use crate::json::{self, Data, Limits, Value};
use crate::manifest::{self, Platform};
use crate::reference::{Named, Store};
use crate::verify::UntrustedSignature;

/// Largest images.json: 16 MiB, some ten thousand images.
const RECORDS_BYTES: usize = 16 << 20;

/// A record has some twenty values; they are held only while the image is being looked for.
const RECORDS: Limits = Limits { depth: 64, values: 300_000 };

/// Most images of one digest, each of which is looked at: 128, more than an index has platforms.
const CANDIDATES: usize = 128;

/// The name under which a store has the manifest that was added last.
const MANIFEST: &str = "manifest";

/// An image that was found in a store.
#[derive(Debug)]
pub(super) struct StoredImage {
    /// Where its data may be, in the order of the search.
    directories: Vec<PathBuf>,
    path: String,
    /// The digest that the name asks for.
    digest: Option<Digest>,
    record: Record,
}

/// Finds the image that the reference would take. It blocks.
///
/// As there, a name is looked for in all stores before a digest is, and the image must have a name of the repository
/// that was asked for. If its ID is `known`, its scope follows from that, and it must be that image still.
pub(super) fn find(
    store: &Store,
    named: Option<&Named>,
    id: Option<&str>,
    known: Option<&str>,
    platform: &Platform,
    budget: &Budget,
) -> Result<StoredImage, Error> {
    let stores = Stores::load(store)?;
    let missing = |detail: &str| invalid(Path::new(&store.root), detail);
    let digest = named.and_then(Named::digest);
    let found = match (id, named) {
        (Some(id), _) => stores.find(id)?,
        (None, Some(named)) => match stores.find(&named.to_string())? {
            Some(record) => Some(record),
            None => stores.find_by_digest(named, platform, budget)?,
        },
        (None, None) => None,
    };
    let record = found.ok_or_else(|| missing("the store has no such image"))?;
    if named.is_some_and(|named| !record.is_of(named)) {
        return Err(missing("the image of this ID has no name of this repository"));
    }
    if known.is_some_and(|known| known != record.id) {
        return Err(missing("the name has just been given to another image"));
    }
    Ok(stores.image(record, digest.cloned()))
}

/// The ID of the image that `text` begins, or is; nothing if there is none, or several. It blocks.
pub(super) fn find_id(store: &Store, text: &str) -> Result<Option<String>, Error> {
    let stores = Stores::load(store)?;
    let found = stores.find(text)?;
    Ok(found.map(|record| record.id.clone()).filter(|id| id.starts_with(text)))
}

/// The driver whose directory the store has, as the reference guesses where nobody says.
pub(super) fn guess_driver(root: &Path, priority: &[String]) -> Result<String, Error> {
    const KNOWN: [&str; 4] = ["overlay", "btrfs", "zfs", "vfs"];
    let exists = |driver: &str| match fs::metadata(root.join(driver)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(root, &error)),
    };
    let mut there = Vec::new();
    for driver in KNOWN {
        if exists(driver)? {
            there.push(driver);
        }
    }
    let builtin = KNOWN.map(str::to_owned);
    // Nobody chooses vfs without saying so.
    let preferred = if priority.is_empty() { builtin.get(..3).unwrap_or_default() } else { priority };
    let mut prior = preferred.iter().filter(|driver| there.contains(&driver.as_str()));
    match (prior.next(), there.as_slice()) {
        (Some(driver), [_]) => Ok(driver.clone()),
        (Some(_), _) => {
            Err(invalid(root, "it has the directories of several graph drivers; name one of them"))
        }
        (None, _) => Ok(preferred.first().map_or_else(|| "overlay".to_owned(), Clone::clone)),
    }
}

/// The records of all directories with images.
struct Stores(Vec<(PathBuf, Vec<Record>)>);

impl Stores {
    fn load(store: &Store) -> Result<Self, Error> {
        let mut stores = Vec::new();
        for (number, directory) in store.images.iter().enumerate() {
            let directory = Path::new(directory);
            // An additional store that is not mounted could hide another image of the same name.
            if number > 0 {
                fs::metadata(directory).map_err(|error| failed(directory, &error))?;
            }
            let images = directory.join(format!("{}-images", store.driver));
            let records = load(&images.join("images.json"))?;
            stores.push((images, records));
        }
        Ok(Self(stores))
    }

    /// The image of that ID or name, or the only one whose ID begins so.
    fn find(&self, text: &str) -> Result<Option<&Record>, Error> {
        let mut first = None;
        for (directory, records) in &self.0 {
            let found = find_in(directory, records, text)?;
            let own = *first.get_or_insert(records);
            // An image of an additional store gets a record of its own when its names change.
            let superseded = |record: &&Record| {
                !std::ptr::eq(own, records) && own.iter().any(|other| other.id == record.id)
            };
            if let Some(record) = found.filter(|record| !superseded(record)) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The first image with that digest and a name of that repository, but better one that an index of that digest
    /// has for the platform.
    fn find_by_digest(
        &self,
        named: &Named,
        platform: &Platform,
        budget: &Budget,
    ) -> Result<Option<&Record>, Error> {
        let Some(digest) = named.digest() else { return Ok(None) };
        let mut found: Option<&Record> = None;
        let mut candidates = 0_usize;
        for record in self.0.iter().flat_map(|(_, records)| records) {
            if !record.has_digest(digest) || !record.is_of(named) {
                continue;
            }
            candidates = candidates.saturating_add(1);
            if candidates > CANDIDATES {
                let directory = self.0.first().map(|(images, _)| images.as_path());
                let detail = format!("more than {CANDIDATES} images have the digest {digest}");
                return Err(invalid(directory.unwrap_or(Path::new("/")), &detail));
            }
            if found.is_none() || self.image(record, None).is_instance_for(digest, platform, budget)? {
                found = Some(record);
            }
        }
        Ok(found)
    }

    fn image(&self, record: &Record, digest: Option<Digest>) -> StoredImage {
        let holding = |(_, records): &&(PathBuf, Vec<Record>)| records.iter().any(|r| r.id == record.id);
        let directories: Vec<PathBuf> =
            self.0.iter().filter(holding).map(|(images, _)| images.join(&record.id)).collect();
        let path = directories.first().map(|path| path.to_string_lossy().into_owned());
        StoredImage { directories, path: path.unwrap_or_default(), digest, record: record.clone() }
    }
}

/// Stricter than the reference, which takes the last of several images with one name, and changes the store.
fn find_in<'r>(directory: &Path, records: &'r [Record], text: &str) -> Result<Option<&'r Record>, Error> {
    let by_id = only(records, |record| record.id == text);
    let by_name = || only(records, |record| record.names.iter().any(|name| name == text));
    match by_id.and_then(|found| found.map_or_else(by_name, |record| Ok(Some(record)))) {
        Ok(Some(record)) => Ok(Some(record)),
        Ok(None) => Ok(only(records, |record| record.id.starts_with(text)).unwrap_or_default()),
        Err(Several) => Err(invalid(directory, "the store has several images of this name or ID")),
    }
}

/// More than one image fits.
struct Several;

fn only(records: &[Record], fits: impl Fn(&Record) -> bool) -> Result<Option<&Record>, Several> {
    let mut fitting = records.iter().filter(|record| fits(record));
    let first = fitting.next();
    if fitting.next().is_some() { Err(Several) } else { Ok(first) }
}

/// What images.json says of an image.
#[derive(Clone, Debug)]
struct Record {
    id: String,
    names: Vec<String>,
    /// A digest that was given when the image was made.
    digest: Option<Digest>,
    /// The digests of its data, by name.
    data: BTreeMap<String, Digest>,
    metadata: String,
}

/// The records of all images; none if there is no such file.
fn load(path: &Path) -> Result<Vec<Record>, Error> {
    let Some(file) = RegularFile::find(path).map_err(|error| failed(path, &error))? else {
        return Ok(Vec::new());
    };
    let text = file.read(RECORDS_BYTES).map_err(|error| failed(path, &error))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let images = json::parse(&text, RECORDS).map_err(|error| invalid(path, error.reason))?;
    let images = images.elements().ok_or_else(|| invalid(path, "it is no array"))?;
    images.iter().map(|image| Record::read(image).map_err(|detail| invalid(path, detail))).collect()
}

impl Record {
    fn read(image: &Value<'_>) -> Result<Self, &'static str> {
        let id = member(image, "id")?.and_then(Value::text).ok_or("an image has no ID")?;
        if id.is_empty() || id.starts_with('.') || id.contains(['/', '\0']) {
            return Err("the ID of an image is no file name");
        }
        let names = match member(image, "names")? {
            Some(names) => names.elements().ok_or("\"names\" is no array")?,
            None => &[],
        };
        let names = names.iter().map(|name| name.text().map(str::to_owned)).collect::<Option<_>>();
        let digest = match member(image, "digest")?.map(Value::text) {
            None | Some(Some("")) => None,
            Some(text) => Some(text.and_then(Digest::parse).ok_or(NO_DIGEST)?),
        };
        let mut data = BTreeMap::new();
        if let Some(digests) = member(image, "big-data-digests")? {
            for entry in digests.members().ok_or("\"big-data-digests\" is no object")? {
                let digest = entry.value.text().and_then(Digest::parse).ok_or(NO_DIGEST)?;
                if data.insert(entry.key.clone().into_owned(), digest).is_some() {
                    return Err("\"big-data-digests\" has a name twice");
                }
            }
        }
        let metadata = match member(image, "metadata")? {
            Some(metadata) => metadata.text().ok_or("\"metadata\" is no string")?,
            None => "",
        };
        Ok(Self {
            id: id.to_owned(),
            names: names.ok_or("a name of an image is no string")?,
            digest,
            data,
            metadata: metadata.to_owned(),
        })
    }

    /// Whether one of its names is of the same repository.
    fn is_of(&self, named: &Named) -> bool {
        self.names.iter().any(|name| Named::parse(name).is_ok_and(|name| name.same_repository(named)))
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        self.digest.as_ref() == Some(digest)
            || self.data.iter().any(|(name, known)| name.starts_with(MANIFEST) && known == digest)
    }

    /// How long the signatures of the image are, or those of one of its manifests.
    fn signature_sizes(&self, instance: Option<&Digest>) -> Result<Vec<usize>, &'static str> {
        if self.metadata.is_empty() {
            return Ok(Vec::new());
        }
        let limits = Limits { depth: 64, values: 10_000 };
        let metadata = json::parse(self.metadata.as_bytes(), limits).map_err(|error| error.reason)?;
        let own = member(&metadata, "signature-sizes")?;
        let of_instances = member(&metadata, "signatures-sizes")?;
        let sizes = match (instance, of_instances) {
            (None, _) => own,
            (Some(digest), Some(of_instances)) => member(of_instances, &digest.to_string())?,
            (Some(_), None) => None,
        };
        let Some(sizes) = sizes else { return Ok(Vec::new()) };
        let sizes = sizes.elements().ok_or(NO_SIZES)?;
        if sizes.len() > SIGNATURES {
            return Err("there are too many signatures");
        }
        let size = |value: &Value<'_>| match &value.data {
            Data::Number(written) => written.parse().ok().filter(|size| *size <= SIGNATURE_BYTES),
            Data::Null | Data::Bool(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => None,
        };
        sizes.iter().map(size).collect::<Option<_>>().ok_or(NO_SIZES)
    }
}

const NO_DIGEST: &str = "a digest of an image is not valid";

const NO_SIZES: &str = "the sizes of the signatures are not valid, or beyond the limit";

impl StoredImage {
    /// The ID of the image.
    pub(super) fn id(&self) -> &str {
        &self.record.id
    }

    /// The directory of the image.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The manifest that the name means, or that of an instance. It blocks.
    ///
    /// Stricter than the reference, which does not compare it with the digest that the store has for it.
    pub(super) fn manifest(
        &self,
        instance: Option<&Digest>,
        budget: &Budget,
    ) -> Result<ManifestEvidence, Error> {
        if let Some(digest) = instance.or(self.digest.as_ref()) {
            let name = manifest_name(digest);
            if let Some((path, bytes)) = self.data(&name, MANIFEST_BYTES, budget)? {
                return evidence(&path, bytes, digest);
            }
            if instance.is_some() {
                return Err(invalid(Path::new(&self.path), &format!("there is no {name}")));
            }
        }
        let missing = |detail| invalid(Path::new(&self.path), detail);
        let (path, bytes) = self
            .data(MANIFEST, MANIFEST_BYTES, budget)?
            .ok_or_else(|| missing("the image has no manifest"))?;
        let digest = self.record.data.get(MANIFEST);
        evidence(&path, bytes, digest.ok_or_else(|| missing("the store has no digest of the manifest"))?)
    }

    /// The signatures of the image, or those of an instance (rules B-5, B-6). It blocks.
    pub(super) fn signatures(
        &self,
        instance: Option<&Digest>,
        budget: &Budget,
    ) -> Result<Vec<LocatedSignature>, Error> {
        let broken = |detail: &str| invalid(Path::new(&self.path), detail);
        let sizes = self.record.signature_sizes(instance).map_err(broken)?;
        if sizes.is_empty() {
            return Ok(Vec::new());
        }
        let name = match instance {
            None => "signatures".to_owned(),
            Some(digest) => format!("signature-{}", digest.hex()),
        };
        // What is longer than all of them together is not read.
        let total = sizes.iter().fold(0_usize, |total, size| total.saturating_add(*size));
        let (path, bytes) =
            self.data(&name, total, budget)?.ok_or_else(|| broken(&format!("there are no {name}")))?;
        let mut rest = bytes.as_slice();
        let mut signatures = Vec::new();
        for (number, size) in (1..).zip(sizes) {
            let (blob, after) = rest.split_at_checked(size).ok_or_else(|| invalid(&path, "it is cut off"))?;
            rest = after;
            let location = format!("{}#{number}", path.display());
            let signature = UntrustedSignature::from_blob(blob).map_err(|error| {
                Error::MalformedSignature { location: location.clone(), detail: error.to_string() }
            })?;
            signatures.push(LocatedSignature { location, signature });
        }
        Ok(signatures)
    }

    /// Whether `index` is an index in this image whose instance for the platform is this image.
    fn is_instance_for(&self, index: &Digest, platform: &Platform, budget: &Budget) -> Result<bool, Error> {
        let Some((path, bytes)) = self.data(&manifest_name(index), MANIFEST_BYTES, budget)? else {
            return Ok(false);
        };
        let list = evidence(&path, bytes, index)?;
        let Ok(Some(media_type)) = manifest::index_type(&list.bytes, &list.media_type) else {
            return Ok(false);
        };
        let Ok(chosen) = manifest::choose_instance(&list.bytes, media_type, platform) else {
            return Ok(false);
        };
        Ok(self.data(&manifest_name(&chosen), MANIFEST_BYTES, budget)?.is_some())
    }

    /// Data of the image from the first store that has it.
    fn data(&self, name: &str, limit: usize, budget: &Budget) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
        for directory in &self.directories {
            let path = directory.join(file_name(name));
            if let Some(bytes) = read_if_there(&path, limit, budget)? {
                return Ok(Some((path, bytes)));
            }
        }
        Ok(None)
    }
}

fn manifest_name(digest: &Digest) -> String {
    format!("{MANIFEST}-{digest}")
}

/// Names of data that are not only lower case, digits and `.` are base64.
fn file_name(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.');
    if plain { name.to_owned() } else { format!("={}", STANDARD.encode(name)) }
}

fn evidence(path: &Path, bytes: Vec<u8>, wanted: &Digest) -> Result<ManifestEvidence, Error> {
    let found = match wanted.algorithm() {
        Algorithm::Sha256 => manifest::digest(&bytes)
            .map_err(|_| invalid(path, "the manifest has no digest, or can be read in more than one way"))?,
        algorithm @ (Algorithm::Sha384 | Algorithm::Sha512) => Digest::compute(algorithm, &bytes),
    };
    if found != *wanted {
        let location = path.to_string_lossy().into_owned();
        return Err(Error::DigestMismatch { location, wanted: wanted.clone(), found });
    }
    let media_type = manifest::sniff_media_type(&bytes).to_owned();
    Ok(ManifestEvidence::new(bytes, media_type))
}
