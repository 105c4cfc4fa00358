//! Images in files made by `docker save`, which hold no manifest: it is made from configuration and layers.
//!
//! Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use super::archive::Archive;
use super::{LIMITS, invalid, member};
use crate::digest::Digest;
use crate::evaluate::evidence::ManifestEvidence;
use crate::fetch::{Budget, Error, MANIFEST_BYTES};
use crate::json::{self, Value};
use crate::manifest::DOCKER_MANIFEST;
use crate::reference::{LayoutImage, Named};

/// Largest manifest.json of an archive: 1 MiB, as `MaxTarFileManifestSize` in container-libs.
const INDEX_BYTES: usize = 1 << 20;

/// The manifest that the reference makes for the image, byte for byte (rule B-6). It blocks.
///
/// Layers that are compressed are unpacked to see how long they are.
pub(super) fn read(
    path: &Path,
    image: &LayoutImage,
    budget: &Budget,
    deadline: Instant,
) -> Result<ManifestEvidence, Error> {
    let archive = Archive::open(path, deadline)?;
    let index = archive.file("manifest.json", INDEX_BYTES, budget)?;
    let item = choose(&index, image).map_err(|detail| invalid(&path.join("manifest.json"), detail))?;
    let config_place = path.join(&item.config);
    let config = archive.file(&clean(&item.config), MANIFEST_BYTES, budget)?;
    let diff_ids = diff_ids(&config).map_err(|detail| invalid(&config_place, detail))?;
    let files = layer_files(&item, &diff_ids).map_err(|detail| invalid(&config_place, detail))?;
    let names: BTreeSet<Vec<u8>> = files.values().map(|name| name.clone().into_bytes()).collect();
    let sizes = archive.unpacked_sizes(&names)?;
    let mut layers = Vec::new();
    for diff_id in &diff_ids {
        let name = files.get(diff_id).map(String::as_str).unwrap_or_default();
        let size = sizes
            .get(name.as_bytes())
            .ok_or_else(|| invalid(&path.join(name), "there is no such layer in the archive"))?;
        layers.push(descriptor(LAYER, *size, diff_id));
    }
    let config_size = u64::try_from(config.len()).unwrap_or(u64::MAX);
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor(CONFIG, config_size, &Digest::sha256(&config)),
        layers.join(",")
    )
    .into_bytes();
    budget.bytes(bytes.len())?;
    Ok(ManifestEvidence::new(bytes, DOCKER_MANIFEST.to_owned()))
}

/// What manifest.json says of one image.
struct Item {
    config: String,
    layers: Vec<String>,
}

/// Stricter than the reference, which takes the first of several images with one tag.
fn choose(index: &[u8], image: &LayoutImage) -> Result<Item, &'static str> {
    let index = json::parse(index, LIMITS).map_err(|error| error.reason)?;
    let items = index.elements().ok_or("it is no array")?;
    let chosen = match (image, items) {
        (LayoutImage::Only, [only]) => only,
        (LayoutImage::Only, []) => return Err("the archive is empty"),
        (LayoutImage::Only, _) => return Err("the archive has several images; name one of them"),
        (LayoutImage::Named(wanted), _) => {
            let mut chosen = None;
            for item in items {
                if has_tag(item, wanted)? && chosen.replace(item).is_some() {
                    return Err("the archive has several images with this tag");
                }
            }
            chosen.ok_or("the archive has no image with this tag")?
        }
        (LayoutImage::Index(number), _) => usize::try_from(*number)
            .ok()
            .and_then(|number| items.get(number))
            .ok_or("the archive has no image of this number")?,
    };
    let config = member(chosen, "Config")?.and_then(Value::text).ok_or("the image has no \"Config\"")?;
    Ok(Item { config: config.to_owned(), layers: texts(chosen, "Layers")? })
}

fn has_tag(item: &Value<'_>, wanted: &str) -> Result<bool, &'static str> {
    let mut has = false;
    for tag in texts(item, "RepoTags")? {
        has |= Named::parse(&tag).map_err(|_| "a tag is not valid")?.to_string() == wanted;
    }
    Ok(has)
}

/// An array of strings; empty if it is absent or null.
fn texts(object: &Value<'_>, name: &str) -> Result<Vec<String>, &'static str> {
    let Some(array) = member(object, name)? else { return Ok(Vec::new()) };
    let elements = array.elements().ok_or("\"RepoTags\" or \"Layers\" is no array")?;
    let texts = elements.iter().map(|element| element.text().map(str::to_owned)).collect::<Option<_>>();
    texts.ok_or("\"RepoTags\" or \"Layers\" has something that is no string")
}

/// The digests of the unpacked layers, as the configuration has them.
fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, &'static str> {
    let config = json::parse(config, LIMITS).map_err(|error| error.reason)?;
    let rootfs = member(&config, "rootfs")?.ok_or("the configuration has no \"rootfs\"")?;
    let Some(ids) = member(rootfs, "diff_ids")? else { return Ok(Vec::new()) };
    let ids = ids.elements().ok_or("\"diff_ids\" is no array")?;
    let ids = ids.iter().map(|id| id.text().and_then(Digest::parse)).collect::<Option<_>>();
    ids.ok_or("\"diff_ids\" has something that is no digest")
}

/// The file of each layer; the same layer may be there several times.
fn layer_files<'d>(
    item: &Item,
    diff_ids: &'d [Digest],
) -> Result<BTreeMap<&'d Digest, String>, &'static str> {
    if item.layers.len() != diff_ids.len() {
        return Err("there are not as many layers as \"diff_ids\"");
    }
    let mut files = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (diff_id, name) in diff_ids.iter().zip(&item.layers) {
        if files.contains_key(diff_id) {
            continue;
        }
        let name = clean(name);
        if !used.insert(name.clone()) {
            return Err("one file is used for two different layers");
        }
        files.insert(diff_id, name);
    }
    Ok(files)
}

/// The name in the shortest form of the names of an archive; one that leads elsewhere stays, and is not there.
fn clean(name: &str) -> String {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return name.to_owned();
    }
    name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

fn descriptor(media_type: &str, size: u64, digest: &Digest) -> String {
    format!(r#"{{"mediaType":"{media_type}","size":{size},"digest":"{digest}"}}"#)
}

/// Docker Image Manifest Version 2, Schema 2, "Media Types".
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The reference calls layers so although they are unpacked.
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
