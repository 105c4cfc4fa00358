//! Images on this host: where a name with a path leads, and `dir:` and `oci:` images.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use crate::config::RegularFile;
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::lookaside::SIGNATURES;
use crate::fetch::{Budget, Error, MANIFEST_BYTES, SIGNATURE_BYTES};
use crate::json::{self, Limits, Member, Value};
use crate::manifest;
use crate::reference::{Found, ImageName, ImageReference, LayoutImage, Lookup, Store};
use crate::verify::UntrustedSignature;

/// An index.json nests five levels; T-28.
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

/// Looks up what the name needs to be a reference; relative paths start in the working directory. It blocks.
pub fn resolve(name: ImageName) -> Result<ImageReference, Error> {
    let current = std::env::current_dir().map_err(|error| failed(Path::new("."), &error))?;
    resolve_in(&current, name)
}

/// As [`resolve`], with relative paths starting in `current`.
pub fn resolve_in(current: &Path, name: ImageName) -> Result<ImageReference, Error> {
    let found = match name.lookup() {
        Lookup::Nothing => Found::Nothing,
        Lookup::Path(path) => Found::Path(resolve_path(current, path)?),
        Lookup::Files(files) => {
            for file in files {
                open(&current.join(file)).map_err(|error| failed(Path::new(file), &error))?;
            }
            Found::Nothing
        }
        Lookup::Store { driver, root } => Found::Store(resolve_store(driver, root)?),
    };
    name.into_reference(found)
        .ok_or_else(|| invalid(current, "the lookup has another kind of answer than the question"))
}

/// Opens without waiting for the writer of a FIFO.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)
}

/// The absolute path without symbolic links; only the last part may be missing (rule S-13).
///
/// As in the reference, `..` takes away the part before it, even one that is a link. Stricter than the
/// reference, which then reads the other directory: if there is one, it must be the same.
fn resolve_path(current: &Path, text: &str) -> Result<String, Error> {
    let path = current.join(text);
    let failed = |error: io::Error| failed(Path::new(text), &error);
    let resolved = match fs::symlink_metadata(&path) {
        Ok(_) => {
            let resolved = fs::canonicalize(clean(&path)).map_err(failed)?;
            if fs::canonicalize(&path).map_err(failed)? != resolved {
                return Err(invalid(Path::new(text), "its \"..\" follows a symbolic link to elsewhere"));
            }
            resolved
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let whole = path.to_str().unwrap_or_default();
            let (parent, last) = whole.rsplit_once('/').unwrap_or_default();
            let parent = fs::canonicalize(clean(Path::new(&format!("{parent}/")))).map_err(failed)?;
            if matches!(last, "" | "." | "..") || !parent.is_dir() {
                return Err(failed(error));
            }
            parent.join(last)
        }
        Err(error) => return Err(failed(error)),
    };
    resolved
        .into_os_string()
        .into_string()
        .map_err(|_| invalid(Path::new(text), "it leads to a path that is not UTF-8"))
}

/// The absolute path with `.`, `..` and repeated slashes taken out, without a look at the file system.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// The store of containers-storage(5); the built-in defaults count only where no storage.conf could say otherwise.
fn resolve_store(driver: Option<&str>, root: Option<&str>) -> Result<Store, Error> {
    const CONFIGURATION: [&str; 2] = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];
    let builtin = nix::unistd::geteuid().is_root()
        && CONFIGURATION
            .iter()
            .all(|path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound));
    if !builtin && (driver.is_none() || root.is_none()) {
        return Err(invalid(
            Path::new(root.unwrap_or("containers-storage:")),
            "this version does not read storage.conf; write containers-storage:[DRIVER@ROOT]NAME",
        ));
    }
    let root = root.unwrap_or("/var/lib/containers/storage");
    if !root.starts_with('/') {
        return Err(invalid(Path::new(root), "the root of a store must be an absolute path"));
    }
    Ok(Store {
        driver: driver.unwrap_or("overlay").to_owned(),
        root: clean(Path::new(root)).to_string_lossy().into_owned(),
    })
}

/// The manifest of a `dir:` directory, or that of one instance of its index (rule B-6). It blocks.
///
/// Whether the bytes have the digest is for the judgement to say, as for every instance.
pub fn read_dir(path: &str, instance: Option<&Digest>, budget: &Budget) -> Result<ManifestEvidence, Error> {
    let name = format!("{}manifest.json", prefix(instance));
    let bytes = read(&Path::new(path).join(name), MANIFEST_BYTES, budget)?;
    let media_type = manifest::sniff_media_type(&bytes).to_owned();
    Ok(ManifestEvidence { bytes, media_type, signatures: Vec::new() })
}

