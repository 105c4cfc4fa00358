//! Images in `dir:` form.

use std::path::Path;

use super::{invalid, read, read_if_there};
use crate::digest::{Algorithm, Digest};
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::lookaside::SIGNATURES;
use crate::fetch::{Budget, Error, MANIFEST_BYTES, SIGNATURE_BYTES};
use crate::manifest;
use crate::verify::UntrustedSignature;

/// The manifest of a `dir:` directory, or that of one instance of its index (rule B-6). It blocks.
///
/// Whether the bytes have the digest is for the judgement to say, as for every instance.
pub fn read_dir(path: &str, instance: Option<&Digest>, budget: &Budget) -> Result<ManifestEvidence, Error> {
    check_version(&Path::new(path).join("version"), budget)?;
    let name = format!("{}manifest.json", prefix(instance));
    let bytes = read(&Path::new(path).join(name), MANIFEST_BYTES, budget)?;
    let media_type = manifest::sniff_media_type(&bytes).to_owned();
    Ok(ManifestEvidence::new(bytes, media_type))
}

/// As in the reference, a directory of a later version is not read, because its files may mean something else.
fn check_version(path: &Path, budget: &Budget) -> Result<(), Error> {
    let Some(bytes) = read_if_there(path, VERSION_BYTES, budget)? else { return Ok(()) };
    let parse = || {
        let text = std::str::from_utf8(&bytes).ok()?;
        let (major, minor) = text.strip_prefix(VERSION)?.strip_suffix('\n')?.split_once('.')?;
        let version: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        (text == format!("{VERSION}{}.{}\n", version.0, version.1)).then_some(version)
    };
    match parse() {
        Some(version) if version <= NEWEST => Ok(()),
        Some((major, minor)) => {
            Err(invalid(path, &format!("the version {major}.{minor} of the format is not supported")))
        }
        None => Err(invalid(path, "it is not the version of a directory")),
    }
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

/// What a version file says before the version.
const VERSION: &str = "Directory Transport Version: ";

/// Largest version file; the real ones have 33 bytes.
const VERSION_BYTES: usize = 64;

/// container-libs, image/directory/version.go: 1.2 is what holds digests other than SHA-256.
const NEWEST: (u32, u32) = (1, 2);