/// The signatures of a `dir:` directory, or those of one instance of its index (rule B-6). It blocks.
pub fn read_dir_signatures(
    path: &str,
    instance: Option<&Digest>,
    budget: &Budget,
) -> Result<Vec<LocatedSignature>, Error> {
    let mut signatures = Vec::new();
    loop {
        let number = signatures.len().saturating_add(1);
        let path = Path::new(path).join(format!("{}signature-{number}", prefix(instance)));
        let Some(blob) = read_if_there(&path, SIGNATURE_BYTES, budget)? else { break };
        if signatures.len() == SIGNATURES {
            return Err(invalid(&path, &format!("there are more than {SIGNATURES} signatures")));
        }
        let location = path.to_string_lossy().into_owned();
        let signature = UntrustedSignature::from_blob(&blob).map_err(|error| Error::MalformedSignature {
            location: location.clone(),
            detail: error.to_string(),
        })?;
        signatures.push(LocatedSignature { location, signature });
    }
    Ok(signatures)
}

/// What the names of an instance's files begin with (rule B-6).
fn prefix(instance: Option<&Digest>) -> String {
    match instance.map(|digest| (digest.algorithm(), digest.hex())) {
        None => String::new(),
        Some((Algorithm::Sha256, hex)) => format!("{hex}."),
        Some((algorithm @ (Algorithm::Sha384 | Algorithm::Sha512), hex)) => {
            format!("{}-{hex}.", algorithm.name())
        }
    }
}

/// An image of an OCI layout, which has no place for signatures (rule B-6). It blocks.
///
/// OCI image-spec, image-layout.md.
pub fn read_layout(path: &str, image: &LayoutImage, budget: &Budget) -> Result<ManifestEvidence, Error> {
    let layout = Path::new(path);
    let index_path = layout.join("index.json");
    let index = read(&index_path, MANIFEST_BYTES, budget)?;
    let descriptor = choose(&index, image).map_err(|detail| invalid(&index_path, detail))?;
    let mut evidence = read_blob(layout, &descriptor.digest, budget)?;
    if !descriptor.media_type.is_empty() {
        evidence.media_type = descriptor.media_type;
    }
    Ok(evidence)
}

/// One instance of an image index in an OCI layout. It blocks.
pub fn read_layout_instance(path: &str, digest: &Digest, budget: &Budget) -> Result<ManifestEvidence, Error> {
    read_blob(Path::new(path), digest, budget)
}

/// Stricter than the reference, which does not hash what a layout holds.
fn read_blob(layout: &Path, digest: &Digest, budget: &Budget) -> Result<ManifestEvidence, Error> {
    let path = layout.join("blobs").join(digest.algorithm().name()).join(digest.hex());
    let bytes = read(&path, MANIFEST_BYTES, budget)?;
    if !digest.matches(&bytes) {
        return Err(Error::DigestMismatch {
            location: path.to_string_lossy().into_owned(),
            wanted: digest.clone(),
            found: Digest::compute(digest.algorithm(), &bytes),
        });
    }
    let media_type = manifest::sniff_media_type(&bytes).to_owned();
    Ok(ManifestEvidence { bytes, media_type, signatures: Vec::new() })
}

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
            chosen.ok_or("the layout has no image of this name")?
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

/// The member of an object that is called `name`.
fn member<'v, 'a>(object: &'v Value<'a>, name: &str) -> Result<Option<&'v Value<'a>>, &'static str> {
    object.members().ok_or("something in it is no object")?;
    object.member(name).map_err(|_| "a member is there twice, or is misspelled")
}

fn read(path: &Path, limit: usize, budget: &Budget) -> Result<Vec<u8>, Error> {
    read_if_there(path, limit, budget)?.ok_or_else(|| invalid(path, "there is no such file"))
}

fn read_if_there(path: &Path, limit: usize, budget: &Budget) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = RegularFile::find(path).map_err(|error| failed(path, &error))? else { return Ok(None) };
    let bytes = file.read(limit).map_err(|error| failed(path, &error))?;
    budget.bytes(bytes.len())?;
    Ok(Some(bytes))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    invalid(path, &error.to_string())
}

fn invalid(path: &Path, detail: &str) -> Error {
    Error::Local { path: path.to_string_lossy().into_owned(), detail: detail.to_owned() }
}
